"""A column's own type has the last word: what it keeps is what is compared, what it refuses is a rejection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Field, Segment
from dualwrite.runs import backfill
from tests.support import apply, dry_run, gap_run, nonzero, one, verify_all

AT = datetime(2026, 2, 1, 23, 30, 15, 987654, tzinfo=UTC)
KEPT = "2026-02-01 23:30:15.987"


@dataclass(frozen=True)
class Case:
    """`ddl`: a column's type. `value`: what the document holds. `kept`: what a client's write of it leaves, as text."""

    ddl: str
    type: Any
    value: Any
    kept: str | None
    another: Any = None
    """A value that differs from `value` once it is kept."""
    refused: Any = None


CASES = {
    "enum": Case("mood", "text", "glad", "glad", "sad", "furious"),
    "domain of an enum": Case("felt", "text", "sad", "sad", "glad", "angry"),
    "domain": Case("label", "text", "abc", "abc", "b", "abcdefgh"),
    "citext": Case("public.citext", "text", "MiXed", "MiXed", "other"),
    "uuid": Case("uuid", "text", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                 "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "no uuid"),
    "varchar": Case("varchar(3)", "text", "ab   ", "ab ", "abc", "abcd"),
    "char": Case("char(4)", "text", "ab", "ab", "abc", "abcde"),
    "bit": Case("bit(3)", "text", "101", "101", "111", "1"),
    "inet": Case("inet", "text", "10.0.0.1/32", "10.0.0.1/32", "10.0.0.2", "nowhere"),
    "range": Case("int4range", "text", "[1,3]", "[1,4)", "[1,5]", "[3,1]"),
    "array": Case("varchar(3)[]", "text", "{a,b}", "{a,b}", "{a}", "{abcd}"),
    "interval": Case("interval", "text", "36 hours", "36:00:00", "1 hour", "soon"),
    "date of text": Case("date", "text", "2026-02-28", "2026-02-28", "2026-03-01", "2026-02-31"),
    "int2": Case("int2", "integer", 5.0, "5", 6, 70_000),
    "int8": Case("int8", "integer", 1_768_512_345_678, "1768512345678", 1, 2.5),
    "integer as numeric": Case("numeric(12,2)", "integer", 2**33, "8589934592.00", 1, 10**11),
    "integer as float": Case("float8", "integer", 3, "3", 4),
    "integer as text": Case("text", "integer", 12, "12", 13, "12"),
    "numeric rounds": Case("numeric(10,2)", "numeric", 1.005, "1.01", 1.02, 10.0**9),
    "float8": Case("double precision", "numeric", 0.1, "0.1", 0.2, float("nan")),
    "real": Case("real", "numeric", 0.1, "0.1", 0.2),
    "timestamp": Case("timestamp", "timestamp", AT, KEPT, AT + timedelta(seconds=1), "2026"),
    "timestamp(0)": Case("timestamp(0)", "timestamp", AT, "2026-02-01 23:30:16", AT + timedelta(seconds=5)),
    "timestamptz(0)": Case("timestamptz(0)", "timestamp", AT, "2026-02-01 23:30:16+00", AT + timedelta(seconds=5)),
    "date": Case("date", "timestamp", AT, "2026-02-01", AT + timedelta(days=1)),
    "json": Case("json", "json", {"b": [1, 2], "a": None}, '{"a":null,"b":[1,2]}', {"b": [2]}, b"x"),
}  # fmt: skip

SCHEMA = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN felt AS mood;
CREATE DOMAIN label AS varchar(5) CHECK (VALUE <> '');
"""


def things(ddl: str, type_: Any) -> tuple[str, Catalog]:
    columns = (Column("id", "key", DocumentId()), Column("value", "compared", Field("v"), type_))
    thing = Collection(name="things", table="things", paths=("things/{thing}",), columns=columns, selected=True)
    return f"CREATE TABLE things (id text PRIMARY KEY, value {ddl})", Catalog((thing,))


@pytest.fixture
def open_dsn(target_dsn):
    """With the hostile settings that a role may have: what is kept mustn't depend on them."""
    with psycopg.connect(target_dsn, autocommit=True) as admin:
        try:
            admin.execute(SCHEMA)
        except psycopg.errors.FeatureNotSupported:  # the wheel has no citext
            admin.execute(SCHEMA.partition(";")[2])
        admin.execute("SET TimeZone = 'UTC'")
    return target_dsn


def _run(client, emulator: str, dsn: str, catalog: Catalog, **changes: Any) -> dict[str, int]:
    changes = {"collections": list(catalog.names), "scope": "all", "catalog": catalog, **changes}
    return nonzero(apply(client.project, emulator, dsn, **changes)["things"]["counts"])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_the_column_keeps_is_what_is_compared(firestore, emulator, open_dsn, case):
    """Inserted, verified, found stale after a lost edit, updated, and left alone by a second apply."""
    ddl, catalog = things(case.ddl, case.type)
    with psycopg.connect(open_dsn, autocommit=True) as admin:
        if "citext" in ddl and not admin.execute("SELECT to_regtype('public.citext')").fetchone()[0]:
            admin.execute("CREATE DOMAIN citext AS text")
        admin.execute(ddl)
    firestore.document("things/a").set({"v": case.value})
    firestore.document("things/null").set({"v": None})
    if case.refused is not None:
        firestore.document("things/bad").set({"v": case.refused})
    refused = {"rejected": 1} if case.refused is not None else {}
    everything = {"collections": ["things"], "scope": "all", "catalog": catalog}
    tried = dry_run(firestore.project, emulator, open_dsn, **everything)["things"]
    assert nonzero(tried["counts"]) == {"missing": 2, **refused}
    assert _run(firestore, emulator, open_dsn, catalog) == {"missing": 2, **refused}
    assert _kept(open_dsn) == case.kept
    assert _run(firestore, emulator, open_dsn, catalog) == {"matching": 2, **refused}
    if case.another is not None:
        firestore.document("things/a").set({"v": case.another})
        assert _run(firestore, emulator, open_dsn, catalog) == {"stale": 1, "matching": 1, **refused}
        firestore.document("things/a").set({"v": case.value})
        assert _run(firestore, emulator, open_dsn, catalog) == {"stale": 1, "matching": 1, **refused}
        assert _kept(open_dsn) == case.kept
    with gap_run(firestore.project, emulator, open_dsn, **everything) as run:
        assert verify_all(run)["things"]["verification"] == ("not_verified" if refused else "verified")


