"""Checks of a column against its collection's paths, entries and check fields. Faults are raised at import."""

from __future__ import annotations

import json
import math
from typing import NoReturn, get_args

from dualwrite import settings
from dualwrite.model import entries
from dualwrite.model.columns import ROLES, WHEN_GONE, Column
from dualwrite.model.documents import is_valid_id
from dualwrite.model.entries import Itself, MapEntries
from dualwrite.model.errors import CatalogError
from dualwrite.model.live import TYPES
from dualwrite.model.origins import (
    ALL_FIELDS,
    Computed,
    Constant,
    Converted,
    DocumentId,
    DocumentPath,
    EntryField,
    EntryOrigin,
    EntryValue,
    Field,
    FieldPath,
    FirstOf,
    Origin,
    ParentId,
    Segment,
    WholeDocument,
    entry_parts,
    fields_of,
    is_field_path,
    within,
)
from dualwrite.model.references import Parent
from dualwrite.model.unchecked import UncheckedCollection


def refuse(declared: UncheckedCollection, code: str, rule: str, place: str, remedy: str) -> NoReturn:
    """Raises CatalogError with these, the collection and the file."""
    raise CatalogError(
        f"{rule}: {place} of collection {declared.name!r} in {settings.catalog_file()}. {remedy}", code=code
    )


def check_field_path(declared: UncheckedCollection, path: FieldPath, place: str) -> None:
    if not is_field_path(path):
        refuse(
            declared,
            "field-path-malformed",
            "A field path is names joined by dots, or a tuple of names, which may hold dots and backticks",
            f"{place} names {path!r}",
            "Correct the path.",
        )


def _absent_fits(column: Column) -> bool:
    """Whether `absent` is a value that a field of this column's type could have."""
    value: object = column.absent
    if isinstance(value, bool) != (column.type == "boolean") or not isinstance(value, TYPES[column.type].absent):
        return False
    if isinstance(value, dict | list):
        return "\\u0000" not in json.dumps(value, default=str)
    if isinstance(value, str):
        return "\x00" not in value and (column.references is None or is_valid_id(value))
    if column.type == "integer":
        return isinstance(value, int) and -(2**63) <= value < 2**63
    return not isinstance(value, float) or math.isfinite(value)


def check_column(declared: UncheckedCollection, column: Column) -> None:
    place = f"column {column.name!r}"
    if column.role not in ROLES:
        refuse(
            declared,
            "role-unknown",
            "A role is one of " + ", ".join(ROLES),
            f"{place} has {column.role!r}",
            "Choose one.",
        )
    if column.type not in TYPES:
        refuse(
            declared,
            "type-unknown",
            "A type is one of " + ", ".join(TYPES),
            f"{place} has {column.type!r}",
            "Choose one.",
        )
    if not isinstance(column.origin, Origin):
        refuse(
            declared,
            "origin-missing",
            "A column needs an origin",
            f"{place} has {column.origin!r}",
            "Say where its value comes from: " + ", ".join(kind.__name__ for kind in get_args(Origin)) + ".",
        )
    _check_origin(declared, column)
    _check_parts(declared, column, place)
    _check_time(declared, column, place)
    _check_absent(declared, column, place)
    _check_reference(declared, column, place)
    _check_key(declared, column, place)


def _check_parts(declared: UncheckedCollection, column: Column, place: str) -> None:
    """Checks the origin, and those within it, against the collection's paths and entries."""
    for part in within(column.origin):
        _check_part(declared, part, place)
    parts = list(entry_parts(column.origin))
    if parts and declared.has_one_row:
        refuse(
            declared,
            "entry-origin-without-entries",
            "Only a collection with entries has entry origins",
            place,
            "Declare entries=.",
        )
    if any(isinstance(part, EntryValue) for part in parts) and not isinstance(
        declared.entries, MapEntries | Itself | None
    ):
        refuse(
            declared,
            "array-element-without-value",
            "Only a map's entries have EntryValue",
            place,
            "Use EntryKey.",
        )
    for part in parts:
        if isinstance(part, EntryField):
            check_field_path(declared, part.path, place)
    for path in fields_of(column.origin):
        if path != ALL_FIELDS:
            check_field_path(declared, path, place)


def _check_time(declared: UncheckedCollection, column: Column, place: str) -> None:
    """Checks that a column reads a check field with the type and format that the check field has."""
    origin: Origin | None = column.origin
    while isinstance(origin, Field):
        check = next((c for c in declared.checks if c.field == origin.path), None)
        if check is not None and check.format is None and column.type != "timestamp":
            rule = "A check field holds timestamps, unless its format is declared"
            where = f"{place} takes {origin.path!r}, a check field, as {column.type}"
            remedy = (
                "Declare the column as timestamp, or the field as Check(field, format), or choose another check field."
            )
            refuse(declared, "check-field-without-format", rule, where, remedy)
        if check is not None and check.format is not None and column.type == "timestamp":
            rule = "A check field with a format holds no timestamps"
            where = f"{place} takes {origin.path!r} as timestamp, and check_fields reads it as {check.format.name}"
            refuse(
                declared,
                "check-field-no-timestamp",
                rule,
                where,
                f"Write Field({origin.path!r}) >> {check.format.name}, or remove the format.",
            )
        origin = origin.otherwise


def _check_absent(declared: UncheckedCollection, column: Column, place: str) -> None:
    if column.absent is not None and not _absent_fits(column):
        rule, remedy = "absent is a value that a field of this column could have", "Correct it."
        if column.type == "json":
            remedy = "Write a Python dict or list: absent={} is an empty object, absent='{}' would be a string."
        elif column.type == "timestamp":
            rule = "A timestamp column has no absent: it would be the same moment for all documents"
            remedy = "Remove it. An absent field stays null, or its document is rejected if the column is required."
        refuse(declared, "absent-does-not-fit", rule, f"{place} has absent={column.absent!r}", remedy)


