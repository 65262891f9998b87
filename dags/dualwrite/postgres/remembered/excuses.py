"""Excuses: differences that a person accepted. They stand beside the difference, in `dualwrite.open_differences`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from dualwrite.model.errors import ParameterError
from dualwrite.model.named import VERDICTS
from dualwrite.model.run_report import GivenExcuse
from dualwrite.model.verdicts import DRIFT, Excuse
from dualwrite.postgres.connection import Connection
from dualwrite.postgres.own_schema import SCHEMA


def excuses_of(connection: Connection, collection: str) -> dict[str, Excuse]:
    """The keys of this collection whose difference a person accepted, and what the excuse holds for."""
    rows = connection.execute(
        f"""
        SELECT key, excused_verdict, excused_finding_reason FROM {SCHEMA}.open_differences
        WHERE collection = %s AND excused_by IS NOT NULL
        """,
        (collection,),
    ).fetchall()
    return {key: Excuse(verdict, reason) for key, verdict, reason in rows}


def excuses_among(connection: Connection, collection: str, labels: Sequence[str]) -> dict[str, Excuse]:
    """The excuses of these keys. To be asked in each writing transaction: an excused difference is
    never repaired, and it may have been excused since the run began."""
    rows = connection.execute(
        f"""
        SELECT key, excused_verdict, excused_finding_reason FROM {SCHEMA}.open_differences
        WHERE collection = %s AND key = ANY(%s) AND excused_by IS NOT NULL
        """,
        (collection, list(labels)),
    ).fetchall()
    return {key: Excuse(verdict, reason) for key, verdict, reason in rows}


def excuse(
    connection: Connection,
    named: Iterable[tuple[str, str]],
    *,
    by: str,
    reason: str,
    run_id: str,
    asked_at: datetime | None = None,
) -> dict[str, int]:
    """Accepts differences: while verdict and reason stay, they are counted as excused and are no drift. `by` is who, or
    which run; `asked_at` when they asked: a difference that was first seen later can't have been meant (a run may be cleared
    and run again weeks later).

    The key `*` stands for all drift that is open in the collection, a verdict for all with that one (see model/named.py). A
    key that isn't open, or that is in flight, is excused for the first drift that is found there. Returns how many were, by
    collection.
    """
    number: Counter[str] = Counter()
    named = list(named)
    refuse_ambiguous(connection, named)
    for collection, key in named:
        parameters = {
            "collection": collection,
            "key": key,
            "by": by,
            "why": reason,
            "run": run_id,
            "asked": asked_at,
            "drift": [key] if key in VERDICTS else [str(v) for v in DRIFT],
        }
        number[collection] += connection.execute(
            _EXCUSE_ALL if key == "*" or key in VERDICTS else _EXCUSE, parameters
        ).rowcount
    return {name: n for name, n in number.items() if n}


def refuse_ambiguous(connection: Connection, named: Iterable[tuple[str, str]]) -> None:
    """Raises ParameterError if a verdict's name is also the key of an open difference: the excuse would cover more than was
    meant."""
    for collection, word in named:
        asked = f"SELECT 1 FROM {SCHEMA}.open_differences WHERE collection = %s AND key = %s"
        if word in VERDICTS and connection.execute(asked, (collection, word)).fetchone():
            raise ParameterError(
                f"{collection}:{word} could mean all that is {word}, or the open difference whose key is {word}. Name the "
                f"others by key, or all with {collection}:*.",
                code="excuse-ambiguous",
            )


_EXCUSE_ALL = f"""
UPDATE {SCHEMA}.open_differences
SET excused_by = %(by)s, excuse_reason = %(why)s, excused_at = now(), excused_verdict = verdict, excused_finding_reason = reason
WHERE collection = %(collection)s AND excused_by IS NULL AND verdict = ANY(%(drift)s)
  AND first_seen <= coalesce(%(asked)s::timestamptz, first_seen)
"""
_EXCUSE = f"""
INSERT INTO {SCHEMA}.open_differences AS d (
  collection, key, verdict, reason, first_seen, last_seen, run_id, excused_by, excuse_reason, excused_at
)
VALUES (%(collection)s, %(key)s, 'in_flight', 'excused_in_advance', now(), now(), %(run)s, %(by)s, %(why)s, now())
ON CONFLICT (collection, key) DO UPDATE SET
  excused_by = excluded.excused_by, excuse_reason = excluded.excuse_reason, excused_at = excluded.excused_at,
  excused_verdict = CASE WHEN d.verdict = ANY(%(drift)s) THEN d.verdict END,
  excused_finding_reason = CASE WHEN d.verdict = ANY(%(drift)s) THEN d.reason END
WHERE d.first_seen <= coalesce(%(asked)s::timestamptz, d.first_seen)
"""


def unexcuse(connection: Connection, named: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Takes excuses back (`*`: all of a collection; a verdict: all of those given for it). The differences are drift again; an
    excuse of a difference that was never found is removed. Returns how many were, by collection."""
    number: Counter[str] = Counter()
    named = list(named)
    refuse_ambiguous(connection, named)
    for collection, key in named:
        parameters = {"collection": collection, "key": key}
        number[collection] += connection.execute(_FORGET_EXCUSED_IN_ADVANCE, parameters).rowcount
        number[collection] += connection.execute(_UNEXCUSE, parameters).rowcount
    return {name: n for name, n in number.items() if n}


_FORGET_EXCUSED_IN_ADVANCE = f"""
DELETE FROM {SCHEMA}.open_differences
WHERE collection = %(collection)s AND (key = %(key)s OR %(key)s = '*') AND excused_by IS NOT NULL
  AND verdict = 'in_flight' AND reason = 'excused_in_advance'
"""
_UNEXCUSE = f"""
UPDATE {SCHEMA}.open_differences
SET excused_by = NULL, excuse_reason = NULL, excused_at = NULL, excused_verdict = NULL, excused_finding_reason = NULL
WHERE collection = %(collection)s AND (key = %(key)s OR %(key)s = '*' OR excused_verdict = %(key)s) AND excused_by IS NOT NULL
"""


def latest(connection: Connection, limit: int) -> list[GivenExcuse]:
    """The differences that a person accepted, the latest first: who, why and since when. Long keys and reasons are cut,
    with an ellipsis: reports are kept small."""
    rows = connection.execute(
        f"""
        SELECT collection, CASE WHEN length(key) > 120 THEN left(key, 119) || '…' ELSE key END, verdict, excused_by,
          CASE WHEN length(excuse_reason) > 120 THEN left(excuse_reason, 119) || '…' ELSE excuse_reason END, excused_at
        FROM {SCHEMA}.open_differences
        WHERE excused_by IS NOT NULL
        ORDER BY excused_at DESC, collection, key
        LIMIT %s
        """,
        (limit,),
    ).fetchall()
    return [
        {
            "collection": collection,
            "key": key,
            "verdict": verdict,
            "by": by,
            "reason": reason,
            "since": since.isoformat(timespec="seconds"),
        }
        for collection, key, verdict, by, reason, since in rows
    ]
