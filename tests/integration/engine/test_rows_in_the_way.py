"""Rows that exclude each other in unique keys and exclusion constraints: a dry run counts what an apply then does, whichever
page each row is on; and it says so where that depends on Postgres's order."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest

from dualwrite.engine.compare import Examiner
from dualwrite.model.declaration import Catalog, Column, Field
from dualwrite.postgres import rivals
from tests.databases import clone
from tests.integration.engine.test_other_tables import PEOPLE, TABLES, World
from tests.soak import sized
from tests.support import nonzero

DECLARED = Catalog((replace(PEOPLE, unique=(("email",),)),))
UNIQUE = "ALTER TABLE app.people ADD CONSTRAINT u UNIQUE (email)"
EXCLUDED = "ALTER TABLE app.people ADD CONSTRAINT v EXCLUDE USING btree (team WITH =)"
SPAN = "int4range(least(email::int, team::int), greatest(email::int, team::int), '[]')"
KINDS = {
    "unique": [UNIQUE],
    "unique, deferrable": [f"{UNIQUE} DEFERRABLE INITIALLY DEFERRED"],
    "unique where, nulls equal": [
        "CREATE UNIQUE INDEX u ON app.people (nullif(email, '1')) NULLS NOT DISTINCT WHERE team > '3'"
    ],
    "equal where": [
        "ALTER TABLE app.people ADD CONSTRAINT v EXCLUDE USING btree (team WITH =, email WITH =) WHERE (email < '5')"
    ],
    "ranges": [f"ALTER TABLE app.people ADD CONSTRAINT v EXCLUDE USING gist ({SPAN} WITH &&)"],
    "both": [UNIQUE, f"{EXCLUDED} DEFERRABLE"],
    "declared, and another": [UNIQUE, EXCLUDED],
}


@pytest.fixture
def world(postgres_server, firestore, emulator) -> Iterator[World]:
    with closing(clone(postgres_server, "migrated")) as cloned:
        made = World(firestore, emulator, next(cloned))
        made.sql(TABLES)
        yield made


def fields(chance: random.Random) -> dict[str, str]:
    return {"email": str(chance.randrange(12)), "team": str(chance.randrange(12))}


def fill(world: World, chance: random.Random, rows: int) -> None:
    """Twelve documents, and at most so many rows of other values."""
    world.sql("TRUNCATE app.people")
    for n in range(rows):
        row = fields(chance)
        try:
            world.sql(f"INSERT INTO app.people (id, email, team) VALUES ('p{n:02}', '{row['email']}', '{row['team']}')")
        except psycopg.errors.IntegrityError:
            continue
    world.put(**{f"p{n:02}": fields(chance) for n in range(12)})


def both(world: World, chance: random.Random) -> tuple[dict[str, int], dict[str, int], int]:
    """What a dry run counts, what an apply does, and how many rows the dry run says depend on Postgres's order."""
    given: dict[str, Any] = {"page_size": chance.choice([1, 3, 5, 100]), "update_stale": chance.random() < 0.7}
    said = world.dry(**given)
    did = world.apply(**given)
    assert did["order_decides"] == 0, "it has decided"
    return nonzero(said["counts"]), nonzero(did["counts"]), said["order_decides"]


def worlds(
    world: World, kind: str, seeds: Iterable[int], rows: int
) -> Iterator[tuple[dict[str, int], dict[str, int], int]]:
    world.sql(*KINDS[kind])
    if kind.startswith("declared"):
        world.catalog = DECLARED
    for seed in seeds:
        chance = random.Random(seed)
        fill(world, chance, rows)
        print("seed", seed)
        yield both(world, chance)


def _apart(said: dict[str, int], did: dict[str, int]) -> int:
    """By how much two counts differ in all: a row that ends otherwise counts twice."""
    return sum(abs(said.get(verdict, 0) - did.get(verdict, 0)) for verdict in said.keys() | did.keys())