def _check_reference(declared: UncheckedCollection, column: Column, place: str) -> None:
    if column.references is not None:
        if not isinstance(column.references, str | Parent) or not column.parent.collection:
            rule, remedy = (
                "A reference names a collection",
                'Write references="profiles", or references=Parent("profiles").',
            )
            refuse(declared, "reference-malformed", rule, f"{place} has references={column.references!r}", remedy)
        if column.parent.holds == "":
            refuse(
                declared,
                "holds-empty",
                "A column holds a column",
                f"{place} has holds=''",
                "Name it, or remove holds=.",
            )
    if column.when_gone not in (None, *WHEN_GONE):
        refuse(
            declared,
            "when-gone-unknown",
            "when_gone is one of " + ", ".join(WHEN_GONE),
            f"{place} has {column.when_gone!r}",
            "Choose one, or leave it to the live foreign key.",
        )
    if column.when_gone is not None and column.references is None:
        refuse(
            declared,
            "when-gone-without-reference",
            "Only a reference has when_gone",
            f"{place} has when_gone=",
            "Remove it.",
        )
    if column.when_gone == "null" and (column.required or column.role == "key"):
        refuse(
            declared,
            "when-gone-null-not-nullable",
            "Only a nullable column that is no key becomes null",
            f"{place} has when_gone='null'",
            "Remove required=, or when_gone=.",
        )


def _check_key(declared: UncheckedCollection, column: Column, place: str) -> None:
    if column.role == "key" and column.type != "text" and not _is_time_beside_id(declared, column):
        refuse(
            declared,
            "key-not-text",
            "A key comes from an id or a text of the document; beside the document's id, also from a timestamp",
            f"{place} is {column.type}",
            "Leave out type=, the type of the document's value; the table's column may have another. If the document holds "
            "no text, convert it, Field(...) >> text, in a key that has the document's id as well.",
        )
    if column.role == "key" and isinstance(column.origin, Field) and column.origin.otherwise is not None:
        refuse(declared, "key-is-stand-in", "A key can't be a stand-in", f"{place} has otherwise=", "Remove it.")


def _is_time_beside_id(declared: UncheckedCollection, column: Column) -> bool:
    return column.type == "timestamp" and isinstance(declared.entries, Itself) and column in declared.entry_columns


def _check_part(declared: UncheckedCollection, part: Origin, place: str) -> None:
    """Checks an origin, wherever it stands."""
    if isinstance(part, Segment):
        for template in declared.templates:
            if part.variable not in template.variables:
                refuse(
                    declared,
                    "segment-unknown",
                    "A segment is a variable of every path",
                    f"{place} names {part.variable!r}",
                    f"Choose from {', '.join(template.variables)}."
                    if template.variables
                    else "There is none: write a Constant.",
                )
    fixed = {t.segments[-1] if t.ids[-1].is_literal else None for t in declared.templates}
    if isinstance(part, DocumentId) and len(fixed) == 1 and None not in fixed:
        remedy = f"Write Constant({fixed.pop()!r}), or the Segment of a variable, which identifies the document."
        refuse(
            declared,
            "document-id-constant",
            "All documents of a path that ends in a text have one document id",
            place,
            remedy,
        )
    if isinstance(part, ParentId):
        above = {t.parent_collection_id for t in declared.templates}
        if part.collection_id not in above:
            refuse(
                declared,
                "parent-id-unknown",
                "A parent id names the collection above one of the paths",
                f"{place} names {part.collection_id!r}",
                "Correct the name.",
            )
    if isinstance(part, Computed) and (fault := entries.fault_of_call(part.function, len(part.paths))) is not None:
        rule = "A value is computed by a function that takes as many values as are named and returns one"
        refuse(
            declared,
            "computed-not-callable",
            rule,
            f"{place}: {fault}",
            "Correct the function, or the values that Computed names.",
        )


def _check_origin(declared: UncheckedCollection, column: Column) -> None:
    """Checks a column's origin against its role and other settings."""
    place, origin = f"column {column.name!r}", column.origin
    # Converted entries are searched for among all entries of their document, converted ids among all names.
    is_told = isinstance(column.source, EntryOrigin | DocumentId | DocumentPath | Segment) or (
        isinstance(declared.entries, Itself) and column in declared.entry_columns
    )
    if isinstance(origin, Converted | FirstOf | Computed | WholeDocument) and column.role == "key" and not is_told:
        refuse(
            declared,
            "key-not-traceable",
            "A key comes from the path or an entry, converted or not, or is an unconverted field or a constant: for any other key "
            "without the document's id, only a read of all documents' fields, for each row, would show which document owns it",
            f"{place} has {type(origin).__name__}",
            "Choose another key.",
        )
    if isinstance(origin, FirstOf) and (
        len(origin.origins) < 2 or not all(isinstance(o, Field | EntryField | Converted) for o in origin.origins)
    ):
        refuse(
            declared,
            "first-of-too-few",
            "FirstOf takes two or more fields",
            place,
            "Name each as Field(...) or EntryField(...), converted or not.",
        )
    for inner in within(origin):
        if isinstance(inner, Field) and inner is not origin and inner.otherwise is not None:
            refuse(
                declared,
                "stand-in-inside",
                "A stand-in is never compared, so it can't be converted or be one of several",
                f"{place} has otherwise=",
                "Use FirstOf(Field(...), Field(...)).",
            )
    if isinstance(origin, Constant) and column.absent is not None:
        refuse(
            declared, "constant-with-absent", "A constant is never absent", f"{place} has absent=", "Remove absent=."
        )
