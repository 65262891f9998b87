"""Whole apps, from schema to repair, against oracles that share no code with the product."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import psycopg
import pytest

from dev import airflow_home
from dev.draft_catalog import draft
from dev.draft_text import load
from dualwrite import alerts, postgres
from dualwrite.dual_write import DualWriter, Outcome
from dualwrite.runs import backfill
from tests.integration.mirror.test_mirror_types import mirrored
from tests.places import catalog as places_catalog
from tests.places.world import PLACES
from tests.plain import Documents, Rows, Wanted, World, everything_in, for_mirror, put
from tests.shop import catalog as shop_catalog
from tests.shop.world import SHOP
from tests.support import apply, examine_all, gap_run, nonzero, reconciled, verify_all

WORLDS = [(SHOP, shop_catalog), (PLACES, places_catalog)]
each_world = pytest.mark.parametrize(("world", "module"), WORLDS, ids=[world.name for world, _ in WORLDS])


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn) as connection:
        for statement in statements:
            connection.execute(statement)


def told(results: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """By collection, the verdicts but for what matches."""
    return {name: {v: n for v, n in nonzero(c["counts"]).items() if v != "matching"} for name, c in results.items()}


def without(report: dict[str, dict[str, int]], verdict: str) -> dict[str, dict[str, int]]:
    return {name: {v: n for v, n in counts.items() if v != verdict} for name, counts in report.items()}


def rows_of(wanted: Wanted, world: World) -> Rows:
    return {name: wanted.rows.get(name, {}) for name in world.queries}


def in_a_gap(wanted: Wanted, found: Rows) -> dict[str, dict[str, int]]:
    """As a verification counts it: a row that equals its document is not asked whether that hangs on what is gone."""
    less = wanted.hanging(found)
    return {name: dict(+(Counter(counts) - Counter(extra=less[name]))) for name, counts in wanted.report(found).items()}


@each_world
def test_a_world_from_gap_to_drift_and_back(firestore, emulator, target_dsn, world: World, module: ModuleType):
    """Each number, and each value of each row, is the oracle's."""
    execute(target_dsn, world.sql("schema"), world.sql("export"))
    documents, catalog = world.documents(), module.CATALOG
    put(firestore, {}, documents)
    wanted, exported = world.wanted(documents), world.rows(target_dsn)
    every: dict[str, Any] = {"catalog": catalog, "collections": list(catalog.names)}
    gap = {**every, "since": module.EXPORT_TIME, "scope": "all"}

    before = app_tables(everything_in(target_dsn))
    with gap_run(firestore.project, emulator, target_dsn, mode="dry_run", **gap) as run:
        backfill.preflight(run, by="a test")
        tried = examine_all(run, dry=True)
    assert without(told(tried), "extra") == wanted.report(exported, documents_alone=True)
    assert app_tables(everything_in(target_dsn)) == before

    applied = apply(firestore.project, emulator, target_dsn, **gap)
    assert sum(c["inserted"] + c["parents_inserted"] for c in applied.values()) == sum(
        c["counts"]["missing"] for c in tried.values()
    )
    filled = world.rows(target_dsn)
    of_documents = {n: {k: v for k, v in rows.items() if k in wanted.rows.get(n, ())} for n, rows in filled.items()}
    assert of_documents == rows_of(wanted, world)
    with gap_run(firestore.project, emulator, target_dsn, **gap) as run:
        verified = verify_all(run)
    assert told(verified) == in_a_gap(wanted, filled)
    assert {n for n, c in verified.items() if c["verification"] == "verified"} == {
        name for name, counts in in_a_gap(wanted, filled).items() if not counts.keys() - {"orphan", "duplicate"}
    }

    after = world.edits(documents)
    put(firestore, documents, after)
    execute(target_dsn, world.sql("lost"))
    wanted, drifted, others = world.wanted(after), world.rows(target_dsn), outside(world, target_dsn)
    sweep: dict[str, Any] = {**every, "scope": "sweep", "max_share": 100, "grace_seconds": 0}
    found = reconciled(firestore.project, emulator, target_dsn, **sweep)
    parts = {c["collection"]: c for c in found.report["collections"]}
    assert told(parts) == wanted.report(drifted)
    assert world.rows(target_dsn) == drifted
    drifted = wanted.after_repair(drifted)
    for _ in range(2):  # what waits for another row, or is still referenced, has its turn in the second
        reconciled(firestore.project, emulator, target_dsn, **sweep, repair="all")
        if world.rows(target_dsn) == drifted:
            break
    assert world.rows(target_dsn) == drifted
    before = app_tables(everything_in(target_dsn))
    again = reconciled(firestore.project, emulator, target_dsn, **sweep, repair="all")
    parts = {c["collection"]: c for c in again.report["collections"]}
    assert told(parts) == wanted.report(drifted)
    assert app_tables(everything_in(target_dsn)) == before
    assert outside(world, target_dsn) == others


def app_tables(found: dict[str, Any]) -> dict[str, Any]:
    """Without what the bundle remembers: it has a line for each run, dry or not."""
    return {name: state for name, state in found.items() if not name.startswith("dualwrite.")}


def outside(world: World, dsn: str) -> list[Any]:
    """Rows of the app's tables that never were in Firestore."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(world.outside).fetchall()


@each_world
def test_mirror_writes_a_worlds_rows(target_dsn, monkeypatch, world: World, module: ModuleType):
    """Each document as it is created, and each edit: the same rows as the comparison's. Of what only Postgres can refuse, one row
    refuses its whole change, so the documents are such as have none."""
    monkeypatch.setattr(alerts, "write_failed", lambda text, **tags: None)
    execute(target_dsn, world.sql("schema"))
    documents = world.sound(world.documents())
    after = world.sound(world.edits(documents))
    with closing(DualWriter(lambda: postgres.connect(target_dsn), catalog=mirrored(module.CATALOG))) as writer:

        def mirror(old: Documents, new: Documents) -> Counter[Outcome]:
            return Counter(
                writer.mirror(
                    path,
                    for_mirror(old.get(path)),
                    for_mirror(new.get(path)),
                    create_time=datetime(2026, 3, 2, tzinfo=UTC),
                )
                for path in {**new, **old}
                if old.get(path) != new.get(path)
            )

        mirror({}, documents)
        assert world.rows(target_dsn) == rows_of(world.wanted(documents), world)
        outcomes = mirror(documents, after)
    assert world.rows(target_dsn) == rows_of(world.wanted(after), world)
    assert not outcomes[Outcome.FAILED] + outcomes[Outcome.TIMED_OUT]


@each_world
def test_a_worlds_draft_imports_and_says_what_it_found(
    firestore, target_dsn, tmp_path, world: World, module: ModuleType
):
    execute(target_dsn, world.sql("schema"))
    put(firestore, {}, world.documents())
    with psycopg.connect(target_dsn) as connection:
        text = draft(firestore, connection, world.name)
    (tmp_path / "draft.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(airflow_home.ROOT / "dags")}
    subprocess.run([sys.executable, str(tmp_path / "draft.py")], check=True, env=environment, timeout=60)
    assert len(load(text).names) > 3
    for line in world.drafted:
        assert line in text, f"{line}\n{text}"
