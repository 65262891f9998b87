"""Open differences without holding all of a collection's, which may be a hundred thousand after an outage: in pages, at some
labels, their labels alone, how many wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

from dualwrite.postgres.connection import Connection
from dualwrite.postgres.remembered.differences import DIFFERENCE, OpenDifference, difference_of

LABELS_AT_ONCE = 5_000


def differences_at(connection: Connection, collection: str, labels: Sequence[str]) -> dict[str, OpenDifference]:
    """What is open at these labels."""
    found: dict[str, OpenDifference] = {}
    for start in range(0, len(labels), LABELS_AT_ONCE):
        rows = connection.execute(
            f"SELECT {DIFFERENCE} FROM dualwrite.open_differences WHERE collection = %s AND key = ANY(%s)",
            (collection, list(labels[start : start + LABELS_AT_ONCE])),
        ).fetchall()
        found.update((d.label, d) for d in map(difference_of, rows))
    return found


def in_pages(
    transaction: Callable[[], AbstractContextManager[Connection]], collection: str, size: int | None = None
) -> Iterator[list[OpenDifference]]:
    """All that is open in a collection, by label, in pages of LABELS_AT_ONCE, each in a transaction of its own. Of what is
    added meanwhile, only what lies after the last label is seen."""
    size, after = size or LABELS_AT_ONCE, ""
    while True:
        with transaction() as connection:
            rows = connection.execute(
                f"SELECT {DIFFERENCE} FROM dualwrite.open_differences WHERE collection = %s AND key > %s ORDER BY key LIMIT %s",
                (collection, after, size),
            ).fetchall()
        page = [difference_of(row) for row in rows]
        if page:
            yield page
            after = page[-1].label
        if len(page) < size:
            return


def excused_differences(connection: Connection, collection: str) -> list[OpenDifference]:
    """What a person accepted, as it was last seen."""
    rows = connection.execute(
        f"SELECT {DIFFERENCE} FROM dualwrite.open_differences WHERE collection = %s AND excused_by IS NOT NULL ORDER BY key",
        (collection,),
    ).fetchall()
    return [difference_of(row) for row in rows]


def own_labels(connection: Connection, collection: str) -> frozenset[str]:
    """Labels of all that is open, but for what is extra only through another document that is gone."""
    rows = connection.execute(
        "SELECT key FROM dualwrite.open_differences WHERE collection = %s AND requires IS NULL", (collection,)
    ).fetchall()
    return frozenset(label for (label,) in rows)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many differences wait for a second look, and how many of them are younger than the grace period."""

    number: int
    young: int


def waiting(connection: Connection, collection: str, run_id: str, grace: timedelta) -> Waiting:
    """What is open and not excused; rejections that this run has counted already are left out."""
    row = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE first_seen > clock_timestamp() - %(grace)s) FROM dualwrite.open_differences "
        "WHERE collection = %(name)s AND excused_by IS NULL AND NOT (verdict = 'rejected' AND run_id = %(run)s)",
        {"name": collection, "run": run_id, "grace": grace},
    ).fetchone()
    assert row is not None
    return Waiting(*row)
