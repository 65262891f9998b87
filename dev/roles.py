"""`make roles`: writes the role files, which grant no more than the catalog and the app's migrations need: into sql/roles, or into
roles/ beside the catalog that DUALWRITE_CATALOG names.

The files of sql/roles are the text of both; the part between two marks in them is made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from dev.airflow_home import ROOT
from dev.processes import Missing
from dualwrite import catalog, postgres, settings
from dualwrite.migrations.files import folders
from dualwrite.migrations.promise import Promise, Snapshot, together
from dualwrite.migrations.verify import own_snapshot
from dualwrite.model.declaration import Catalog
from dualwrite.postgres.own_schema import in_own_schema

FOLDER = ROOT / "sql/roles"
NAMES = ("data.sql", "migrations.sql")
PRUNE = ROOT / "sql/optional/prune.sql"

_MADE = re.compile(r"(?<=^-- <catalog>\n)(.*?)(?=^-- </catalog>$)", re.DOTALL | re.MULTILINE)
_WIDTH = 120
_NAME = r'(?:"(?:[^"]|"")+"|[^\s".(]+)'
_POINTS_AT = re.compile(rf"^FOREIGN KEY .* REFERENCES ({_NAME})\.({_NAME})\(")


def role_files(of: Catalog, promises: Iterable[Promise] = ()) -> dict[str, str]:
    """The text of each file, by name. `promises`: of the app's migrations, in their order."""
    made = {"data.sql": _data(of), "migrations.sql": _migrations(together(promises))}
    return {name: in_own_schema(_with((FOLDER / name).read_text(), text)) for name, text in made.items()}


def _with(template: str, made: str) -> str:
    before, _, after = _MADE.split(template, maxsplit=1)
    return f"{before}{made}{after}"


def quoted(*name: str) -> str:
    """A name as SQL writes it. Quoted, unless nobody could read it otherwise."""
    plain = [part for part in name if re.fullmatch(r"[a-z_][a-z0-9_]*", part)]
    # After a dot any word is a name; the first one might be a word of SQL's own, such as `user`.
    if len(plain) == len(name) and name[0] in ("public", "dualwrite"):
        return ".".join(name)
    return postgres.sql.Identifier(*name).as_string(None)


def _data(of: Catalog) -> str:
    places = dict.fromkeys(c.place for c in of.collections)
    tables = [quoted(*place) for place in places]
    logs = any(c.operations for c in of)
    schemas = dict.fromkeys([*(schema for schema, _ in places), *(["public"] if logs else [])])
    lines = []
    if schemas:
        lines += [_grant("USAGE", [quoted(s) for s in schemas], "SCHEMA "), ""]
    if tables:
        lines += [
            "-- The app's tables: those of the catalog. Reading them is what every run needs, a dry run too.",
            _grant("SELECT", tables),
        ]
    if logs:
        lines += ["-- The app's own log of operations is read, never written.", _grant("SELECT", ["public.write_ops"])]
    if tables:
        lines += ["-- What an apply and a repair need.", _grant("INSERT, UPDATE, DELETE", tables)]
    return "".join(f"{line}\n" for line in lines)


def _migrations(promised: Promise) -> str:
    """The grants for the schemas and relations that the app's files make, and for those that their foreign keys reference."""
    made = {name for name, parts in promised.items() if "relation" in parts}
    schemas = {name for name in made if promised[name]["relation"].get("kind") == "schema"}
    into = sorted({name.partition(".")[0] for name in made if "." in name} - schemas)
    pointed: dict[tuple[str, str], str] = {}
    for parts in promised.values():
        for text in parts.get("constraint", {}).values():
            if names := _POINTS_AT.match(text or ""):
                schema, table = (re.sub('""', '"', part.strip('"')) for part in names.groups())
                if f"{schema}.{table}" not in made:
                    pointed[schema, table] = quoted(schema, table)
    beyond = sorted({schema for schema, _ in pointed} - {*into, *schemas})
    lines = []
    if into:
        lines.append(_grant("USAGE, CREATE", [quoted(s) for s in into], "SCHEMA ", "dualwrite_migrations"))
    if beyond:
        lines.append(_grant("USAGE", [quoted(s) for s in beyond], "SCHEMA ", "dualwrite_migrations"))
    if pointed:
        lines += [
            "-- The tables that the migrations' foreign keys point at. No privilege on their rows.",
            _grant("REFERENCES", sorted(pointed.values()), to="dualwrite_migrations"),
        ]
    return "".join(f"{line}\n" for line in lines)


def _grant(privileges: str, names: Iterable[str], kind: str = "", to: str = "dualwrite_data") -> str:
    """A statement, on several lines if it is long."""
    names = list(names)
    line = f"GRANT {privileges} ON {kind}{', '.join(names)} TO {to};"
    if len(line) <= _WIDTH:
        return line
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) > _WIDTH and lines[-1]:
            lines.append("")
        lines[-1] += f"{name}, "
    return (
        "\n".join([f"GRANT {privileges} ON {kind}".rstrip(), *lines]).rstrip(", ").replace(", \n", ",\n")
        + f"\nTO {to};"
    )


def app_promises() -> list[Promise]:
    """The promises of the migrations that make the app's own tables: the shipped app's, if no other catalog is named, and those of
    the installation's own folder. Raises Missing as `own_promises` does."""
    shipped = [path.stem for folder in folders() if folder.name == "shipped_app" for path in folder.glob("*.sql")]
    promised = Snapshot.load(ROOT / "sql/snapshot.json").files
    return [promised[label] for label in sorted(shipped)] + own_promises()


def own_promises() -> list[Promise]:
    """The promises of the migrations in the installation's own folder. Raises Missing if its snapshot isn't there."""
    own = settings.own_migrations()
    if own is None or not any(own.glob("*.sql")):
        return []
    path = own_snapshot(own)
    if not path.is_file():
        raise Missing(
            f"{path} says what your migrations make and reference, and isn't there. Run `make snapshot` first."
        )
    return list(Snapshot.load(path).files.values())


def write(of: Catalog, folder: Path, promises: Iterable[Promise]) -> list[Path]:
    """Writes the files into a folder, which is made if it isn't there."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in role_files(of, promises).items():
        paths.append(folder / name)
        paths[-1].write_text(text)
    if settings.prefix():  # the role and its schema are called otherwise
        paths.append(folder / PRUNE.name)
        paths[-1].write_text(in_own_schema(PRUNE.read_text()))
    return paths


def main() -> None:
    if settings.named_catalog() is not None:
        folder = catalog.FILE.with_name("roles")
    else:  # files with a prefix must not replace those that they are made of
        folder = ROOT / "roles" if settings.prefix() else FOLDER
    for path in write(catalog.CATALOG, folder, app_promises()):
        print(f"roles: wrote {path}")


if __name__ == "__main__":
    main()