def _kept(dsn: str) -> str:
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute("SELECT value::text FROM things WHERE id = 'a'").fetchone()[0]


KEYS = {
    "uuid": ("uuid", ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
             "B0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12"),
    "smallint": ("int2", ["7", "-3"], "07"),
    "bigint": ("int8", ["1768512345678", "0"], "1768512345678901234567"),
    "date": ("date", ["2026-02-01", "0001-01-01"], "2026-2-1"),
    "enum": ("mood", ["glad", "sad"], "furious"),
    "char": ("char(3)", ["abc", "a"], "abcd"),
}  # fmt: skip


@pytest.mark.parametrize(("ddl", "ids", "wrong"), KEYS.values(), ids=KEYS.keys())
def test_a_key_of_any_type_leads_back_to_its_document(firestore, emulator, open_dsn, ddl, ids, wrong):
    """Rows without documents are found extra, children find their parents, and an id in another spelling is refused."""
    parent = Collection(
        name="things", table="things", paths=("things/{thing}",), selected=True,
        columns=(Column("id", "key", DocumentId()), Column("value", "compared", Field("v"))),
    )  # fmt: skip
    child = Collection(
        name="parts", table="parts", paths=("things/{thing}/parts/{part}",), selected=True,
        columns=(
            Column("thing_id", "key", Segment("thing"), references="things"), Column("n", "key", DocumentId()),
            Column("value", "compared", Field("v")),
        ),
    )  # fmt: skip
    catalog = Catalog((parent, child))
    with psycopg.connect(open_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE TABLE things (id {ddl} PRIMARY KEY, value text)")
        admin.execute(
            f"CREATE TABLE parts (thing_id {ddl} REFERENCES things ON DELETE CASCADE, n {ddl}, value text, "
            "PRIMARY KEY (thing_id, n))"
        )
    for name in [*ids, wrong]:
        firestore.document(f"things/{name}").set({"v": "x"})
        firestore.document(f"things/{name}/parts/{ids[0]}").set({"v": "x"})
    everything = {"collections": list(catalog.names), "scope": "all", "catalog": catalog}
    for expected in ({"missing": 2, "rejected": 1}, {"matching": 2, "rejected": 1}):
        found = apply(firestore.project, emulator, open_dsn, **everything)
        assert {n: nonzero(found[n]["counts"]) for n in found} == {"things": expected, "parts": expected}
    firestore.document(f"things/{ids[0]}/parts/{ids[0]}").delete()
    with gap_run(firestore.project, emulator, open_dsn, **everything) as run:
        verified = {n: backfill.verify(run, n, counts_only=False) for n in catalog.names}
    assert nonzero(verified["things"]["counts"]) == {"matching": 2, "rejected": 1}
    assert nonzero(verified["parts"]["counts"]) == {"matching": 1, "extra": 1, "rejected": 1}
    assert one(open_dsn, "SELECT count(*) FROM parts") == 2


NAMED = {name: case for name, case in CASES.items() if case.refused is not None}


@pytest.mark.parametrize("case", NAMED.values(), ids=NAMED.keys())
def test_a_refused_value_is_told_with_its_column(firestore, emulator, open_dsn, case):
    """One by one, whichever column it is: a condition alone left a person with forty columns to look at."""
    columns = (
        Column("id", "key", DocumentId()), Column("before", "compared", Field("a")),
        Column("first", "compared", Field("v"), case.type), Column("second", "compared", Field("w"), case.type),
    )  # fmt: skip
    thing = Collection(name="things", table="things", paths=("things/{thing}",), columns=columns, selected=True)
    with psycopg.connect(open_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE TABLE things (id text PRIMARY KEY, before text, first {case.ddl}, second {case.ddl})")
    for name, first, second in (("a", True, False), ("b", False, True), ("c", True, True), ("d", False, True)):
        values = {"v": case.refused if first else case.value, "w": case.refused if second else case.value}
        firestore.document(f"things/{name}").set({"a": "x", **values})
    found = dry_run(
        firestore.project, emulator, open_dsn, collections=["things"], scope="all", catalog=Catalog((thing,))
    )["things"]
    assert nonzero(found["counts"]) == {"rejected": 4}
    told = {sample["path"]: sample["reason"] for sample in found["samples"]["rejected"]}
    assert "first" in told["things/a"]
    assert all("second" in told[f"things/{name}"] for name in "bd")
    assert "first" in told["things/c"] or "second" in told["things/c"]
    assert not any(str(case.refused) in reason for reason in told.values() if len(str(case.refused)) > 3)
