"""A catalog that the setting names: a module or a file; and what is said where it can't be loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from dev.airflow_home import ROOT
from dualwrite import catalog, settings, shipped_catalog
from dualwrite.model.errors import CatalogError

SECRET = "hunter2-of-the-file"
GOOD = """
from __future__ import annotations
from dataclasses import dataclass
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId

@dataclass
class Words:  # looks its own module up in sys.modules
    said: str = ""

EXPORT_TIME = "2026-02-01T00:00:00+00:00"
CATALOG = Catalog((Collection(name="things", table="things", paths=("things/{thing}",),
                              columns=(Column("id", "key", DocumentId()),)),))
"""


@pytest.fixture
def load(monkeypatch, tmp_path):
    def loaded(text: str | None, name: str = "my_catalog.py", named: str | None = None):
        if text is not None:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setenv(settings.CATALOG, named or str(tmp_path / name))
        monkeypatch.setattr(sys, "path", [str(tmp_path / "on_the_path"), *sys.path])
        for module in [m for m in sys.modules if m.startswith("own_app")]:
            del sys.modules[module]
        return catalog.load()

    yield loaded
    for module in [m for m in sys.modules if m.startswith("own_app")]:
        del sys.modules[module]
    sys.modules.pop("dualwrite_own_catalog", None)


def test_unset_or_empty_means_the_shipped_catalog(monkeypatch):
    for value in ("", "  "):
        monkeypatch.setenv(settings.CATALOG, value)
        assert catalog.load() is shipped_catalog
    monkeypatch.delenv(settings.CATALOG)
    assert catalog.load() is shipped_catalog


def test_a_file_whose_folder_is_not_on_the_path_is_loaded(load):
    found = load(GOOD)
    assert found.CATALOG.names == ("things",)
    assert found.EXPORT_TIME == "2026-02-01T00:00:00+00:00"


def test_an_export_time_may_be_a_datetime_with_its_offset(load):
    written = "\nfrom datetime import UTC, datetime\nEXPORT_TIME = datetime(2026, 2, 1, tzinfo=UTC)\n"
    assert catalog.export_time_of(load(GOOD + written)) == "2026-02-01T00:00:00+00:00"


def test_a_module_is_loaded_by_its_name(load):
    assert load(GOOD, "on_the_path/own_app_a.py", "own_app_a").CATALOG.names == ("things",)


def test_a_relative_path_begins_at_the_folder_of_dags(load, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    assert load(GOOD, named="my_catalog.py").CATALOG.names == ("things",)
    monkeypatch.setenv(settings.MIGRATIONS, "own/migrations")
    assert settings.own_migrations() == tmp_path / "own/migrations"


BAD = {
    "a missing file": (None, "is no file. Correct the setting"),
    "no catalog": ("EXPORT_TIME = '2026-02-01T00:00:00+00:00'\n", "has no CATALOG. Add it"),
    "a catalog of another kind": (f"CATALOG = {SECRET!r}\n", "has a CATALOG that is no Catalog"),
    "no export time": (GOOD.replace("EXPORT_TIME", "EXPORTED"), "doesn't. Add it"),
    "a naive export time": (GOOD.replace("+00:00", ""), "says another one. Correct it"),
    "an export time that is none": (GOOD.replace("2026-02-01T00:00:00+00:00", SECRET), "says another one. Correct it"),
    "a naive datetime": (f"{GOOD}\nfrom datetime import datetime\nEXPORT_TIME = datetime(2026, 2, 1)\n", "says another one. Correct it"),
    "an error": (f"\n\nraise ValueError({SECRET!r})\n", "line 3, raised ValueError. Correct the file"),
    "an error of a function below": (f"def f():\n    int({SECRET!r})\nf()\n", "line 2, raised ValueError"),
    "an exit": (f"import sys\nsys.exit({SECRET!r})\n", "line 2, raised SystemExit"),
    "a syntax error": (f"a = 1\n{SECRET} = = 2\n", "line 2, raised SyntaxError"),
    "a null byte": (f"a = '{SECRET}\x00'\n", "raised "),
    "a library that isn't installed": ("import no_such_library.part\n", "line 1, raised ModuleNotFoundError (module no_such_library)"),
    "a contradiction": (GOOD.replace('"key"', '"compared"'), "Rows need a key"),
}  # fmt: skip


@pytest.mark.parametrize("by", ["path", "module"])
@pytest.mark.parametrize("case", BAD)
def test_a_bad_catalog_is_told_by_rule_place_and_remedy(load, case, by):
    """Rule, place and remedy, never the words of what the file raised: they may quote it."""
    text, said = BAD[case]
    if by == "module" and text is None:
        said = "it finds no own_app_b. Correct the setting"
    with pytest.raises(CatalogError) as raised:
        load(text, "on_the_path/own_app_b.py", "own_app_b" if by == "module" else None)
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)
    assert ("own_app_b" in str(raised.value)) or case == "a missing file"
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None, "a traceback would show the first error's words"


def test_the_tests_ignore_the_catalog_that_the_environment_names():
    """They use their own. The suite passes in a shell that names a catalog, even one that is missing."""
    environment = {**os.environ, "DUALWRITE_CATALOG": "/nowhere.py", "DUALWRITE_MIGRATIONS": "/nowhere"}
    environment["PYTHONPATH"] = f"{ROOT / 'dags'}:{ROOT}"
    command = (
        "import tests; from dualwrite import catalog, settings; print(catalog.FILE.name, settings.own_migrations())"
    )
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "shipped_catalog.py None\n", done.stderr


def test_a_faulty_declaration_names_the_configured_file(load, tmp_path):
    """A message that says catalog.py sends a person to the bundle's own loader, which declares nothing."""
    with pytest.raises(CatalogError) as told:
        load(GOOD.replace("DocumentId()),)", "DocumentId()), Column('a', 'keys', DocumentId()))"))
    assert f"column 'a' has 'keys' of collection 'things' in {tmp_path / 'my_catalog.py'}." in str(told.value)


def test_no_message_names_a_file_that_may_not_be_the_catalog():
    """settings.catalog_file() is the one place that knows how to call it."""
    texts = {path.name: path.read_text() for path in (ROOT / "dags").rglob("*.py")}
    said = {
        name: [line for line in text.splitlines() if re.search(r"(?<![_/\w])catalog\.py", line)]
        for name, text in texts.items()
    }
    assert not {name: lines for name, lines in said.items() if lines}
