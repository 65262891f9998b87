"""`make catalog`: drafts a catalog.py from a sample of a live Firestore and the schema of a live Postgres.

    make catalog PROJECT=my-project TARGET=postgresql://reader@db.example.org/postgres SCHEMA=public > draft.py

SCHEMA names one schema, or several joined by commas.

Of each path it reads up to 50 documents, as many names, and which collections lie below these: at most 200 billed reads, and at most
200 paths. The draft holds names, kinds and counts, never a value; of ids, those that are the same below each parent and so belong to a
path. It also writes the role files for the draft into own/roles, unless a catalog is named already (`make roles` writes that one's).
Credentials are Google's own (GOOGLE_APPLICATION_CREDENTIALS, or an emulator's host) and libpq's (PGPASSWORD, a passfile). A person
finishes the draft: docs/catalog.md.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import firestore
from google.cloud.firestore_v1.vector import Vector

from dev import roles
from dev.airflow_home import ROOT
from dev.draft_match import match
from dev.draft_shapes import (
    NUMBERS,
    TEXTS,
    ForeignKey,
    LiveColumn,
    LiveTable,
    Names,
    Seen,
    Shape,
    Told,
    Within,
    is_other_style,
    kind_of_number,
    kind_of_text,
    variable_of,
)
from dev.draft_text import comment, load, render, with_faults
from dev.processes import Missing
from dualwrite import postgres, settings
from dualwrite.engine.preflight import target_faults, unknown_constraints
from dualwrite.model.live import LiveType
from dualwrite.postgres import live_types

SAMPLE = 50
DEPTH = 8
"""Collections below collections: deeper ones are not looked for."""
MOST_PATHS = 200
"""There are more only if collections are named by ids, and then each is like the others."""


# --- Firestore ----------------------------------------------------------------------------------------------------------


@dataclass
class Sample:
    """`reads`: how many were billed. `left`: how many collections were not looked at, because MOST_PATHS had been."""

    shapes: list[Shape]
    reads: int = 0
    left: int = 0


def sample(client: firestore.Client, size: int = SAMPLE) -> Sample:
    """The shapes of all collections that can be reached from a sample of each one's documents, also of those that don't exist
    and only have collections below. Of each path at most `size` documents, as many names, and the collections below these are
    read, and MOST_PATHS paths."""
    made = Sample([], reads=1)
    shapes: dict[str, Shape] = {}
    ids: set[str] = set()
    maps: dict[tuple[str, Names], _Maps] = {}
    todo: dict[str, list[firestore.CollectionReference]] = {}
    for reference in itertools.islice(client.collections(), MOST_PATHS + 1):
        todo[f"{reference.id}/{{{variable_of(reference.id, reference.id)}}}"] = [reference]
    paths = 0
    for _ in range(DEPTH):
        below: dict[str, list[firestore.CollectionReference]] = {}
        for path, references in todo.items():
            if paths == MOST_PATHS:
                made.left += len(references)
                continue
            paths += 1
            documents, names = _read(references, size, made)
            fixed = _fixed_ids([(d.id, set(d.to_dict() or {})) for d in documents]) if path.count("/") > 1 else set()
            if not documents:
                shapes[path] = Shape(path)
            for document in documents:
                at = _at(path, document.id, fixed)
                ids.add(document.id)
                way = tuple(document.reference.path.split("/")[1::2])
                add(shapes.setdefault(at, Shape(at)), way, document.to_dict() or {}, maps)
            for name in names:
                made.reads += 1
                for inner in itertools.islice(name.collections(), MOST_PATHS + 1):
                    head = f"{_at(path, name.id, fixed)}/{inner.id}"
                    below.setdefault(f"{head}/{{{variable_of(inner.id, head)}}}", []).append(inner)
        todo = below
    made.left += sum(map(len, todo.values()))
    fixed_ids = {path: shape for path, shape in shapes.items() if shape.fixed}
    for path, shape in shapes.items():
        above = ["/".join(path.split("/")[:n]) for n in range(2, path.count("/") + 2, 2)]
        shape.fixed_ids = {head.rsplit("/", 1)[1]: fixed_ids[head].sampled for head in above if head in fixed_ids}
    for (path, field_), seen in maps.items():
        _open_map(shapes[path], field_, seen, ids)
    made.shapes = list(shapes.values())
    return made


def _read(
    references: Sequence[firestore.CollectionReference], size: int, made: Sample
) -> tuple[list[firestore.DocumentSnapshot], list[firestore.DocumentReference]]:
    """Documents of one path, below several parents: enough of each to show all its ids if these are fixed. And names, which also
    documents that don't exist have."""
    documents: list[firestore.DocumentSnapshot] = []
    names: list[firestore.DocumentReference] = []
    left, share = size, max(_FIXED + 1, -(-size // len(references)))
    for reference in references:
        take = min(left, share)
        if take <= 0:
            break
        read = list(reference.limit(take).stream())
        named = list(itertools.islice(reference.list_documents(page_size=take), take))
        known = {each.id: each for each in [*(document.reference for document in read), *named]}
        made.reads += max(1, len(read)) + max(1, len(named))
        left -= max(1, len(known))
        documents += read
        names += known.values()
    return documents, names


_FIXED = 5
"""The most ids of one collection that may stand below each parent."""


def _fixed_ids(documents: Sequence[tuple[str, set[str]]]) -> set[str]:
    """The ids of a subcollection's documents, with the names of their fields, if they seem to be fixed: one below each parent, or a
    few that hold other fields each."""
    by_id: dict[str, list[set[str]]] = {}
    for document_id, names in documents:
        by_id.setdefault(document_id, []).append(names)
    if len(by_id) > _FIXED or any(len(each) < (3 if len(by_id) == 1 else 2) for each in by_id.values()):
        return set()
    fields = [set.union(*each) for each in by_id.values()]
    alike = any(2 * len(a & b) >= len(a | b) for a, b in itertools.combinations(fields, 2))
    if alike or any(not re.fullmatch(r"[A-Za-z][\w-]*", document_id) for document_id in by_id):
        return set()
    return set(by_id)


def _at(path: str, document_id: str, fixed: set[str]) -> str:
    """The path of a document's shape."""
    return f"{path.rsplit('/', 1)[0]}/{document_id}" if document_id in fixed else path


@dataclass
class _Maps:
    """The content of one map field of a collection's documents: the keys in each document, the kinds of all values, and those that
    are maps."""

    keys: list[set[str]] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    within: Within = field(default_factory=Within)


def _kind(value: Any) -> str:
    """The kind of a value; of a container, without its content."""
    kinds = {
        datetime: "timestamp", bool: "boolean", firestore.DocumentReference: "reference", firestore.GeoPoint: "geopoint",
        Vector: "vector", bytes: "bytes", list: "array",
    }  # fmt: skip
    if value is None:
        return "null"
    for type_, kind in kinds.items():
        if isinstance(value, type_):
            return kind
    if isinstance(value, str):
        return kind_of_text(value)
    if isinstance(value, int | float):
        return kind_of_number(value)
    names = {name.removeprefix("_") for name in value}
    return "timestamp map" if names == {"seconds", "nanoseconds"} else "map"


_UNPLAIN = {"timestamp", "reference", "geopoint", "vector", "bytes"}


def _is_unplain(value: Any) -> bool:
    """Whether a map or array holds a value that JSON can't represent."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_kind(v) in _UNPLAIN or _is_unplain(v) for v in inner)


def add(shape: Shape, ids: tuple[str, ...], fields: dict[str, Any], maps: dict[tuple[str, Names], _Maps]) -> None:
    """Adds the kinds of one document's fields to a shape. `ids`: those of its path."""
    for names, value in _add_fields(shape.fields, fields):
        if isinstance(value, list) and any(_kind(inner) == "map" for inner in value):
            _add_within(shape.within.setdefault(names, Within()), value)
        if isinstance(value, dict):
            entries = maps.setdefault((shape.path, names), _Maps())
            entries.keys.append(set(value))
            entries.kinds.update(map(_kind, value.values()))
            _add_within(entries.within, list(value.values()))
    values = list(_flat(fields))
    named = {names: id_ for names, value in values if (id_ := _as_id(value)) is not None}
    shape.documents.append(Told(ids, named, frozenset(names for names, value in values if value is not None)))


def _as_id(value: Any) -> str | None:
    """A value as an id that it could be; None if it can be none."""
    if isinstance(value, firestore.DocumentReference):
        return str(value.id)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _add_fields(into: dict[Names, Seen], fields: dict[str, Any]) -> list[tuple[Names, Any]]:
    """Adds the kinds of a map's fields to those of earlier maps. Returns the fields, those in maps too, with their values."""
    values = list(_flat(fields))
    for names, value in values:
        seen, kind = into.setdefault(names, Seen()), _kind(value)
        seen.kinds.add(kind)
        seen.documents += kind != "null"
        seen.unplain |= _is_unplain(value)
        seen.other_style |= is_other_style(kind, value)
        if isinstance(value, str):
            seen.texts.add(value)
        held = value if isinstance(value, list) else [value]
        seen.refers.update(v.path.split("/")[-2] for v in held if isinstance(v, firestore.DocumentReference))
        if isinstance(value, list):
            seen.elements.update(map(_kind, value))
    return values


def _add_within(within: Within, entries: list[Any]) -> None:
    """Adds the maps that one document's array or map holds."""
    held = [entry for entry in entries if _kind(entry) == "map"]
    within.others |= len(held) < len(entries)
    texts: list[Mapping[Names, str]] = [
        {n: str(v) for n, v in _add_fields(within.fields, entry) if isinstance(v, str | int | float)} for entry in held
    ]
    within.entries += [texts] if texts else []


def _flat(fields: dict[str, Any], above: Names = ()) -> Iterator[tuple[Names, Any]]:
    for name, value in fields.items():
        yield (*above, name), value
        if isinstance(value, dict) and len(above) < 2:
            yield from _flat(value, (*above, name))


_SCALARS = {"boolean", "timestamp", "reference", *NUMBERS, *TEXTS}


def _open_map(shape: Shape, names: Names, seen: _Maps, ids: set[str]) -> None:
    """A map holds entries, one a key, if its keys are ids of documents or differ from document to document; they leave the
    shape."""
    filled = [keys for keys in seen.keys if keys]
    keyed_by_ids = bool(filled) and set.union(*filled) <= ids
    differing = len(filled) > 1 and not set.intersection(*filled)
    kind = Seen(seen.kinds).kind
    if (
        not (keyed_by_ids or differing)
        or kind not in _SCALARS | {"map"}
        or any(names[:n] in shape.open_maps for n in (1, 2))
    ):
        return
    shape.open_maps[names] = kind
    for known in (shape.fields, shape.within, shape.open_maps):
        for key in [key for key in known if key[: len(names)] == names and key != names]:
            del known[key]
    if kind == "map":
        shape.within[names] = seen.within


# --- Postgres -----------------------------------------------------------------------------------------------------------

_TABLES = """
SELECT c.oid, c.relname::text FROM pg_catalog.pg_class c
WHERE c.relnamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(%s)) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY 2
"""
_COLUMNS = """
SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull OR t.typnotnull,
       coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), pg_catalog.pg_get_expr(t.typdefaultbin, 0)), a.attidentity <> ''
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEYS = """
SELECT i.indisprimary, ARRAY(
         SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k (n, place)
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
         WHERE k.place <= i.indnkeyatts ORDER BY k.place
       ), pg_catalog.pg_get_expr(i.indpred, i.indrelid)
FROM pg_catalog.pg_index i
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indexprs IS NULL ORDER BY i.indexrelid
"""
_FOREIGN = """
SELECT ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c (n, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.n ORDER BY c.place),
       n.nspname::text, r.relname::text,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS c (n, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.n ORDER BY c.place),
       CASE k.confdeltype WHEN 'c' THEN 'cascade' WHEN 'n' THEN 'set null' WHEN 'd' THEN 'set default' WHEN 'r' THEN 'restrict'
                          ELSE 'no action' END
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class r ON r.oid = k.confrelid JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
WHERE k.conrelid = %s AND k.contype = 'f' AND k.conparentid = 0 ORDER BY k.oid
"""
_TRIGGERS = """
SELECT t.tgname::text, p.proname::text, p.prosrc, pg_catalog.encode(t.tgargs, 'escape')
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
WHERE t.tgrelid = %s AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0
ORDER BY 1
"""
"""The triggers that run before each row is inserted or updated."""

_SETS = re.compile(
    r"""(?:^|;|\b(?:begin|then|else|loop|into)\b)\s*new\s*\.\s*(?:"((?:[^"]|"")+)"|([a-z_][a-z0-9_$]*))\s*(?::?=|\bfrom\b|;|,)""",
    re.IGNORECASE,
)


