"""What each side can see: the table of docs/verification.md, cell by cell."""

from __future__ import annotations

import pytest

from tests.integration.reconcile.world import CHANGES, attempted


@pytest.fixture
def run(run_all):
    """Of every collection: these tests are about whole runs."""
    return run_all


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_the_windows_see_what_the_table_says(change, world, target_dsn, run):
    name, verdict, _, seen, _ = CHANGES[change]
    change(world, target_dsn)
    found = run()
    assert found.counts(name) == ({verdict: 1} if seen else {})
    assert bool(found.alerts) == seen


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_write_ops_show_what_was_attempted(change, world, target_dsn, run):
    name, verdict, operation, _, located = CHANGES[change]
    change(world, target_dsn)
    attempted(target_dsn, operation)
    found = run()
    assert found.counts(name) == ({verdict: 1} if located else {})
    [line] = [c for c in found.report["collections"] if c["collection"] == name]
    assert line["unlocatable"] == (0 if located else 1)


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_a_sweep_sees_everything_and_a_repair_mends_it(change, world, target_dsn, run):
    name, verdict, *_ = CHANGES[change]
    change(world, target_dsn)
    found = run(scope="sweep")
    assert found.counts(name) == {verdict: 1}
    assert len(found.alerts) == 1
    mended = run(repair="all")
    assert mended.alerts == []
    again = run(scope="sweep")
    assert again.alerts == []
    assert again.counts(name) == {}
