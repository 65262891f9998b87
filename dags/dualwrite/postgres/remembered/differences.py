"""The differences that are open, `dualwrite.open_differences`: found, and not known to be gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dualwrite.model.history import OpenKey
from dualwrite.model.named import Named
from dualwrite.model.run_report import OpenLine
from dualwrite.model.verdicts import ENDS_NO_EXCUSE, Excuse, Finding, Verdict, reason_of
from dualwrite.postgres.connection import Connection, Jsonb, sql
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.session import Session
from dualwrite.postgres.text import restored, stored


@dataclass(frozen=True, slots=True)
class OpenDifference:
    """A difference that was found and isn't known to be gone. Times are the target's, UTC."""

    finding: Finding
    """As it was last seen. Its entry, its columns and its cause are not read back: the next look finds them anew."""
    first_seen: datetime
    last_seen: datetime
    """When a look last kept it; `finding` is what that look saw."""
    excuse: Excuse | None
    """What a person accepted; None if it isn't excused."""

    @property
    def label(self) -> str:
        return self.finding.label


AT_ONCE = 5_000
"""Labels that one statement takes, and differences that are held, or sent, at a time: after an outage a hundred thousand may be
open. What is sent together has the time of one statement to be answered."""

_DIFFERENCE = """
verdict, key, CASE WHEN row_key IS NULL THEN NULL ELSE ARRAY(SELECT jsonb_array_elements_text(row_key)) END, path, requires,
reason, fingerprint, first_seen, last_seen, excused_by IS NOT NULL, excused_verdict, excused_finding_reason
"""


def _difference_of(row: Sequence[Any]) -> OpenDifference:
    verdict, label, key, path, requires, reason, fingerprint, first_seen, last_seen, excused, *accepted = row
    finding = Finding(
        Verdict(verdict),
        label,
        restored(path),
        key=None if key is None else tuple(key),
        reason=reason_of(reason),
        fingerprint=fingerprint,
        requires=restored(requires),
    )
    return OpenDifference(finding, first_seen, last_seen, Excuse(*accepted) if excused else None)


def open_differences(connection: Connection, collection: str) -> list[OpenDifference]:
    """All that is open in a collection, the excused ones too, oldest first."""
    rows = connection.execute(
        f"SELECT {_DIFFERENCE} FROM {SCHEMA}.open_differences WHERE collection = %s ORDER BY first_seen, key",
        (collection,),
    ).fetchall()
    return [_difference_of(row) for row in rows]


def differences_at(connection: Connection, collection: str, labels: Sequence[str]) -> dict[str, OpenDifference]:
    """The open differences at these labels."""
    found: dict[str, OpenDifference] = {}
    for start in range(0, len(labels), AT_ONCE):
        rows = connection.execute(
            f"SELECT {_DIFFERENCE} FROM {SCHEMA}.open_differences WHERE collection = %s AND key = ANY(%s)",
            (collection, list(labels[start : start + AT_ONCE])),
        ).fetchall()
        found.update((d.label, d) for d in map(_difference_of, rows))
    return found


def in_pages(
    transaction: Callable[[], AbstractContextManager[Connection]], collection: str, size: int | None = None
) -> Iterator[list[OpenDifference]]:
    """All that is open in a collection, by label, in pages of AT_ONCE, each in a transaction of its own. Of those
    added meanwhile, only those after the last label are seen."""
    size, after = size or AT_ONCE, ""
    while True:
        with transaction() as connection:
            rows = connection.execute(
                f"SELECT {_DIFFERENCE} FROM {SCHEMA}.open_differences WHERE collection = %s AND key > %s ORDER BY key LIMIT %s",
                (collection, after, size),
            ).fetchall()
        page = [_difference_of(row) for row in rows]
        if page:
            yield page
            after = page[-1].label
        if len(page) < size:
            return


