"""Checks of one collection: paths, keys, check fields, entries, condition and share. Faults are raised at import.

Checks against other collections are in catalog_checks.py.
"""

from __future__ import annotations

from itertools import chain

from dualwrite.model import conditions, entries, share, templates
from dualwrite.model.collection import Declaration
from dualwrite.model.column_checks import check_column, check_field_path, refuse
from dualwrite.model.columns import Column
from dualwrite.model.conditions import Condition
from dualwrite.model.entries import ComputedEntries, Entries, MapEntries
from dualwrite.model.origins import (
    ALL_FIELDS,
    Constant,
    CreateTime,
    DocumentId,
    DocumentPath,
    EntryIndex,
    EntryKey,
    Origin,
    Segment,
    WholeDocument,
    entry_parts,
)


def check_share(declared: Declaration) -> None:
    """Raises CatalogError if `rows` is malformed; called before anything else uses it."""
    if (fault := share.fault(declared.rows)) is not None:
        refuse(
            declared,
            "share-malformed",
            "rows= gives columns of the table their values",
            fault,
            'Write it as rows={"channel": "web"}.',
        )


def check(declared: Declaration) -> None:
    """Raises CatalogError for the first rule that a collection breaks."""
    _check_paths(declared)
    _check_key(declared)
    for column in declared.columns:
        check_column(declared, column)
    _check_named_columns(declared)
    _check_check_fields(declared)
    if declared.entries is not None:
        _check_entries(declared, declared.entries)
    if declared.where is not None:
        _check_where(declared, declared.where)
    _check_rows(declared)
    _check_told_apart(declared)


def _check_paths(declared: Declaration) -> None:
    if not declared.paths:
        refuse(
            declared,
            "path-missing",
            "A collection needs a path",
            "paths is empty",
            "Give a template such as things/{id}.",
        )
    for path in declared.paths:
        if (rule := templates.fault(path)) is not None:
            refuse(declared, "path-malformed", rule, f"{path!r}", "Write it as parents/{parent}/things/{id}.")
    if len({t.collection_id for t in declared.templates}) > 1:
        rule = "All paths of a collection end in the same collection id"
        refuse(
            declared,
            "collection-ids-differ",
            rule,
            f"{declared.paths}",
            "Declare the others as collections of their own.",
        )
    if (pair := templates.overlapping(declared.templates)) is not None:
        rule, remedy = "A document matches one path", "Remove one, or let their ids begin or end with different texts."
        refuse(declared, "paths-overlap", rule, f"{pair[0].text!r} and {pair[1].text!r}", remedy)


def _check_key(declared: Declaration) -> None:
    names = [c.name for c in declared.columns]
    for name in names:
        if names.count(name) > 1:
            refuse(
                declared,
                "column-declared-twice",
                "A column is declared once",
                f"column {name!r}",
                "Remove one of them.",
            )
    if not declared.key:
        refuse(
            declared,
            "key-missing",
            "Rows need a key",
            "no column has the role key",
            "Give one or more columns that role.",
        )
    if sum(isinstance(c.origin, DocumentId) for c in declared.key) > 1:
        refuse(
            declared,
            "document-id-twice",
            "A document id is one key, not two",
            "two key columns come from the document id",
            "Keep the role key on one of them.",
        )


def _check_told_apart(declared: Declaration) -> None:
    """Whether the key can tell each document's rows from another's."""
    named = ", ".join(repr(c.name) for c in declared.key)
    if not declared.keyed_by_path:
        if len(declared.templates) > 1:
            rule = "The documents that may have a natural key are searched in one collection"
            remedy = "Declare each path as a collection of its own, with its share of the table (rows=), or key it by DocumentId()."
            code = "natural-key-of-several-paths"
            refuse(
                declared, code, rule, f"key {named} holds a field, and there are {len(declared.paths)} paths", remedy
            )
        held = {c.origin.variable for c in declared.key if isinstance(c.origin, Segment)}
        above = [v for p in declared.templates[0].ids[:-1] for v in p.variables]
        if lacking := [v for v in above if v not in held]:
            rule = "The documents that may have a natural key are searched in one collection, which its key tells"
            place = f"key {named} lacks {' and '.join(f'{{{v}}}' for v in lacking)} of {declared.paths[0]!r}"
            columns = " and ".join(f'Column(..., "key", Segment({v!r}))' for v in lacking)
            remedy = f"Declare {columns}; or key it by DocumentId(), and name this key in unique=."
            refuse(declared, "natural-key-without-parent", rule, place, remedy)
    elif declared.entries is None:
        sources = [c.source for c in declared.key]
        for template, path in zip(declared.templates, declared.paths, strict=True):
            own = next((p.variables for p in reversed(template.ids) if p.variables), ())
            by_id = any(isinstance(s, DocumentPath | DocumentId) for s in sources)
            by_parts = {s.variable for s in sources if isinstance(s, Segment)} >= set(own)
            if not by_id and not (by_parts and (own or len(declared.templates) == 1)):
                remedy = "Give the role key to a column of DocumentId()"
                remedy += f", or of {' and '.join(f'Segment({v!r})' for v in own)}." if own else "."
                refuse(
                    declared,
                    "key-of-several-documents",
                    "Two documents can't be one row",
                    f"key {named} is the same for several at {path!r}",
                    remedy,
                )