@pytest.mark.parametrize("kind", KINDS)
def test_new_rows_exclude_each_other_in_a_dry_run_as_in_an_apply(world, kind):
    for said, did, order_decides in worlds(world, kind, range(4), rows=0):
        assert (said, order_decides) == (did, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_lets_rows_into_places_that_others_leave(world, kind):
    for said, did, order_decides in worlds(world, kind, range(4), rows=8):
        assert _apart(said, did) <= 2 * order_decides


@pytest.mark.parametrize("seed", [110, 393673419, 944107167])
def test_who_waits_and_may_have_come_first_is_told(world, seed):
    """A row that waits for an undeclared place may lose its declared key meanwhile, or keep another row from it."""
    for said, did, order_decides in worlds(world, "declared, and another", [seed], rows=8):
        assert order_decides
        assert _apart(said, did) <= 2 * order_decides


@pytest.mark.parametrize("seed", [113, 141, 148])
def test_rows_that_wait_for_a_contested_one_are_told_too(world, seed):
    for said, did, order_decides in worlds(world, "unique", [seed], rows=8):
        assert _apart(said, did) <= 2 * order_decides


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rows", [0, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_counts_what_an_apply_does_in_many_worlds(world, kind, rows):
    for said, did, order_decides in worlds(
        world, kind, [random.randrange(10**9) for _ in range(sized(200))], rows=rows
    ):
        assert _apart(said, did) <= 2 * order_decides
        assert rows or not order_decides


def test_hundreds_of_new_rows_exclude_each_other_across_pages(world):
    world.sql(*KINDS["ranges"])
    world.put(**{f"p{n:04}": {"email": str(n // 2), "team": str(n // 2)} for n in range(400)})
    said = world.dry(page_size=50)
    assert nonzero(said["counts"]) == {"missing": 200, "rejected": 200}
    assert {s["reason"] for s in said["samples"]["rejected"]} == {"ExclusionViolation 23P01 (constraint v)"}
    assert nonzero(world.apply(page_size=70)["counts"]) == nonzero(said["counts"])


def test_many_rows_in_the_way_are_not_all_asked_for(world, monkeypatch):
    monkeypatch.setattr(rivals, "MOST_HOLDERS", 2)
    world.sql(*KINDS["ranges"])
    world.sql("INSERT INTO app.people (id, email, team) SELECT 'p' || n, n::text, n::text FROM generate_series(1, 5) n")
    moved = {f"p{n}": {"email": str(n + 10), "team": str(n + 10)} for n in range(1, 6)}
    world.put(a={"email": "0", "team": "7"}, **moved)
    for page_size in (1, 3, 100):
        assert nonzero(world.dry(page_size=page_size)["counts"]) == {"missing": 1, "stale": 5}
    world.put(p4={"email": "4", "team": "4"})
    agree(world, {"matching": 1, "rejected": 1, "stale": 4}, page_size=3)


def test_rows_of_many_rooms_are_put_beside_a_page_at_once(world, monkeypatch):
    parts = "int4range(email::int, email::int, '[]') WITH =, int4range(team::int, team::int, '[]') WITH &&"
    world.sql(f"ALTER TABLE app.people ADD CONSTRAINT v EXCLUDE USING gist ({parts})")
    world.put(**{f"p{n:03}": {"email": str(n % 50), "team": str(n // 75)} for n in range(150)})
    statements: list[int] = []
    load = rivals.Rivals._load  # noqa: SLF001

    def counted(self: rivals.Rivals, *given: Any) -> None:
        before = len(statements)
        execute = self._connection.execute
        with monkeypatch.context() as patch:
            patch.setattr(self, "_connection", Mock(execute=lambda *a: statements.append(1) or execute(*a)))
            load(self, *given)
        assert len(statements) - before <= 2

    monkeypatch.setattr(rivals.Rivals, "_load", counted)
    agree(world, {"missing": 100, "rejected": 50}, page_size=50)
    assert statements


@pytest.mark.parametrize(
    "constraint",
    [
        "CREATE UNIQUE INDEX u ON app.people ((email::int % 10))",
        "ALTER TABLE app.people ADD CONSTRAINT v EXCLUDE USING btree ((email::int % 10) WITH =)",
        "ALTER TABLE app.people ADD CONSTRAINT v EXCLUDE USING gist "
        "(int4range(email::int % 10, email::int % 10, '[]') WITH &&)",
        "ALTER TABLE app.people ADD CONSTRAINT v EXCLUDE USING btree (left(email, 1) WITH =) WHERE (email LIKE '1%')",
        'CREATE DOMAIN "t%s" AS text; ALTER TABLE app.people ALTER team TYPE "t%s"; '
        "ALTER TABLE app.people ADD CONSTRAINT v EXCLUDE USING btree (left(email, 1) WITH =, (team IS NULL) WITH =)",
    ],
    ids=["unique", "equal", "ranges", "where", "type"],
)
@pytest.mark.parametrize("page_size", [1, 100])
def test_a_percent_sign_in_a_constraint_is_one(world, constraint, page_size):
    world.sql(*constraint.split("; "))
    world.put(p1={"email": "1"}, p2={"email": "11"}, p3={"email": "2"})
    said = world.dry(page_size=page_size)
    assert nonzero(said["counts"]) == {"missing": 2, "rejected": 1}
    assert nonzero(world.apply(page_size=page_size)["counts"]) == {"missing": 2, "rejected": 1}


def test_a_constraint_that_a_dry_run_cannot_copy_is_told(world, caplog):
    world.sql(
        "CREATE FUNCTION app.f(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'",
        "ALTER TABLE app.people ADD CONSTRAINT v EXCLUDE USING btree (app.f(email) WITH =)",
        "CREATE UNIQUE INDEX u ON app.people (app.f(team))",
        "ALTER FUNCTION app.f STABLE",
    )
    world.put(p1={"email": "1", "team": "1"}, p2={"email": "2", "team": "1"})
    assert nonzero(world.dry()["counts"]) == {"missing": 1, "rejected": 1}
    assert "people: a dry run can't copy constraint v (InvalidObjectDefinition 42P17)" in caplog.text
    assert "constraint u" not in caplog.text


def test_two_rows_that_want_a_place_that_a_third_leaves_are_told(world):
    """Whether p1 or p2 gets it depends on which of them Postgres updates first after p3."""
    world.sql(UNIQUE, "INSERT INTO app.people (id, email) VALUES ('p1', '1'), ('p2', '2'), ('p3', '3')")
    world.put(p1={"email": "3"}, p2={"email": "3"}, p3={"email": "4"})
    said = world.dry()
    assert (nonzero(said["counts"]), said["order_decides"]) == ({"stale": 2, "rejected": 1}, 1)
    assert nonzero(world.apply()["counts"]) == {"stale": 2, "rejected": 1}


@pytest.mark.parametrize(("deferrable", "order_decides"), [("", 0), ("DEFERRABLE", 2)])
def test_rows_that_swap_are_told_where_a_constraint_lets_them(world, deferrable, order_decides):
    world.sql(f"{UNIQUE} {deferrable}", "INSERT INTO app.people (id, email) VALUES ('p1', '1'), ('p2', '2')")
    world.put(p1={"email": "2"}, p2={"email": "1"})
    said = world.dry()
    assert (nonzero(said["counts"]), said["order_decides"]) == ({"rejected": 2}, order_decides)
    assert nonzero(world.apply()["counts"]) == ({"stale": 2} if deferrable else {"rejected": 2})


# --- what a row that isn't written promised itself ------------------------------------------------------------------------------

OWN = "ALTER TABLE app.people ADD CONSTRAINT b FOREIGN KEY (boss) REFERENCES app.people (id)"


def agree(world: World, counts: dict[str, int], **given: Any) -> None:
    assert nonzero(world.dry(**given)["counts"]) == counts
    assert nonzero(world.apply(**given)["counts"]) == counts


@pytest.mark.parametrize("page_size", [1, 100])
@pytest.mark.parametrize("kind", ["unique", "ranges"])
def test_a_row_that_lacks_another_row_keeps_no_place(world, kind, page_size):
    world.sql(*KINDS[kind], OWN)
    world.put(
        p1={"email": "1", "team": "2", "boss": "nobody"},
        p2={"email": "1", "team": "2"},
        p3={"email": "3", "team": "4", "boss": "p5"},
        p4={"email": "3", "team": "4"},
        p5={"email": "1", "team": "2"},
    )
    agree(world, {"missing": 2, "rejected": 3}, page_size=page_size)


@pytest.mark.parametrize("page_size", [1, 100])
def test_an_update_that_lacks_another_row_leaves_no_place(world, page_size):
    world.sql(UNIQUE, OWN, "INSERT INTO app.people (id, email) VALUES ('p1', 'e')")
    world.put(p1={"email": "f", "boss": "nobody"}, p2={"email": "e"}, p3={"email": "f"})
    agree(world, {"missing": 1, "rejected": 2}, page_size=page_size)


@pytest.mark.parametrize("page_size", [1, 100])
def test_a_document_whose_key_is_another_ones_keeps_no_place(world, page_size):
    world.sql(
        "CREATE TABLE app.teams_of (email text PRIMARY KEY, team text)",
        "CREATE UNIQUE INDEX ON app.teams_of (lower(email))",
    )
    email, team = Column("email", "key", Field("email"), required=True), Column("team", "compared", Field("team"))
    world.catalog = Catalog((replace(PEOPLE, table="app.teams_of", columns=(email, team)),))
    world.put(p2={"email": "a", "team": "x"})
    world.put(p1={"email": "a", "team": "y"})
    agree(world, {"missing": 1, "duplicate": 1}, page_size=page_size)


@pytest.mark.parametrize("kind", ["declared, and another", "unique", "ranges"])
def test_documents_that_swap_between_two_looks_are_missing(world, kind, monkeypatch):
    world.sql(*KINDS[kind])
    if kind.startswith("declared"):
        world.catalog = DECLARED
    changes = [{"p1": {"email": "2", "team": "2"}, "p2": {"email": "1", "team": "1"}}]
    world.put(p1={"email": "1", "team": "1"}, p2={"email": "2", "team": "2"})
    monkeypatch.setattr(time, "sleep", lambda _: world.put(**changes.pop()) if changes else None)
    assert nonzero(world.verify()["counts"]) == {"missing": 2}
    assert not changes


@pytest.mark.timeout(100)
def test_a_dry_run_ends_though_a_waiting_document_is_deleted(world, monkeypatch):
    """p1 waits for p2's place; by the time that it is looked at again, a client has deleted it."""
    world.sql(UNIQUE, "INSERT INTO app.people (id, email) VALUES ('p1', '1'), ('p2', '2')")
    world.put(p1={"email": "2"}, p2={"email": "3"})
    real = Examiner._examine_held  # noqa: SLF001 - between the scan and the look at who waits

    def examine_held(self, left):
        assert [unit.label for unit, _ in left.held] == ["p1"]
        world.firestore.document("people/p1").delete()
        real(self, left)

    monkeypatch.setattr(Examiner, "_examine_held", examine_held)
    assert nonzero(world.dry(page_size=1)["counts"]) == {"extra": 1, "stale": 1}


# --- what a repair settles ----------------------------------------------------------------------------------------------------

IN_THE_WAY = {
    "declared": [UNIQUE],
    "plain": [UNIQUE],
    "nulls equal": ["ALTER TABLE app.people ADD CONSTRAINT u UNIQUE NULLS NOT DISTINCT (email)"],
    "partial": ["CREATE UNIQUE INDEX u ON app.people (email) WHERE team IS NULL"],
    "expression": ["CREATE UNIQUE INDEX u ON app.people (lower(email))"],
    "exclusion": ["ALTER TABLE app.people ADD CONSTRAINT u EXCLUDE USING btree (email WITH =)"],
}
EMAILS = "SELECT id, email FROM app.people ORDER BY id"


def _repaired(world: World) -> dict[str, int]:
    found = world.reconciled(repair="all", grace_seconds=0)
    return {verdict: number for verdict, number in found.counts("people").items() if verdict != "absent"}


@pytest.mark.parametrize("kind", [kind for kind in IN_THE_WAY if kind != "declared"])
def test_a_repair_moves_a_value_along_a_chain_of_rows(world, kind):
    """p1 wants what p2 has, p2 what p3 has, and p0 is new; each is looked at before the one that it waits for. A look may
    tell some of them as rejected, and further repairs write them."""
    world.sql(*IN_THE_WAY[kind])
    world.put(p1={"email": "a"}, p2={"email": "b"}, p3={"email": "c"})
    world.apply()
    world.put(p0={"email": "a"}, p1={"email": "b"}, p2={"email": "c"}, p3={"email": "d"})
    assert any("rejected" not in _repaired(world) for _ in range(4))
    assert world.rows(EMAILS) == [("p0", "a"), ("p1", "b"), ("p2", "c"), ("p3", "d")]
    assert _repaired(world) == {}


@pytest.mark.parametrize("kind", [kind for kind in IN_THE_WAY if kind != "declared"])
def test_a_backfill_moves_a_value_along_a_chain_of_rows(world, kind):
    world.sql(*IN_THE_WAY[kind])
    world.put(p1={"email": "a"}, p2={"email": "b"})
    world.apply()
    world.put(p0={"email": "a"}, p1={"email": "b"}, p2={"email": "c"})
    assert nonzero(world.dry(page_size=1)["counts"]) == {"missing": 1, "stale": 2}
    assert nonzero(world.apply(page_size=1)["counts"]) == {"missing": 1, "stale": 2}
    assert world.rows(EMAILS) == [("p0", "a"), ("p1", "b"), ("p2", "c")]


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_a_row_without_a_document_makes_room(world, kind):
    """Declared, in the repair that deletes it; else in the next one, because the look can't tell whose the row is."""
    world.sql(*IN_THE_WAY[kind], "INSERT INTO app.people (id, email) VALUES ('gone', 'a')")
    if kind == "declared":
        world.catalog = DECLARED
    world.put(p1={"email": "a"}, p2={"email": "b"})
    first = _repaired(world)
    if kind == "declared":
        assert first == {"missing": 2, "extra": 1}
    else:
        assert first == {"missing": 1, "extra": 1, "rejected": 1}
        assert _repaired(world) == {"missing": 1}
    assert world.rows(EMAILS) == [("p1", "a"), ("p2", "b")]
    assert _repaired(world) == {}


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_two_documents_of_one_value_are_told_by_each_repair(world, kind):
    world.sql(*IN_THE_WAY[kind])
    if kind == "declared":
        world.catalog = DECLARED
    world.put(p1={"email": "a"}, p2={"email": "b"})
    world.apply()
    world.put(p2={"email": "a"}, p3={"email": "a"})
    told = {"duplicate": 1, "stale": 1} if kind == "declared" else {"rejected": 2}
    for _ in range(2):
        assert _repaired(world) == told
        assert world.rows(EMAILS) == [("p1", "a"), ("p2", "b")]


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_two_rows_that_swap_a_value_stay_until_changed_by_hand(world, kind):
    """Postgres checks each row that it updates at once, and nothing here writes a value that no document states."""
    world.sql(*IN_THE_WAY[kind])
    if kind == "declared":
        world.catalog = DECLARED
    world.put(p1={"email": "a"}, p2={"email": "b"})
    world.apply()
    world.put(p1={"email": "b"}, p2={"email": "a"})
    for _ in range(2):
        assert _repaired(world) == ({"stale": 2} if kind == "declared" else {"rejected": 2})
        assert world.rows(EMAILS) == [("p1", "a"), ("p2", "b")]
    world.sql("UPDATE app.people SET email = 'free' WHERE id = 'p1'")
    for _ in range(2):  # a declared key: first p2, then p1, which waits for it
        _repaired(world)
    assert world.rows(EMAILS) == [("p1", "b"), ("p2", "a")]