def excused_differences(connection: Connection, collection: str) -> list[OpenDifference]:
    """The excused differences, as they were last seen."""
    rows = connection.execute(
        f"SELECT {_DIFFERENCE} FROM {SCHEMA}.open_differences WHERE collection = %s AND excused_by IS NOT NULL ORDER BY key",
        (collection,),
    ).fetchall()
    return [_difference_of(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Known:
    """The open differences of a collection, as a first look needs them."""

    excuses: dict[str, Excuse]
    """The keys whose difference a person accepted, and what the excuse holds for."""
    own_labels: frozenset[str]
    """Labels of all that is open, except rows that are extra only because another document is gone."""
    unsettled: tuple[str, ...]
    """Labels of what was in flight or rejected at the last look and isn't excused, those seen longest ago first."""


_KNOWN = sql.SQL(f"""
    SELECT key, requires IS NULL,
      excused_by IS NULL AND requires IS NULL AND verdict IN ('in_flight', 'rejected') AND run_id IS DISTINCT FROM %(but)s,
      excused_by IS NOT NULL, excused_verdict, excused_finding_reason
    FROM {SCHEMA}.open_differences WHERE collection = %(collection)s ORDER BY last_seen, key
""")


def known(session: Session, collection: str, *, but: str | None = None) -> Known:
    """The open differences of a collection before a look at it, in one round trip. `but`: a run to leave out, whose own looks have
    settled all that they can."""
    rows = session.fetch(_KNOWN, {"collection": collection, "but": but})
    return Known(
        {label: Excuse(*accepted) for label, _, _, excused, *accepted in rows if excused},
        frozenset(label for label, own, *_ in rows if own),
        tuple(label for label, _, unsettled, *_ in rows if unsettled),
    )


def missed_while_off(session: Session, since: datetime) -> dict[str, int]:
    """How many rows are missing in each collection because dual-write was switched off, of those first seen since a moment."""
    return dict(session.fetch(_MISSED_WHILE_OFF, {"since": since}))


_MISSED_WHILE_OFF = sql.SQL(f"""
    SELECT collection, count(*) FROM {SCHEMA}.open_differences
    WHERE cause = 'dual_write_off' AND verdict IN ('missing', 'in_flight') AND first_seen >= %(since)s GROUP BY 1
""")


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many differences wait for a second look, and of how many the first was less than a grace period ago. Drift
    needs no wait: it stays drift until it is gone."""

    number: int
    young: int


def waiting(connection: Connection, collection: str, run_id: str, grace: timedelta) -> Waiting:
    """The open differences that aren't excused, without rejections that this run has counted already."""
    row = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE verdict = 'in_flight' AND last_seen > clock_timestamp() - %(grace)s) "
        f"FROM {SCHEMA}.open_differences WHERE collection = %(name)s AND excused_by IS NULL AND NOT (verdict = 'rejected' AND run_id = %(run)s)",
        {"name": collection, "run": run_id, "grace": grace},
    ).fetchone()
    assert row is not None
    return Waiting(*row)


@dataclass(frozen=True, slots=True)
class Due:
    """The open differences that a run looks at, by collection, and how many must wait for a later one. `undecided` are
    those among the waiting ones that were not looked at twice, so they are no drift yet."""

    differences: dict[str, list[OpenDifference]]
    waiting: dict[str, int]
    undecided: dict[str, int]


def due(connection: Connection, collections: Sequence[str], run_id: str, limit: int) -> Due:
    """At most `limit` differences that aren't excused: first those without a final verdict (of these first the ones that this run
    has looked at once, because two looks of one run decide), then those seen longest ago.

    Rejections that this run has found itself need no second look.
    """
    parameters = {"names": list(collections), "run": run_id, "limit": limit}
    candidates = f"""
        {SCHEMA}.open_differences
        WHERE collection = ANY(%(names)s) AND excused_by IS NULL AND NOT (verdict = 'rejected' AND run_id = %(run)s)
    """
    looked = "ORDER BY verdict <> 'in_flight', verdict = 'in_flight' AND run_id <> %(run)s, last_seen, collection, key"
    rows = connection.execute(
        f"SELECT collection, {_DIFFERENCE} FROM (SELECT * FROM {candidates} {looked} LIMIT %(limit)s) d ORDER BY first_seen, key",
        parameters,
    ).fetchall()
    left = connection.execute(
        "SELECT collection, count(*), count(*) FILTER (WHERE verdict = 'in_flight') "
        f"FROM (SELECT * FROM {candidates} {looked} OFFSET %(limit)s) d GROUP BY 1",
        parameters,
    ).fetchall()
    found = Due({}, {name: number for name, number, _ in left}, {name: undecided for name, _, undecided in left})
    for name, *row in rows:
        found.differences.setdefault(name, []).append(_difference_of(row))
    return found