def set_by(proname: str, source: str, arguments: str) -> list[str]:
    """The columns that a trigger's function sets, judging by its text."""
    if proname == "moddatetime":
        return [arguments.split("\\000", maxsplit=1)[0]]
    text = re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", " ", source, flags=re.DOTALL)
    return [quoted.replace('""', '"') if quoted else plain.lower() for quoted, plain in _SETS.findall(text)]


def tables(connection: psycopg.Connection[Any], schema: str) -> list[LiveTable]:
    """The tables of a schema, from the catalog alone; those without a unique key too."""
    prefix = "" if schema == "public" else f"{schema}."
    there = connection.execute(_TABLES, (schema,)).fetchall()
    types = live_types.read(connection.execute, [prefix + name for _, name in there])
    live = {(table, column): type_ for table, column, type_ in types}
    described_tables = []
    for oid, name in there:
        columns = [
            LiveColumn(column, live.get((prefix + name, column), LiveType(shown, shown, shown)), *described)
            for column, shown, *described in connection.execute(_COLUMNS, (oid,)).fetchall()
        ]
        keys = [(primary, tuple(key), pred) for primary, key, pred in connection.execute(_KEYS, (oid,)).fetchall()]
        foreign = [
            ForeignKey(tuple(own), r if s == "public" else f"{s}.{r}", tuple(to), on_delete)
            for own, s, r, to, on_delete in connection.execute(_FOREIGN, (oid,)).fetchall()
        ]
        triggers = {
            column: trigger
            for trigger, *function in connection.execute(_TRIGGERS, (oid,)).fetchall()
            for column in set_by(*function)
        }
        not_null = {c.name for c in columns if c.not_null}
        described_tables.append(
            LiveTable(
                prefix + name,
                tuple(columns),
                next((key for primary, key, _ in keys if primary), ()),
                tuple(key for primary, key, pred in keys if not primary and pred is None and set(key) <= not_null),
                tuple(foreign),
                tuple(key for primary, key, pred in keys if not primary and _may_be_null(pred, key)),
                triggers,
                "." in name or "." in schema,
            )
        )
    return described_tables


