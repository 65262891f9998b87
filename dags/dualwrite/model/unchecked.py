"""A collection as declared, before its checks, with the facts that follow from it. Nothing is checked here: see
collection_checks.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from dualwrite.model import conditions, entries, share
from dualwrite.model.check_fields import Check, checks_of
from dualwrite.model.columns import Column
from dualwrite.model.conditions import Condition
from dualwrite.model.entries import Entries, Itself
from dualwrite.model.origins import (
    Computed,
    Converted,
    DocumentId,
    DocumentPath,
    EntryField,
    EntryIndex,
    EntryOrigin,
    Field,
    FieldPath,
    FirstOf,
    Origin,
    Segment,
    entry_parts,
    fields_of,
)
from dualwrite.model.templates import Template


@dataclass(frozen=True, slots=True)
class Operations:
    """How the app's write_ops name keys of this collection: the entity type, and the columns that the entity id
    contains, joined by underscores (`block:create:<blocker>_<blocked>:...`). No columns: the entity id is the document's
    id, which no column holds."""

    entity: str
    columns: tuple[str, ...] = ()


@dataclass(
    frozen=True, eq=False
)  # equal by identity: hashing its columns would take a fifth of the time of each document
class UncheckedCollection:
    """A collection as it is declared, for the checks. Elsewhere there are only checked ones, `Collection` (declaration.py), which
    describes each field."""

    name: str
    table: str
    paths: tuple[str, ...]
    columns: tuple[Column, ...]
    check_fields: tuple[str | Check, ...] = ()
    written_columns: tuple[str, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()
    entries: Entries | Itself | None = None
    operations: tuple[Operations, ...] = ()
    selected: bool = False
    """Whether a run without a selection examines it."""
    sentinel: bool = False
    """Never empty on a live system: without documents or rows here, a run refuses to begin."""
    where: Condition | None = None
    rows: share.Share = field(default_factory=dict)

    @cached_property
    def templates(self) -> tuple[Template, ...]:
        return tuple(Template(path) for path in self.paths)

    @cached_property
    def place(self) -> tuple[str, str]:
        """The schema and the name of the table. Without a schema it is in `public`, whatever the role's search_path."""
        schema, _, name = self.table.rpartition(".")
        return schema or "public", name

    @property
    def collection_id(self) -> str:
        """The last collection id of the path, which a collection-group query names."""
        return self.templates[0].collection_id

    @cached_property
    def top_level(self) -> bool:
        """Whether its documents lie at the root of the database."""
        return all(len(t.segments) == 2 for t in self.templates)

    @cached_property
    def is_one_document(self) -> bool:
        """Whether its path has no variables, so there is only one document."""
        return len(self.templates) == 1 and not self.templates[0].variables

    @cached_property
    def is_plain(self) -> bool:
        """Whether each id of its paths is one variable, which matches any id."""
        return all(t.is_plain for t in self.templates)

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The check fields, each with its format."""
        return checks_of(self.check_fields)

    def check_of(self, column: Column) -> Check | None:
        """The check field whose value a column holds, converted or not."""
        origin = column.origin.origin if isinstance(column.origin, Converted) else column.origin
        if not isinstance(origin, Field):
            return None
        return next((check for check in self.checks if check.field == origin.path), None)

    def has_instant_of(self, column: Column) -> Check | None:
        """The check field whose instant a column holds, read with the same format."""
        check = self.check_of(column)
        form = column.origin.conversion if isinstance(column.origin, Converted) else None
        return check if check is not None and column.type == "timestamp" and form == check.format else None

    def _is_time_of_writing(self, column: Column) -> bool:
        if isinstance(column.origin, FirstOf):
            return all(self._is_time_of_writing(replace(column, origin=inner)) for inner in column.origin.origins)
        return self.check_of(column) is not None

    @cached_property
    def share_columns(self) -> tuple[tuple[Column, share.Value], ...]:
        """The columns that separate its rows from others of the table, with their values."""
        return tuple((self.column(name), value) for name, value in self.rows.items())

    @cached_property
    def key(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.role == "key")

    @cached_property
    def key_variables(self) -> frozenset[str]:
        """The variables of the path that the key holds, unconverted."""
        return frozenset(c.origin.variable for c in self.key if isinstance(c.origin, Segment))

    @cached_property
    def references(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.references is not None)

    @cached_property
    def parents(self) -> frozenset[str]:
        """Names of the collections that this one's rows need first."""
        return frozenset(c.parent.collection for c in self.references)

    @cached_property
    def parents_first(self) -> frozenset[str]:
        """Those of its parents whose rows are written before this one's, not filled in later."""
        return frozenset(c.parent.collection for c in self.references if not c.late)

    @cached_property
    def has_one_row(self) -> bool:
        """Whether a document has one row at most."""
        return isinstance(self.entries, Itself | None)

    @cached_property
    def may_have_others(self) -> bool:
        """Whether a document with one row may have rows under other keys too, which its id shows."""
        return isinstance(self.entries, Itself) and self.document_column in self.key

    @cached_property
    def holds_fields_beside_id(self) -> bool:
        """Whether the key tells the document by its id, and holds values of it besides."""
        by_id = any(isinstance(c.origin, DocumentId) for c in self.key)
        last = [t.last_variables for t in self.templates]
        return any(_is_of_fields(c) for c in self.key) and (
            by_id or all(v and self.key_variables >= set(v) for v in last)
        )

    @cached_property
    def keyed_by_path(self) -> bool:
        """Whether the path alone, or with an entry, gives the key. If not (a natural key from fields), several documents may share
        one key, and only a read of all of them shows which owns the row."""
        return isinstance(self.entries, Itself) or all(not isinstance(c.source, Field) for c in self.key)

    @cached_property
    def keyed_by_whole_path(self) -> bool:
        """Whether the key gives the whole path of the only document that can have it. If not (a post's id doesn't give its
        board), a document with this key may be at any path."""
        known = set(self.key_variables)
        if any(isinstance(c.origin, DocumentId) for c in self.key):
            known.update(self.templates[0].ids[-1].variables)
        return len(self.templates) == 1 and self.keyed_by_path and known >= set(self.templates[0].variables)

    @cached_property
    def key_leads_back(self) -> bool:
        """Whether a row's key gives the ids that it was made from. If not (a uuid v5 of a path), only a complete read of names
        shows whether its document is there."""
        if self.entries is not None and self.document_column is None:
            return False
        return not any(
            isinstance(c.source, DocumentPath)
            or (isinstance(c.origin, Converted) and isinstance(c.source, DocumentId | Segment))
            for c in self.key
        )

    @cached_property
    def entry_columns(self) -> tuple[Column, ...]:
        """The columns of the key that identify an entry among those of its document; empty without entries."""
        if isinstance(self.entries, Itself):
            return tuple(c for c in self.key if _is_of_fields(c))
        return tuple(c for c in self.key if any(entry_parts(c.origin)))

    @cached_property
    def document_column(self) -> Column | None:
        """The column that shows which of a few documents a row belongs to; if possible one of the key. It holds the document's
        id, or the last variable of its path (see `document_value`)."""
        last = {t.variables[-1] if t.variables else None for t in self.templates}
        candidates = [
            c
            for c in self.columns
            if (isinstance(c.origin, DocumentId) and not any(t.ids[-1].is_literal for t in self.templates))
            or (isinstance(c.origin, Segment) and last == {c.origin.variable})
        ]
        in_key = [c for c in candidates if c.role == "key"]
        return next((c for c in [*in_key, *candidates] if isinstance(c.origin, DocumentId) or self._tells(c)), None)

    def _tells(self, column: Column) -> bool:
        """Whether a variable identifies a document: alone, or with the other variables of its id, if the key has them all. Not if
        another path has the same variables and ends differently."""
        last = set(self.templates[0].last_variables)
        is_whole = len(last) == 1 or (self.keyed_by_path and self.key_variables >= last)
        return is_whole and len({t.ending for t in self.templates}) == 1

    def document_value(self, path: str) -> str | None:
        """The value of `document_column` in a document's rows; None if its id can't be split."""
        assert self.document_column is not None
        if self.is_plain or isinstance(self.document_column.origin, DocumentId):
            return path.rsplit("/", 1)[-1]
        variables = self.match(path)
        return None if variables is None else list(variables.values())[-1]

    @cached_property
    def entries_are_ids(self) -> tuple[bool, ...]:
        """For each of `entry_columns`, whether it holds ids of another collection's documents."""
        named = [c.origin for c in self.columns if c.references is not None]
        return tuple(column.origin in named for column in self.entry_columns)

    @cached_property
    def parts_of_entries(self) -> tuple[EntryOrigin, ...]:
        """The origins in an entry that its columns and its condition look at."""
        origins = [c.origin for c in self.columns] + [w for w in self._looked_at if isinstance(w, Origin)]
        return tuple(part for origin in origins for part in entry_parts(origin))

    @cached_property
    def entries_are_maps(self) -> bool:
        return any(isinstance(part, EntryField) for part in self.parts_of_entries)

    @cached_property
    def _looked_at(self) -> tuple[FieldPath | Origin, ...]:
        """The fields and origins that its condition looks at."""
        return () if self.where is None else tuple(conditions.looked_at(self.where))

    @cached_property
    def conditions(self) -> tuple[Condition | None, Condition | None]:
        """The conditions that a document must meet, and each of its entries too, to have a row."""
        return conditions.split(self.where, lambda what: isinstance(what, Origin) and any(entry_parts(what)))

    @cached_property
    def key_is_ids(self) -> tuple[bool, ...]:
        """For each key column, whether it holds ids, which may be shown to people; otherwise it holds content."""
        return tuple(
            c.references is not None
            or isinstance(c.origin, EntryIndex)
            or not (isinstance(c.origin, Field) or c in self.entry_columns)
            for c in self.key
        )

    @cached_property
    def fingerprinted(self) -> tuple[Column, ...]:
        """The columns that show whether a difference is still the same one: compared ones, without times of writing, which
        counters move all day."""
        return tuple(
            c for c in self.columns if c.role == "key" or (c.role == "compared" and not self._is_time_of_writing(c))
        )

    @cached_property
    def fields(self) -> tuple[FieldPath, ...]:
        """The document fields that the columns, entries and condition need; a query selects these."""
        paths: list[FieldPath] = []
        if self.entries is not None:
            paths += entries.read_for(self.entries)
        for column in self.columns:
            paths += fields_of(column.origin)
        for what in self._looked_at:
            paths += fields_of(what) if isinstance(what, Origin) else [what]
        return tuple(dict.fromkeys(paths))

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)

    def match(self, path: str) -> dict[str, str] | None:
        """The variables of the path; None for a stray, and for a path whose ids can't be split."""
        segments = path.split("/")
        for template in self.templates:
            variables = template.match(segments)
            if variables is not None:
                return variables
        return None

    def template_of(self, segments: Sequence[str]) -> Template | None:
        """The template that a path belongs to, even if its ids can't be split. None: a stray."""
        return next((t for t in self.templates if t.fits(segments)), None)

    def has(self, path: str) -> bool:
        """Whether a document at this path belongs to the collection, even if its ids can't be split; else it is a stray."""
        return self.template_of(path.split("/")) is not None


def _is_of_fields(column: Column) -> bool:
    """Whether a column's value comes from the document's fields, converted or not."""
    return isinstance(column.source, Field | FirstOf | Computed) and not any(entry_parts(column.origin))