def named(connection: Connection, collection: str, what: Named) -> list[OpenDifference]:
    """A collection's open differences that are named and not excused."""
    rows = connection.execute(
        f"""
        SELECT {_DIFFERENCE} FROM {SCHEMA}.open_differences
        WHERE collection = %s AND excused_by IS NULL AND (key = ANY(%s) OR verdict = ANY(%s)) ORDER BY first_seen, key
        """,
        (collection, list(what.keys), list(what.verdicts)),
    ).fetchall()
    return [_difference_of(row) for row in rows]


def going_with(connection: Connection, paths: Sequence[str]) -> list[tuple[str | None, str, str]]:
    """Open differences, not excused, that exist only because a document at one of these paths is gone: that path, collection and label."""
    rows = connection.execute(
        f"""
        SELECT requires, collection, key FROM {SCHEMA}.open_differences
        WHERE requires = ANY(%s) AND excused_by IS NULL ORDER BY collection, key
        """,
        ([stored(path) for path in paths],),
    ).fetchall()
    return [(restored(path), name, label) for path, name, label in rows]


def remember(connection: Connection, collection: str, findings: Iterable[Finding], run_id: str) -> None:
    """Records open differences: adds new ones, updates known ones.

    An excuse stays while verdict and reason are those that it was given for; one given in advance holds for these from now
    on. When it ends, another difference begins.
    """
    left = list(findings)
    with connection.cursor() as cursor:
        for start in range(0, len(left), AT_ONCE):
            cursor.executemany(
                _REMEMBER, [_remembered(collection, finding, run_id) for finding in left[start : start + AT_ONCE]]
            )


def _remembered(collection: str, finding: Finding, run_id: str) -> dict[str, Any]:
    cause = finding.cause
    return {
        "collection": collection,
        "label": finding.label,
        "path": stored(finding.path),
        "requires": stored(finding.requires),
        "key": None if finding.key is None else Jsonb([str(part) for part in finding.key]),
        "verdict": finding.verdict,
        "cause": cause.why if cause else None,
        "op_id": cause.op_id if cause else None,
        "op_time": cause.at if cause else None,
        "reason": finding.reason,
        "columns": list(finding.columns),
        "run": run_id,
        "fingerprint": finding.fingerprint,
        "ends_no_excuse": [str(reason) for reason in ENDS_NO_EXCUSE],
    }


