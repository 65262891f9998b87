"""`make catalog`: drafts a catalog.py from a sample of a live Firestore and the schema of a live Postgres.

    make catalog PROJECT=my-project TARGET=postgresql://reader@db.example.org/postgres SCHEMA=public > draft.py

Reads up to 50 documents of each collection (billed as reads) and keeps their ids and the types of their fields, never a
value. Credentials are Google's own (GOOGLE_APPLICATION_CREDENTIALS, or an emulator's host) and libpq's (PGPASSWORD, a
passfile). A person finishes the draft: docs/catalog.md.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import firestore

from dev.draft_guess import LiveColumn, LiveTable, Shape, match, render, words
from dev.processes import Missing
from dualwrite import postgres
from dualwrite.model.declaration import is_field_path

SAMPLE = 50
DEPTH = 8
"""Collections below collections: deeper ones are not looked for."""


# --- Firestore ----------------------------------------------------------------------------------------------------------


def sample(client: firestore.Client, size: int = SAMPLE) -> list[Shape]:
    """The shapes of all collections that can be reached from a sample of each one's documents."""
    shapes: dict[str, Shape] = {}
    ids: set[str] = set()
    maps: dict[tuple[str, str], _Maps] = {}
    todo = [(reference, reference.id) for reference in client.collections()]
    for _ in range(DEPTH):
        below = []
        for reference, head in todo:
            variable = re.sub(r"\W", "_", "_".join(words(reference.id)) or "id", flags=re.ASCII)
            variable = variable if variable.isidentifier() else f"_{variable}"
            taken = [part[1:-1] for part in head.split("/")[1::2]]
            path = f"{head}/{{{variable if variable not in taken else variable + '_' + str(len(taken))}}}"
            shape = shapes.setdefault(path, Shape(path))
            for document in itertools.islice(reference.limit(size).stream(), max(0, size - shape.sampled)):
                ids.add(document.id)
                _add(shape, document.to_dict() or {}, maps)
                below += [(inner, f"{path}/{inner.id}") for inner in document.reference.collections()]
        todo = below
    for (path, name), seen in maps.items():
        _open_map(shapes[path], name, seen, ids)
    return list(shapes.values())


@dataclass
class _Maps:
    """What one map field of a collection's documents holds: the keys in each document, the types of all values."""

    keys: list[set[str]] = field(default_factory=list)
    types: set[str] = field(default_factory=set)


def _type(value: object) -> str:
    return "datetime" if isinstance(value, datetime) else type(value).__name__


def _add(shape: Shape, fields: dict[str, Any], maps: dict[tuple[str, str], _Maps]) -> None:
    """Adds the types of one document's fields. The values end here."""
    present = set()
    for names, value in _flat(fields):
        if not all(is_field_path(name) and "." not in name for name in names):
            shape.unsayable.add(names)
            continue
        name = ".".join(names)
        present.add(name)
        shape.fields.setdefault(name, set()).add(_type(value))
        if isinstance(value, dict):
            seen = maps.setdefault((shape.path, name), _Maps())
            seen.keys.append(set(value))
            seen.types.update(map(_type, value.values()))
        if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
            shape.lists.add(name)
    shape.always = present if shape.sampled == 0 else shape.always & present
    shape.sampled += 1


def _flat(fields: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in fields.items():
        yield (*above, name), value
        if isinstance(value, dict) and len(above) < 2:
            yield from _flat(value, (*above, name))


def _open_map(shape: Shape, name: str, seen: _Maps, ids: set[str]) -> None:
    """A map holds entries, one a key, where its keys are ids of documents or differ from document to document; they
    leave the shape."""
    filled = [keys for keys in seen.keys if keys]
    keyed_by_ids = bool(filled) and set.union(*filled) <= ids
    differing = len(filled) > 1 and not set.intersection(*filled)
    if (keyed_by_ids or differing) and len(seen.types) == 1 and seen.types & {"str", "bool", "int"}:
        shape.open_maps[name] = next(iter(seen.types))
        for key in [key for key in shape.fields if key.startswith(f"{name}.")]:
            del shape.fields[key]
        above = tuple(name.split("."))
        shape.unsayable = {names for names in shape.unsayable if names[: len(above)] != above}


# --- Postgres -----------------------------------------------------------------------------------------------------------


def tables(connection: psycopg.Connection[Any], schema: str) -> list[LiveTable]:
    """The tables of a schema with their keys, from the catalog alone."""
    prefix = "" if schema == "public" else f"{schema}."
    found = []
    for oid, name in connection.execute(
        "SELECT c.oid, c.relname::text FROM pg_class c WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p') "
        "ORDER BY 2",
        (schema,),
    ).fetchall():
        columns = connection.execute(
            "SELECT a.attname::text, format_type(a.atttypid, NULL), a.attnotnull, pg_get_expr(d.adbin, d.adrelid) "
            "FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
            "WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum",
            (oid,),
        ).fetchall()
        keys = connection.execute(
            "SELECT i.indisprimary, ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k (n, place) "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n ORDER BY k.place) FROM pg_index i "
            "WHERE i.indrelid = %s AND i.indisunique AND i.indexprs IS NULL ORDER BY i.indexrelid",
            (oid,),
        ).fetchall()
        foreign = connection.execute(
            "SELECT a.attname::text, n.nspname::text, r.relname::text FROM pg_constraint k "
            "JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace n ON n.oid = r.relnamespace "
            "JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1] "
            "WHERE k.conrelid = %s AND k.contype = 'f' AND cardinality(k.conkey) = 1",
            (oid,),
        ).fetchall()
        found.append(
            LiveTable(
                prefix + name,
                tuple(LiveColumn(*column) for column in columns),
                next((tuple(key) for primary, key in keys if primary), ()),
                tuple(tuple(key) for primary, key in keys if not primary),
                {column: (r if s == "public" else f"{s}.{r}") for column, s, r in foreign},
                "." in name or "." in schema,
            )
        )
    return [table for table in found if table.primary or table.unique]


def draft(client: firestore.Client, connection: psycopg.Connection[Any], schema: str) -> str:
    """The text of a catalog.py."""
    matches, tables_left, shapes_left = match(sample(client), tables(connection, schema))
    return render(matches, tables_left, shapes_left, datetime.now(UTC).isoformat(timespec="seconds"))


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
        sys.stdout.write(draft(client, connection, given.schema))
    return 0


if __name__ == "__main__":
    sys.exit(main())