def _may_be_null(predicate: str | None, key: tuple[str, ...]) -> bool:
    """Whether a unique index is whole, or leaves out only rows with a null in a column of its own."""
    tests = {f"{name} IS NOT NULL" for column in key for name in (column, f'"{column}"')}
    return predicate is None or all(part.strip("() ") in tests for part in predicate.split(" AND "))


_SCHEMAS = """
SELECT n.nspname::text FROM pg_catalog.pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'dualwrite')
  AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')) ORDER BY 1
"""


def schemas_of(connection: psycopg.Connection[Any], given: str) -> list[str]:
    """The schemas that are named: `shop,billing`. Raises Missing if one has no table."""
    named = list(dict.fromkeys(filter(None, (name.strip() for name in given.split(",")))))
    there = [name for (name,) in connection.execute(_SCHEMAS).fetchall()]
    without = [name for name in named if name not in there]
    if without or not named:
        listed = ", ".join(map(repr, without)) or "none"
        raise Missing(
            f"a draft needs schemas that have tables: SCHEMA names {listed}. Those with tables are {', '.join(there) or 'none'}; "
            "several are joined by a comma."
        )
    return named


def draft(client: firestore.Client, connection: postgres.Connection, schema: str) -> str:
    """The text of a catalog.py. `schema`: one, or several joined by commas. Raises Missing if one has no table."""
    there = [table for name in schemas_of(connection, schema) for table in tables(connection, name)]
    sampled = sample(client)
    matches, left = match(sampled.shapes, there)
    text = render(matches, left, datetime.now(UTC).isoformat(timespec="seconds")) + _extent(sampled)
    catalog = load(text)
    unknown = unknown_constraints(connection, catalog, list(catalog))
    text += "".join(
        comment(f"TODO nothing here declares what may refuse rows of {table}: {', '.join(names)}.") + "\n"
        for table, names in unknown.items()
    )
    return with_faults(text, target_faults(connection, catalog, list(catalog), writes=False))


