"""Reads the folders: their files become migrations, or are refused by file and line before anything runs. Otherwise pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from dualwrite import settings
from dualwrite.migrations.parser import Statement, header, split
from dualwrite.migrations.rules import Created, created_objects, refuse
from dualwrite.model.errors import MigrationError
from dualwrite.postgres.own_schema import in_own_schema

_NAME = re.compile(r"^(\d{14})_([a-z0-9_]+)\.sql$")
_CLI_NAME = re.compile(r"^(\d+)_(.*)\.sql$", re.DOTALL)
_OUTSIDE = re.compile(r"^--\s*dualwrite:\s*no-transaction\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class MigrationFile:
    """A migration on disk. Its text is read lazily, because an applied one isn't needed."""

    path: Path
    version: str
    name: str

    @cached_property
    def text(self) -> str:
        """The text that is applied: a file of the bundle's with this bundle's own schema."""
        return in_own_schema(self._written) if self.path.parent == bundle_folder() else self._written

    @cached_property
    def _written(self) -> str:
        return read_text(self.path)

    @property
    def statements(self) -> tuple[Statement, ...]:
        """Raises MigrationError if they break a rule; so does `transactional`."""
        return _checked(self.path.name, self.text)[0]

    @property
    def transactional(self) -> bool:
        return _checked(self.path.name, self.text)[1]

    def check(self) -> None:
        """Raises MigrationError, with the file's name and the line, if it may not be applied as it is."""
        if _NAME.match(self.path.name) is None:
            raise MigrationError(
                f"{self.path.name} is not named <14 digits>_<name>.sql, in lower case. "
                "Rename it (make migration name=... makes a well-named file).",
                code="migration-misnamed",
            )
        _checked(self.path.name, self.text)

    @cached_property
    def sha256(self) -> str:
        """The hash of the text with LF line ends and without a byte-order mark, so that a checkout can't change it."""
        return hashlib.sha256(self._written.encode()).hexdigest()

    @property
    def label(self) -> str:
        """<version>_<name>, as in reports and in the snapshot."""
        return f"{self.version}_{self.name}"

    @property
    def place(self) -> str:
        """The file's name, and the folder's."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def creates(self) -> tuple[Created, ...]:
        """The objects that must not exist before the file is applied."""
        return _creates(self.path.name, self.text)


def sql_folder(package: Path = Path(__file__)) -> Path:
    """The folder `sql`: beside dags/, or inside it, for platforms that sync nothing else (MWAA, Cloud Composer)."""
    dags = package.resolve().parents[2]
    candidates = (dags.parent / "sql", dags / "sql")
    for folder in candidates:
        if (folder / "migrations").is_dir():
            return folder
    raise MigrationError(
        f"The folder sql/migrations is missing: it is neither in {candidates[0]} nor in {candidates[1]}. Deploy the "
        f"repository's sql folder, or, if only the DAGs folder is synced, put a copy of it or a link to it at {candidates[1]}.",
        code="migrations-folder-missing",
    )


def bundle_folder() -> Path:
    """The folder of the bundle's own migrations."""
    return sql_folder() / "migrations"


def folders() -> tuple[Path, ...]:
    """The folders whose files are applied: the bundle's; the shipped app's, with the shipped catalog; and the installation's own."""
    applied = [bundle_folder()]
    if settings.named_catalog() is None:
        applied.append(sql_folder() / "shipped_app")
    own = settings.own_migrations()
    return tuple(applied if own is None or own in applied else [*applied, own])


def read_folders(folders: Sequence[Path], held: Container[str] = ()) -> list[MigrationFile]:
    """All migrations of some folders in the order of their versions. Raises MigrationError for the first bad file.

    Files whose versions a ledger holds (`held`) are not checked: they were applied by the Supabase CLI's rules, or by earlier ones of
    ours, and may not be edited any more.
    """
    files = list_folders(folders)
    for file in files:
        if file.version not in held:
            file.check()
    return files


def list_folders(folders: Sequence[Path]) -> list[MigrationFile]:
    """All migrations of some folders in one order, by name, unread. Raises MigrationError if a folder is missing, a file is misnamed,
    or two have the same version.

    Ignores hidden files and those without `.sql` in their name. All others must be migrations: a misnamed one must not be
    skipped silently.
    """
    for folder in folders:
        if not folder.is_dir():
            raise MigrationError(
                f"The folder {folder} is missing. Restore it from its repository, or, if {settings.MIGRATIONS} names it, correct "
                "that.",
                code="own-migrations-folder-missing",
            )
    files = [
        _listed(path)
        for path in sorted((p for folder in folders for p in folder.iterdir()), key=lambda p: (p.name, p))
        if not path.name.startswith(".") and ".sql" in path.name.lower()
    ]
    by_version: dict[str, MigrationFile] = {}
    for file in files:
        other = by_version.setdefault(file.version, file)
        if other is not file:
            raise MigrationError(
                f"Two files have the same version: {other.place} and {file.place}. Rename the newer one.",
                code="migration-version-twice",
            )
    return files


def read_file(path: Path) -> MigrationFile:
    """Reads and checks one migration. Raises MigrationError with the file's name and the line."""
    file = _listed(path)
    file.check()
    return file


def _listed(path: Path) -> MigrationFile:
    """A file as the Supabase CLI's naming rule reads it, which is wider than ours."""
    named = _CLI_NAME.match(path.name)
    file = MigrationFile(path, *(named.groups() if named else ("", path.name)))
    if named is None:
        file.check()
    return file


@lru_cache(maxsize=1000)
def _checked(name: str, text: str) -> tuple[tuple[Statement, ...], bool]:
    """A file's statements, and whether they run in one transaction. Remembered, because a run asks several times."""
    statements = tuple(split(text, name))
    if not statements:
        raise MigrationError(
            f"A migration needs a statement: {name} has none. Fill it in or remove it.", code="migration-empty"
        )
    transactional = _OUTSIDE.search(header(text, name)) is None
    refuse(name, statements, transactional=transactional)
    return statements, transactional


@lru_cache(maxsize=1000)
def _creates(name: str, text: str) -> tuple[Created, ...]:
    return created_objects(_checked(name, text)[0])


def read_text(path: Path) -> str:
    """A file's text: UTF-8, without a byte-order mark, with LF for CRLF. Raises MigrationError if it is not UTF-8."""
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise MigrationError(
            f"{path.name}, line {line} is not UTF-8. Save the file as UTF-8.", code="migration-not-utf8"
        ) from None
