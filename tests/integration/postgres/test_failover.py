"""A failover to a server that has none of the run's commits: the run says so, and the next one finds what was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dualwrite import postgres
from dualwrite.engine.compare_and_set import WritingProtocol
from dualwrite.model.errors import TargetError
from tests import faults
from tests.faults import COLLECTIONS, Broken
from tests.migrating import execute
from tests.support import examine_all, gap_run, verify_all


@pytest.fixture(scope="module")
def broken(emulator, postgres_server):
    with faults.made(emulator, postgres_server) as target:
        yield target


@pytest.fixture(scope="module")
def right(broken) -> Callable[[str], dict[str, list[str]]]:
    return faults.undisturbed(broken.run, broken)


@contextmanager
def _failover(broken: Broken) -> Iterator[tuple[str, Callable[[], str]]]:
    """The DSN of a server, and what puts in its place another one that has nothing of what was committed since."""
    with broken.target() as first, broken.target() as second, pytest.MonkeyPatch.context() as patch:
        real, place = postgres.connect, first

        def connect(dsn, **named):
            return real(place if dsn == first else dsn, **named)

        def fail_over() -> str:
            nonlocal place
            place = second
            name = first.rsplit("/", 1)[1]
            execute(broken.server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            return second

        patch.setattr(postgres, "connect", connect)
        yield first, fail_over


def test_a_failover_between_the_looks_is_told(broken, right):
    """What the first look had kept open is gone, so the second has nothing to look at: that is no proof that all is well."""
    with _failover(broken) as (dsn, fail_over):
        told = broken.run("repair", dsn, between=fail_over)
        assert [
            alert for alert in told.alerts if "was not examined: the target lost what this run had committed" in alert
        ], told
        assert broken.run("repair", dsn).written == 14
        assert faults.rows(fail_over()) == right("repair")


def test_a_failover_before_a_confirmation_is_told(broken, monkeypatch):
    """A journal row that is gone can't be confirmed: its write is gone too, and its number may be another write's by now."""
    with _failover(broken) as (dsn, fail_over):
        real = WritingProtocol.confirm_later

        def later(self, rows, journal_ids, late=()):
            real(self, rows, journal_ids, late)
            if rows:
                fail_over()

        monkeypatch.setattr(WritingProtocol, "confirm_later", later)
        with pytest.raises(TargetError, match="The target lost [1-4] writes that this run had committed"):
            broken.run("backfill", dsn)


def test_a_failover_before_the_verification_is_found(broken, right):
    """The verification compares everything. No watermark moves, and the next run finds what was lost: rows, journal, open
    differences and watermarks are in one database, and go back together."""
    with _failover(broken) as (dsn, fail_over):
        with gap_run(broken.client.project, broken.emulator, dsn, collections=COLLECTIONS, scope="all") as run:
            found = examine_all(run, dry=False)
            second = fail_over()
            before = faults.watermarks(second)
            told = faults.told(found, verify_all(run))
        assert told.alerts == [f"{name} is not_verified" for name in ("posts", "likes")], told
        moved = {name for name, until in faults.watermarks(second).items() if until > before[name]}
        assert moved == {"users", "boards"}
        assert broken.run("backfill", dsn).written == 13
        assert faults.rows(second) == right("backfill")