_REMEMBER = f"""
INSERT INTO {SCHEMA}.open_differences AS d (
  collection, key, path, requires, row_key, verdict, cause, op_id, op_time, reason, columns, first_seen, last_seen, run_id,
  fingerprint
)
VALUES (
  %(collection)s, %(label)s, %(path)s, %(requires)s, %(key)s, %(verdict)s, %(cause)s, %(op_id)s, %(op_time)s, %(reason)s,
  %(columns)s, clock_timestamp(), clock_timestamp(), %(run)s, %(fingerprint)s
)
ON CONFLICT (collection, key) DO UPDATE SET
  (first_seen, excused_by, excuse_reason, excused_at, excused_verdict, excused_finding_reason) = (
    SELECT
      CASE
        WHEN d.verdict = 'rejected' AND excluded.verdict <> 'rejected' THEN excluded.first_seen
        WHEN d.excused_by IS NULL OR (holds AND d.excused_verdict IS NOT NULL) THEN d.first_seen
        ELSE excluded.first_seen
      END,
      CASE WHEN holds THEN d.excused_by END,
      CASE WHEN holds THEN d.excuse_reason END,
      CASE WHEN holds THEN d.excused_at END,
      CASE WHEN holds THEN excluded.verdict END,
      CASE WHEN holds THEN excluded.reason END
    FROM (
      SELECT d.excused_by IS NOT NULL AND (
        d.excused_verdict IS NULL
        OR (
          d.excused_verdict = excluded.verdict
          -- As Excuse.covers decides.
          AND CASE WHEN d.excused_finding_reason <> ALL(%(ends_no_excuse)s) THEN d.excused_finding_reason END
            IS NOT DISTINCT FROM CASE WHEN excluded.reason <> ALL(%(ends_no_excuse)s) THEN excluded.reason END
        )
      ) AS holds
    ) excuse
  ),
  path = excluded.path, requires = excluded.requires, row_key = coalesce(excluded.row_key, d.row_key),
  verdict = excluded.verdict,
  -- What was missed while dual-write was switched off stays so, and what was open before has its own cause.
  cause = CASE
    WHEN d.cause = 'dual_write_off' AND excluded.cause = 'never_attempted' THEN d.cause
    WHEN d.cause IS NOT NULL AND excluded.cause = 'dual_write_off' THEN d.cause
    ELSE coalesce(excluded.cause, d.cause)
  END,
  op_id = coalesce(excluded.op_id, d.op_id),
  op_time = coalesce(excluded.op_time, d.op_time), reason = excluded.reason, columns = excluded.columns,
  last_seen = excluded.last_seen, run_id = excluded.run_id, fingerprint = excluded.fingerprint
"""


def close(connection: Connection, collection: str, labels: Iterable[str]) -> int:
    """Forgets differences that are gone, with their excuses; returns how many. Their causes stay in the journal, with the
    writes that ended them."""
    gone = list(labels)
    return sum(_close(connection, collection, gone[i : i + AT_ONCE]) for i in range(0, len(gone), AT_ONCE))


def _close(connection: Connection, collection: str, labels: list[str]) -> int:
    # The journal's rows look their difference up one by one, through its key. As a join, the planner is free to compare each
    # with each, and does if the tables have no statistics yet: after an outage, in the run that repairs it.
    return connection.execute(
        f"""
        WITH told AS (
          UPDATE {SCHEMA}.repair_journal j SET row_xmin = coalesce(j.row_xmin, j.xmin::text), cause = (
            SELECT d.cause FROM {SCHEMA}.open_differences d WHERE d.collection = j.collection AND d.key = j.key
          )
          WHERE j.collection = %(collection)s AND j.key = ANY(%(labels)s) AND j.cause IS NULL
            AND j.written_at > now() - interval '2 days'
            AND j.written_at >= (
              SELECT d.first_seen FROM {SCHEMA}.open_differences d
              WHERE d.collection = j.collection AND d.key = j.key AND d.cause IS NOT NULL
            )
        )
        DELETE FROM {SCHEMA}.open_differences WHERE collection = %(collection)s AND key = ANY(%(labels)s)
        """,
        {"collection": collection, "labels": labels},
    ).rowcount


def relabel(connection: Connection, collection: str, prefix: str, label_of: Callable[[tuple[str, ...]], str]) -> None:
    """Gives the open differences of rows (labels with this prefix) the labels that their keys have now: an earlier version
    called some by their content. What a person accepted stays accepted."""
    rows = connection.execute(
        f"SELECT key, ARRAY(SELECT jsonb_array_elements_text(row_key)) FROM {SCHEMA}.open_differences "
        "WHERE collection = %s AND row_key IS NOT NULL AND starts_with(key, %s) AND key !~ '~[0-9a-f]{16}'",
        (collection, prefix),
    ).fetchall()
    changed = {old: label_of(tuple(key)) for old, key in rows}
    for old, new in changed.items():
        if old != new:
            given = {"collection": collection, "old": old, "new": new}
            connection.execute(
                f"UPDATE {SCHEMA}.open_differences SET key = %(new)s WHERE collection = %(collection)s AND key = %(old)s AND NOT "
                f"EXISTS (SELECT FROM {SCHEMA}.open_differences WHERE collection = %(collection)s AND key = %(new)s)",
                given,
            )


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment is not None else None