def _check_named_columns(declared: Declaration) -> None:
    names = {c.name for c in declared.columns}
    for name in chain(*declared.unique, *(o.columns for o in declared.operations), declared.written_columns):
        if name not in names:
            refuse(
                declared,
                "column-not-declared",
                "Keys name declared columns",
                f"column {name!r}",
                "Declare it or correct the name.",
            )
    for name in declared.written_columns:
        if (kind := declared.column(name).type) != "timestamp":
            rule = "A written column holds timestamps: windows compare it with instants"
            refuse(
                declared,
                "written-column-no-timestamp",
                rule,
                f"column {name!r} is {kind}",
                "Name another column, or none.",
            )


def _check_check_fields(declared: Declaration) -> None:
    read = entries.read_for(declared.entries) if declared.entries else []
    for each in [*(c.field for c in declared.checks), *(path for path in read if path != ALL_FIELDS)]:
        check_field_path(declared, each, "check_fields or entries")
    asked = [check.field for check in declared.checks]
    for field_path in asked:
        if asked.count(field_path) > 1:
            rule = "A check field is declared once, in one format"
            remedy = "Keep one of them; if documents hold both, take the field out of check_fields."
            refuse(declared, "check-field-twice", rule, f"check_fields names {field_path!r} twice", remedy)
    for check in declared.checks:
        if (fault := check.fault()) is not None:
            rule = "The format of a check field writes an instant as documents hold it, in the order of time"
            refuse(declared, "check-format-not-reversible", rule, f"Check({check.field!r}): {fault}",
                "Use iso_time, epoch_seconds, epoch_milliseconds or a Conversion with back= and ordered=True; or take the field "
                "out of check_fields: without one, the collection is read whole each time.",
            )  # fmt: skip


def _check_where(declared: Declaration, where: Condition) -> None:
    rule = "A condition is made of Absent, Is, Not, AllOf and AnyOf"
    if (fault := conditions.fault(where)) is not None:
        refuse(
            declared,
            "condition-malformed",
            rule,
            f"where=: {fault}",
            'Write it as where=Absent("deletedAt") or where=Is("status", "active").',
        )
    for what in conditions.looked_at(where):
        if isinstance(what, str | tuple):
            check_field_path(declared, what, "where=")
        elif isinstance(what, Origin) and not isinstance(what, Constant | CreateTime | WholeDocument):
            # The rules of a column's origin apply: an entry's part needs entries, a segment a variable of the paths.
            check_column(declared, Column("where=", "insert_only", what))
        else:
            remedy = "Name a field's path, or an origin such as EntryValue() or Field(...) >> lower."
            refuse(
                declared,
                "condition-looks-elsewhere",
                "A condition looks at fields, entries and ids",
                f"where= looks at {what!r}",
                remedy,
            )


def _check_rows(declared: Declaration) -> None:
    for name, value in declared.rows.items():
        column = declared.column(name)
        is_same = isinstance(column.origin, Constant) and share.text_of(column.origin.value) == share.text_of(value)
        if not is_same or column.role not in ("insert_only", "key"):
            rule = "A column of rows= is declared by it; or as a key, of the same value"
            remedy = f'Remove it from columns=, or from rows=; if the table\'s key has it, Column({name!r}, "key", Constant({value!r})).'
            refuse(declared, "share-column-redeclared", rule, f"column {name!r} is declared as something else", remedy)


def _check_entries(declared: Declaration, listed: Entries) -> None:
    """Checks that a row leads back to its document, and to its entry there."""
    if isinstance(listed, ComputedEntries):
        if (fault := entries.fault(listed)) is not None:
            refuse(declared, "entries-not-computable", *fault)
        for named in listed.paths:
            if isinstance(named, Origin):  # the rules of a column's origin apply
                check_column(declared, Column("entries=", "insert_only", named))
    key = declared.entry_columns
    if not key:
        refuse(
            declared,
            "entry-key-missing",
            "The key identifies an entry among those of its document",
            "no key column comes from the entry",
            "Give the role key to a column of EntryKey(), EntryIndex() or EntryField(...).",
        )
    if declared.document_column is None and not declared.is_one_document and not isinstance(listed, ComputedEntries):
        refuse(
            declared,
            "entry-without-document-id",
            "Rows of entries hold their document's id, or a removed entry's row can't be found",
            "no column comes from it",
            f"Declare the column of DocumentId() or {' and '.join(f'Segment({v!r})' for v in _last_id(declared))}.",
        )
    parts = {type(part) for column in declared.columns for part in entry_parts(column.origin)}
    if EntryIndex in parts and isinstance(listed, MapEntries):
        refuse(
            declared,
            "map-entries-without-order",
            "A map has no order",
            "EntryIndex()",
            "Use EntryKey(), or EntryField(...).",
        )
    itself = next((c for c in key if isinstance(c.origin, EntryKey)), None)
    if declared.entries_are_maps and not isinstance(listed, MapEntries) and itself is not None:
        rule = "An array's element is a text, which is the key, or a map, which has fields"
        refuse(
            declared,
            "entry-key-of-maps",
            rule,
            f"key {itself.name!r} is EntryKey()",
            "Key it by EntryField(...) or EntryIndex().",
        )


def _last_id(declared: Declaration) -> tuple[str, ...]:
    """The variables of the last id in its path that has any."""
    return next((p.variables for p in reversed(declared.templates[0].ids) if p.variables), ())
