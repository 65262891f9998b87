"""The catalog that this installation uses: the one that DUALWRITE_CATALOG names, or else the shipped one.

All modules import it from here, so DAGs, tasks, doctor and helper have the same one. If a catalog is wrong, this import raises one
CatalogError, which Airflow shows as the import error of each DAG. It gives the kind of error that the file raised, and its line,
but never its message, which may quote the file's content.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from datetime import datetime
from pathlib import Path
from types import ModuleType

from dualwrite import settings
from dualwrite.model.declaration import Catalog
from dualwrite.model.errors import CatalogError, ParameterError
from dualwrite.model.windows import instant

_LOADED_AS = "dualwrite_own_catalog"
"""The name in sys.modules of a catalog that was loaded from a path."""


def _own(named: str) -> ModuleType:
    """Raises CatalogError, without the message of the error behind it."""
    path = (settings.ROOT / named).resolve() if "/" in named or named.endswith(".py") else None
    if path is not None and not path.is_file():
        raise CatalogError(
            f"{settings.CATALOG} names a module or a Python file: {path} is no file. Correct the setting, or deploy the file to "
            "each machine on which a component of Airflow runs.",
            code="catalog-file-missing",
        )
    try:
        return importlib.import_module(named) if path is None else _from_file(path)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file of yours raises is told as one kind
        problem = _problem(named if path is None else str(path), error, path)
        code = error.code if isinstance(error, CatalogError) else "catalog-not-importable"
    raise CatalogError(problem, code=code)  # out of the except clause: the first error isn't shown with it


def _from_file(path: Path) -> ModuleType:
    """Its folder need not be on sys.path."""
    spec = importlib.util.spec_from_file_location(_LOADED_AS, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_LOADED_AS] = module  # dataclasses look their own module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_LOADED_AS]
        raise
    return module


def _problem(place: str, error: BaseException, path: Path | None) -> str:
    """A catalog's error as rule, place, remedy."""
    if isinstance(error, CatalogError):  # our own words, of the declaration
        return f"{error} (It was loaded from {place}.)"
    if isinstance(error, ModuleNotFoundError) and path is None and f"{place}.".startswith(f"{error.name}."):
        return (
            f"{settings.CATALOG} names a module that Python finds: it finds no {error.name}. Correct the setting, put the "
            "module's folder on PYTHONPATH of each component, or name the file's path instead."
        )
    said = type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name and all(map(str.isidentifier, error.name.split("."))):
        said += f" (module {error.name})"
    file = path or _file_of(place)
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if file and Path(frame.filename) == file
    ]
    if isinstance(error, SyntaxError) and file and error.filename and Path(error.filename) == file:
        lines.append(error.lineno)
    where = f"{place}, line {lines[-1]}" if lines else place
    return (
        f"A catalog must import without an error: {where}, raised {said}. Correct the file; `python {file or '...'}`, with "
        "dags/ on PYTHONPATH, shows the whole error."
    )


def _file_of(module: str) -> Path | None:
    """The file of a module that can't be imported; None if Python doesn't know it."""
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit):  # noqa: BLE001 - a parent of it, which raises as well
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _checked(module: ModuleType, named: str | None) -> ModuleType:
    """Raises CatalogError if a module lacks a name that a catalog must define."""
    if not isinstance(getattr(module, "CATALOG", None), Catalog):
        fault = "has no CATALOG" if not hasattr(module, "CATALOG") else "has a CATALOG that is no Catalog"
        raise CatalogError(
            f"A catalog says CATALOG = Catalog((...)): {named} {fault}. Add it, or correct {settings.CATALOG}.",
            code="catalog-not-defined",
        )
    try:
        instant(export_time_of(module), "EXPORT_TIME")
    except (AttributeError, ParameterError):
        problem = (
            "A catalog says EXPORT_TIME, when the export was taken from which the target was first filled: a text with date, time "
            f"and offset from UTC, such as '2026-01-15T21:52:00+00:00', or a datetime with its tzinfo. {named} "
            + ("says another one. Correct it." if hasattr(module, "EXPORT_TIME") else "doesn't. Add it.")
        )
    else:
        return module
    raise CatalogError(problem, code="export-time-missing")


def export_time_of(module: ModuleType) -> str:
    """As the form shows it. A time without an offset stays one, and is refused."""
    said = module.EXPORT_TIME
    return said.isoformat() if isinstance(said, datetime) else said


def load() -> ModuleType:
    """The module of the catalog that the environment names; the shipped one if it names none. Raises CatalogError."""
    try:
        named = settings.named_catalog()
        settings.prefix()  # its names are made at import everywhere
    except settings.SettingsError as error:
        raise CatalogError(str(error), code=error.code) from None
    if named is None:
        from dualwrite import shipped_catalog

        return shipped_catalog
    return _checked(_own(named), named)


_module = load()
CATALOG: Catalog = _module.CATALOG
EXPORT_TIME: str = export_time_of(_module)
"""The time of the export that first filled the target: a backfill's window begins there by default."""
FILE = Path(str(_module.__file__))
"""The file that the catalog was loaded from."""