LISTED = (
    "collection",
    "key",
    "verdict",
    "reason",
    "cause",
    "columns",
    "path",
    "requires",
    "since",
    "excused_by",
    "excuse_reason",
    "excused_at",
)
"""What a list of open differences tells of each, in this order."""


def listed(connection: Connection, limit: int) -> tuple[list[list[Any]], int]:
    """The open differences that are drift or in flight, excused ones last, then the oldest first: at most `limit`, and how many there
    are. Ids, paths and names of columns, no content."""
    rows = connection.execute(
        f"""
        SELECT collection, key, verdict, reason, cause, columns, path, requires, first_seen, excused_by,
          left(excuse_reason, 500), excused_at, count(*) OVER ()
        FROM {SCHEMA}.open_differences WHERE reason IS DISTINCT FROM 'excused_in_advance'
        ORDER BY excused_by IS NOT NULL, first_seen, collection, key LIMIT %s
        """,
        (limit,),
    ).fetchall()
    found = [
        [*row[:5], list(row[5]), restored(row[6]), restored(row[7]), _iso(row[8]), row[9], row[10], _iso(row[11])]
        for row in rows
    ]
    return found, int(rows[0][12]) if rows else 0


def open_keys(connection: Connection, collection: str, labels: Sequence[str]) -> dict[str, OpenKey]:
    """What is open at these labels, as it may be told: ids, paths and names of columns."""
    rows = connection.execute(
        f"""
        SELECT key, verdict, reason, cause, columns, path, first_seen, last_seen, run_id, excused_by, left(excuse_reason, 500), excused_at
        FROM {SCHEMA}.open_differences WHERE collection = %s AND key = ANY(%s)
        """,
        (collection, list(labels)),
    ).fetchall()
    return {
        row[0]: {
            "verdict": row[1],
            "reason": row[2],
            "cause": row[3],
            "columns": list(row[4]),
            "path": restored(row[5]),
            "since": row[6].isoformat(timespec="seconds"),
            "last_seen": row[7].isoformat(timespec="seconds"),
            "run_id": row[8],
            "excused_by": row[9],
            "excuse_reason": row[10],
            "excused_at": _iso(row[11]),
        }
        for row in rows
    }


def open_columns(connection: Connection, most: int) -> dict[str, dict[str, int]]:
    """In how many open stale rows, excused ones left out, each column differs: by collection, the commonest `most` columns of each."""
    rows = connection.execute(
        f"""
        SELECT collection, name, count(*) FROM {SCHEMA}.open_differences, unnest(columns) AS name
        WHERE verdict = 'stale' AND excused_by IS NULL GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2
        """
    ).fetchall()
    found: dict[str, dict[str, int]] = {}
    for collection, name, number in rows:
        columns = found.setdefault(collection, {})
        if len(columns) < most:
            columns[name] = number
    return found


def open_counts(connection: Connection) -> list[OpenLine]:
    """Counts of open differences by collection, verdict, reason, cause and whether they are excused, with the time that the
    first was seen. Rejections' reasons, of which there are many, are left out."""
    rows = connection.execute(
        f"""
        SELECT collection, verdict, CASE WHEN verdict <> 'rejected' THEN reason END, coalesce(cause, 'unknown'),
          excused_by IS NOT NULL, count(*), min(first_seen)
        FROM {SCHEMA}.open_differences GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 4, 5, 3
        """
    ).fetchall()
    return [
        {
            "collection": collection,
            "verdict": verdict,
            "reason": reason,
            "cause": cause,
            "excused": excused,
            "number": number,
            "since": since.isoformat(),
        }
        for collection, verdict, reason, cause, excused, number, since in rows
    ]
