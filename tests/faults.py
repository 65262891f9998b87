"""A small world that two kinds of runs mend, on copies of one target, and what is right at their end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psycopg
from google.cloud import firestore

from tests.databases import clone
from tests.kept import forget
from tests.support import apply, examine_all, gap_run, one, reconciled, verify_all
from tests.worlds import comment, discussion, like, post, put

COLLECTIONS = ["users", "boards", "posts", "comments", "likes"]
RUNS = ("backfill", "repair")
"""Each mends what is wrong: the first what is missing or stale in its window, the second what is extra too."""


@dataclass(frozen=True)
class Broken:
    """Documents, and on `server` a database `name` whose rows differ from them. Nobody connects to that: it is copied."""

    client: firestore.Client
    emulator: str
    server: str
    name: str

    @contextmanager
    def target(self) -> Iterator[str]:
        """A copy of the target as it is before any run."""
        yield from clone(self.server, self.name)

    def run(self, kind: str, dsn: str, **changes: Any) -> Told:
        """One whole run. Raises what a task would end with; what a reconciliation tells is in the alerts."""
        if kind == "backfill":
            with gap_run(
                self.client.project, self.emulator, dsn, collections=COLLECTIONS, scope="all", **changes
            ) as run:
                found = examine_all(run, dry=False)
                checked = verify_all(run)
            return told(found, checked)
        ended = reconciled(
            self.client.project,
            self.emulator,
            dsn,
            collections=COLLECTIONS,
            repair="all",
            liveness_minimum=10**6,
            **changes,
        )
        lines = ended.report["collections"]
        assert not any(c["counts"]["rejected"] for c in lines)
        return Told(sum(_written(c) for c in lines), ended.alerts)


def told(found: Mapping[str, Any], checked: Mapping[str, Any]) -> Told:
    """What a backfill did, and what it would fail with."""
    assert not any(c["counts"]["rejected"] for c in (*found.values(), *checked.values()))
    alerts = [f"{name} is {c['verification']}" for name, c in checked.items() if c["verification"] != "verified"]
    return Told(sum(map(_written, found.values())), [a for a in alerts if a != "comments is not_verified"])


def _written(c: Mapping[str, Any]) -> int:
    return int(c["inserted"] + c["updated"] + c["deleted"] + c["parents_inserted"])


@dataclass(frozen=True)
class Told:
    """How many rows a run wrote, and what it tells that is left. A backfill deletes nothing, so an extra comment is left."""

    written: int
    alerts: list[str]


@contextmanager
def made(emulator: str, server: str) -> Iterator[Broken]:
    """`broken`, with a project of its own. One for all tests of a file: no run writes documents, and each works on a copy of
    the target."""
    with (
        closing(firestore.Client(project=f"t{uuid.uuid4().hex[:12]}")) as client,
        broken(client, emulator, server) as target,
    ):
        yield target


def undisturbed(whole_run: Callable[[str, str], Told], target: Broken) -> Callable[[str], dict[str, list[str]]]:
    """By kind of run, the rows after one that nothing disturbs."""

    @cache
    def after(kind: str) -> dict[str, list[str]]:
        with target.target() as dsn:
            assert whole_run(kind, dsn).alerts == []
            return rows(dsn)

    return after


@contextmanager
def broken(client: firestore.Client, emulator: str, server: str) -> Iterator[Broken]:
    """Of six posts four have no row and one an old one; so it is with what is below them. A comment's delete was lost."""
    with contextmanager(clone)(server, "migrated") as dsn:
        discussion(client, emulator, dsn)
        put(client, {"boards/b1/posts/p1/comments/gone": comment()})
        apply(client.project, emulator, dsn, scope="all", collections=["comments"])
        client.document("boards/b1/posts/p1/comments/gone").delete()
        now = datetime.now(UTC)
        client.document("boards/b1/posts/p1").update({"title": "edited", "updatedAt": now})
        put(client, {f"boards/b1/posts/n{i}": post(updatedAt=now) for i in range(4)})
        put(client, {f"boards/b1/posts/n{i}/comments/nc{i}": comment(createdAt=now) for i in range(4)})
        put(client, {f"boards/b1/posts/n{i}/likes/nl{i}": like(createdAt=now) for i in range(4)})
        with psycopg.connect(dsn) as connection:  # what came before leaves no trace of its own
            connection.execute("TRUNCATE dualwrite.repair_journal, dualwrite.runs, dualwrite.open_differences")
            connection.execute("UPDATE dualwrite.watermarks SET swept_at = swept_at - interval '25 hours'")
        forget(dsn)  # nobody may use a database while it is copied
        yield Broken(client, emulator, server, dsn.rsplit("/", 1)[1])


def rows(dsn: str) -> dict[str, list[str]]:
    """Every row of the run's tables, as text."""
    with psycopg.connect(dsn) as connection:
        return {
            table: [text for (text,) in connection.execute(f"SELECT t::text FROM {table} t ORDER BY 1")]
            for table in COLLECTIONS
        }


def watermarks(dsn: str) -> dict[str, datetime]:
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute("SELECT collection, examined_until FROM dualwrite.watermarks").fetchall())


def unconfirmed(dsn: str) -> int:
    return int(one(dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL"))
