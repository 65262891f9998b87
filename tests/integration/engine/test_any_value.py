"""Any value that Firestore keeps, in any type of column: a run ends, and is verified only where an oracle agrees."""

from __future__ import annotations

import random
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from google.api_core.exceptions import GoogleAPICallError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Field
from tests.arbitrary import scalars, values
from tests.plain import Geo, Ref, Vec, for_firestore
from tests.support import apply, dry_run, gap_run, nonzero, verify_all

NOTHING = object()
TYPES: dict[str, tuple[Any, str]] = {
    "texts": ("text", "text"), "shorts": ("text", "varchar(3)"), "integers": ("integer", "int8"), "smalls": ("integer", "int2"),
    "numbers": ("numeric", "numeric"), "flags": ("boolean", "bool"), "times": ("timestamp", "timestamptz"), "maps": ("json", "jsonb"),
}  # fmt: skip


def things(name: str, type_: Any) -> Collection:
    columns = (Column("id", "key", DocumentId()), Column("value", "compared", Field("v"), type_))
    return Collection(name, name, ("things/{thing}",), columns, selected=True)


CATALOG = Catalog(tuple(things(name, type_) for name, (type_, _) in TYPES.items()))
EVERYTHING: dict[str, Any] = {"catalog": CATALOG, "collections": list(CATALOG.names), "scope": "all"}


def kept(name: str, value: Any) -> Any:
    """The oracle: what a table keeps of a value, or NOTHING if its document can't have a row."""
    is_number = (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) != float("inf")
    )
    match name:
        case _ if value is None:
            return None
        case "texts" if isinstance(value, str) and "\0" not in value:
            return value
        case "shorts" if isinstance(value, str) and "\0" not in value and len(value.rstrip(" ")) <= 3:
            return value[:3]
        case "integers" | "smalls" if is_number and value == int(value):
            most = 2**63 if name == "integers" else 2**15
            return int(value) if -most <= value < most else NOTHING
        case "numbers" if is_number:
            return Decimal(repr(value))
        case "maps" if is_json(value):
            return in_floats(value)
        case "flags" if isinstance(value, bool):
            return value
        case "times" if isinstance(value, datetime):
            return value.replace(microsecond=value.microsecond // 1000 * 1000)
    return NOTHING


def is_json(value: Any) -> bool:
    match value:
        case dict():
            return all("\0" not in key and is_json(inner) for key, inner in value.items())
        case list():
            return all(map(is_json, value))
        case str():
            return "\0" not in value
        case float():
            return value == value and abs(value) != float("inf")
    return value is None or isinstance(value, bool | int)


def in_floats(value: Any) -> Any:
    """Numbers as JSON knows them, without an integer type."""
    match value:
        case dict():
            return {key: in_floats(inner) for key, inner in value.items()}
        case list():
            return [in_floats(inner) for inner in value]
        case bool():
            return value
        case int():
            return float(value)
    return value


def plain(value: Any) -> Any:
    """An arbitrary value, with the markers that Firestore's client takes."""
    match type(value).__name__:
        case "GeoPoint":
            return Geo(1.0, 2.0)
        case "Reference":
            return Ref("users/u")
        case "Vector":
            return Vec((1.0,))
        case "dict":
            return {key: plain(inner) for key, inner in value.items()}
        case "list":
            return [plain(inner) for inner in value]
    return value


def test_any_value_in_any_column_ends_as_the_oracle_says(firestore, emulator, target_dsn):
    """One run over a hundred values in eight types of column. What Firestore itself refuses is no document."""
    found: list[Any] = [None, "", "ab  ", "abc  ", -0.0, 2**63 - 1, 2.0**63, 32767, 5e-324, float("nan"), True, "\0"]
    strange = st.lists(st.one_of(scalars, values), min_size=90, max_size=90)

    @settings(
        max_examples=1,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(strange)
    def fill(drawn: list[Any]) -> None:
        found.extend(drawn)

    fill()
    random.Random(7).shuffle(found)
    documents = {}
    for n, value in enumerate(found):
        try:
            firestore.document(f"things/d{n}").set({"v": for_firestore(firestore, plain(value))})
        except (GoogleAPICallError, ValueError, TypeError):
            continue
        documents[f"d{n}"] = value
    assert len(documents) > 60
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        for name, (_, ddl) in TYPES.items():
            connection.execute(f"CREATE TABLE {name} (id text PRIMARY KEY, value {ddl})")
    tried = dry_run(firestore.project, emulator, target_dsn, **EVERYTHING)
    applied = apply(firestore.project, emulator, target_dsn, **EVERYTHING)
    with gap_run(firestore.project, emulator, target_dsn, **EVERYTHING) as run:
        verified = verify_all(run)
    with psycopg.connect(target_dsn) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in TYPES:
            rows = dict(connection.execute(f"SELECT id, value FROM {name}").fetchall())
            refused = len(documents) - len(rows)
            assert nonzero(tried[name]["counts"]) == nonzero(applied[name]["counts"]), name
            assert nonzero(verified[name]["counts"]) == nonzero({"matching": len(rows), "rejected": refused}), name
            assert (verified[name]["verification"] == "verified") == (refused == 0), name
            wanted = {key: kept(name, value) for key, value in documents.items()}
            rows = {key: in_floats(value) if name == "maps" else value for key, value in rows.items()}
            assert rows == {key: value for key, value in wanted.items() if value is not NOTHING}, name
