"""A field whose own name holds a dot looks like a path through a map. What the catalog can't say is told, never taken for null."""

from __future__ import annotations

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Scan, Source
from tests.support import apply as applied
from tests.support import gap_run, nonzero, one, reconciled, verify_all
from tests.worlds import LONG_AGO, club


def _execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def dotted(firestore, emulator, target_dsn):
    """A person whose time zone is in a field called "profile.timezone", and so in no map; her row says what it is."""
    club(firestore, emulator, target_dsn)
    firestore.document("users/u4").set({"profile.timezone": "Asia/Seoul", "createdAt": LONG_AGO, "updatedAt": LONG_AGO})
    _execute(
        target_dsn, "INSERT INTO users (id, timezone, created_at, updated_at) VALUES ('u4', 'Asia/Seoul', now(), now())"
    )
    return firestore


def test_a_field_with_a_dot_in_its_name_makes_no_column_null(dotted, emulator, target_dsn):
    """An apply set it to NULL, and called it verified."""
    found = applied(dotted.project, emulator, target_dsn, scope="all", collections=["users"])["users"]
    assert nonzero(found["counts"]) == {"rejected": 1, "matching": 3}
    assert found["samples"]["rejected"][0]["reason"].startswith("dotted_name: nothing is at profile.timezone")
    assert one(target_dsn, "SELECT timezone FROM users WHERE id = 'u4'") == "Asia/Seoul"
    with gap_run(dotted.project, emulator, target_dsn, collections=["users"]) as run:
        assert verify_all(run)["users"]["verification"] == "not_verified"
    reconciled(dotted.project, emulator, target_dsn, repair="all", scope="sweep", max_share=100, grace_seconds=0)
    assert one(target_dsn, "SELECT timezone FROM users WHERE id = 'u4'") == "Asia/Seoul"


def test_a_dotted_name_beside_the_real_path_is_left_alone(dotted, emulator, target_dsn):
    """A set() with a dotted key beside an update() of the same path: the path says what the column is."""
    dotted.document("users/u4").set({"profile": {"timezone": "Europe/Paris"}}, merge=True)
    found = applied(dotted.project, emulator, target_dsn, scope="all", collections=["users"])["users"]
    assert nonzero(found["counts"]) == {"stale": 1, "matching": 3}
    assert one(target_dsn, "SELECT timezone FROM users WHERE id = 'u4'") == "Europe/Paris"


@pytest.mark.parametrize("path", ["a.b", "a.b.c", "a b.c-d"])
def test_every_spelling_of_a_dotted_path_is_read_with_it(firestore, emulator, path):
    """Also by path, and below a document; names that are no plain identifiers among them."""
    a, b, *c = path.split(".")
    documents = {
        "path": {a: {b: {c[0]: "x"} if c else "x"}},
        "whole": {path: "x"},
        "inner": {a: {".".join([b, *c]): "x"}},
        "outer": {f"{a}.{b}": {c[0]: "x"} if c else "x"},
        "other": {"z": "x"},
    }
    for name, fields in documents.items():
        firestore.document(f"ps/p/things/{name}").set(fields)
    with Source(firestore.project, emulator_host=emulator) as source:
        [page] = source.pages(Scan("things", (path,)), 100)
        scanned = {d.path.rsplit("/", 1)[-1]: d.fields for d in page.documents}
        asked = source.get([f"ps/p/things/{name}" for name in documents], (path,))
        [below] = source.children_where_each([("ps/p", {})], "things", (path,))
    expected = {**documents, "other": {}}
    assert scanned == expected
    assert {p.rsplit("/", 1)[-1]: d.fields for p, d in asked.items()} == expected
    assert {d.path.rsplit("/", 1)[-1]: d.fields for d in below} == expected


def test_reading_other_spellings_costs_no_read(dotted, emulator):
    with Source(dotted.project, emulator_host=emulator) as source:
        users = CATALOG["users"]
        assert sum(len(p.messages) for p in source.pages(Scan("users", users.fields, True), 100)) == 4
        assert source.billed_reads == 5
