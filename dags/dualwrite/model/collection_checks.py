"""Checks of one collection: paths, keys, check fields, entries, condition and share. Faults are raised at import.

Checks against other collections are in catalog_checks.py.
"""

from __future__ import annotations

from itertools import chain, combinations

from dualwrite.model import conditions, entries, share, templates
from dualwrite.model.column_checks import check_column, check_field_path, refuse
from dualwrite.model.columns import Column
from dualwrite.model.conditions import Condition
from dualwrite.model.entries import ComputedEntries, Entries, Itself, MapEntries
from dualwrite.model.id_patterns import are_disjoint
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
from dualwrite.model.templates import Template
from dualwrite.model.unchecked import UncheckedCollection


def check_share(declared: UncheckedCollection) -> None:
    """Raises CatalogError if `rows` is malformed; called before anything else uses it."""
    if (fault := share.fault(declared.rows)) is not None:
        refuse(
            declared,
            "share-malformed",
            "rows= gives columns of the table their values",
            fault,
            'Write it as rows={"channel": "web"}.',
        )


def check(declared: UncheckedCollection) -> None:
    """Raises CatalogError for the first rule that a collection breaks."""
    _check_paths(declared)
    _check_key(declared)
    for column in declared.columns:
        check_column(declared, column)
    _check_named_columns(declared)
    _check_check_fields(declared)
    if not isinstance(declared.entries, Itself | None):
        _check_entries(declared, declared.entries)
    if declared.where is not None:
        _check_where(declared, declared.where)
    _check_rows(declared)
    _check_told_apart(declared)


def _check_paths(declared: UncheckedCollection) -> None:
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


def _check_key(declared: UncheckedCollection) -> None:
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


def _check_told_apart(declared: UncheckedCollection) -> None:
    """Whether the key can tell each document's rows from another's."""
    named = ", ".join(repr(c.name) for c in declared.key)
    if not declared.keyed_by_path:
        if len(declared.templates) > 1:
            rule = "The documents that may have a natural key are searched in one collection"
            remedy = "Declare each path as a collection of its own, with its share of the table (rows=)"
            remedy += (
                ", or, if no two documents have one id, key it by DocumentId() alone." if declared.has_one_row else "."
            )
            code = "natural-key-of-several-paths"
            refuse(
                declared, code, rule, f"key {named} holds a field, and there are {len(declared.paths)} paths", remedy
            )
        above = [v for p in declared.templates[0].ids[:-1] for v in p.variables]
        if lacking := [v for v in above if v not in declared.key_variables]:
            rule = "The documents that may have a natural key are searched in one collection, which its key tells"
            place = f"key {named} lacks {' and '.join(f'{{{v}}}' for v in lacking)} of {declared.paths[0]!r}"
            columns = " and ".join(f'Column(..., "key", Segment({v!r}))' for v in lacking)
            remedy = f"Declare {columns}"
            if declared.has_one_row:
                remedy += (
                    "; or, if no two documents have one id, key it by DocumentId() alone and name this key in unique="
                )
            remedy += "."
            refuse(declared, "natural-key-without-parent", rule, place, remedy)
    elif declared.has_one_row and not any(isinstance(c.source, DocumentPath) for c in declared.key):
        for template in declared.templates:
            _check_path_told_apart(declared, template, named)
        for one, other in combinations(declared.templates, 2):
            if _have_one_key(declared, one, other):
                rule, place = "Two documents can't be one row", f"one at {one.text!r} and one at {other.text!r}"
                refuse(
                    declared, "key-of-several-paths", rule, f"key {named} is the same for {place}", _remedy(declared)
                )


def _check_path_told_apart(declared: UncheckedCollection, template: Template, named: str) -> None:
    """Checks that the key tells documents of one path apart, if these have different ids."""
    last = template.last_variables
    has_id = any(isinstance(c.source, DocumentId) for c in declared.key)
    if has_id and not (last and template.ids[-1].is_literal):
        return
    held = {c.source.variable for c in declared.key if isinstance(c.source, Segment)}
    if not held >= set(last):
        segments = " and ".join(f"Segment({v!r})" for v in last)
        remedy = f"DocumentId(), or of {segments}" if not template.ids[-1].is_literal else segments
        refuse(
            declared,
            "key-of-several-documents",
            "Two documents can't be one row",
            f"key {named} is the same for several at {template.text!r}",
            f"Give the role key to a column of {remedy}{' too' if has_id else ''}.",
        )


def _have_one_key(declared: UncheckedCollection, one: Template, other: Template) -> bool:
    """Whether documents of two paths have one key without having one id. (Documents of one id below several parents are told by
    the run that meets them: mostly there are none.)"""
    ids = one.ids[-1], other.ids[-1]
    if any(isinstance(c.source, DocumentId) for c in declared.key) and (
        are_disjoint(*ids) or not all(p.is_literal for p in ids)
    ):
        return False
    return one.ending != other.ending


def _remedy(declared: UncheckedCollection) -> str:
    """The remedy if the key doesn't tell documents of two paths apart."""
    separate = "eclare each path as a collection of its own, with a table or a share of it (rows=)."
    by_id = all(are_disjoint(a.ids[-1], b.ids[-1]) for a, b in combinations(declared.templates, 2))
    return f"Give the role key to a column of DocumentId() too, or d{separate}" if by_id else f"D{separate}"


def _check_named_columns(declared: UncheckedCollection) -> None:
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


def _check_check_fields(declared: UncheckedCollection) -> None:
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


def _check_where(declared: UncheckedCollection, where: Condition) -> None:
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


def _check_rows(declared: UncheckedCollection) -> None:
    for name, value in declared.rows.items():
        column = declared.column(name)
        is_same = isinstance(column.origin, Constant) and share.text_of(column.origin.value) == share.text_of(value)
        if not is_same or column.role not in ("insert_only", "key"):
            rule = "A column of rows= is declared by it; or as a key, of the same value"
            remedy = f'Remove it from columns=, or from rows=; if the table\'s key has it, Column({name!r}, "key", Constant({value!r})).'
            refuse(declared, "share-column-redeclared", rule, f"column {name!r} is declared as something else", remedy)


def _check_entries(declared: UncheckedCollection, listed: Entries) -> None:
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
            _remedy_of_entries(declared),
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


def _remedy_of_entries(declared: UncheckedCollection) -> str:
    """The remedy if no column shows which document an entry's row belongs to."""
    found = []
    if not any(t.ids[-1].is_literal for t in declared.templates):
        found.append("DocumentId()")
    if len({t.ending for t in declared.templates}) == 1:
        found.append(" and ".join(f"Segment({v!r})" for v in declared.templates[0].last_variables))
    if not found:
        return "Declare each path as a collection of its own, with a table or a share of it (rows=)."
    return f"Declare the column of {' or '.join(found)}."