def _extent(sampled: Sample) -> str:
    """How much was read and how much left out, as comments."""
    lines = [
        comment(f"Read: {sampled.reads} documents, names and lists of collections; a path takes {4 * SAMPLE} at most.")
    ]
    if sampled.left:
        lines.append(
            comment(
                f"TODO {sampled.left} collections or more were not looked at: more than {MOST_PATHS} paths, or more than {DEPTH} collections "
                "below each other."
            )
        )
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schema", default="public")
    parser.add_argument("--project", required=True, help="the Firestore project; credentials are the environment's own")
    parser.add_argument("--database", default="(default)")
    parser.add_argument("--target", required=True, help="a libpq URI; PGPASSWORD or a passfile holds the password")
    given = parser.parse_args()
    if not given.project or not given.target:
        raise Missing("a project and a target are needed: make catalog PROJECT=my-project TARGET=postgresql://...")
    try:
        client = firestore.Client(project=given.project, database=given.database)
    except DefaultCredentialsError:
        raise Missing(
            "there are no Google credentials here. Run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key's file."
        ) from None
    try:
        connection = postgres.connect(given.target)
    except postgres.ConnectError as error:
        raise Missing(f"can't connect to the target: {error}. Check TARGET.") from None
    with connection:
        text = draft(client, connection, given.schema)
    sys.stdout.write(text)
    if settings.named_catalog() is None:
        written = roles.write(load(text), ROOT / "own/roles", roles.own_promises())
        print(
            f"roles: wrote {', '.join(map(str, written))}. Once the draft is finished: `make roles`.", file=sys.stderr
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
