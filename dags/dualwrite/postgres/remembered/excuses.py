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
from dualwrite.postgres.own_statements import own_statements

_SQL = own_statements(__file__)
_EXCUSES_OF = _SQL["excuses_of"]
_EXCUSES_AMONG = _SQL["excuses_among"]
_IS_OPEN = _SQL["is_open"]
_EXCUSE_ALL = _SQL["excuse_all"]
_EXCUSE = _SQL["excuse"]
_FORGET_EXCUSED_IN_ADVANCE = _SQL["forget_excused_in_advance"]
_UNEXCUSE = _SQL["unexcuse"]
_LATEST = _SQL["latest"]


def excuses_of(connection: Connection, collection: str) -> dict[str, Excuse]:
    """The excuses of a collection, by label."""
    rows = connection.execute(_EXCUSES_OF, {"collection": collection}).fetchall()
    return {label: Excuse(verdict, finding_reason) for label, verdict, finding_reason in rows}


def excuses_among(connection: Connection, collection: str, labels: Sequence[str]) -> dict[str, Excuse]:
    """The excuses at these labels, by label. Ask in each writing transaction: an excused difference is never repaired, and it may
    have been excused since the run began."""
    rows = connection.execute(_EXCUSES_AMONG, {"collection": collection, "labels": list(labels)}).fetchall()
    return {label: Excuse(verdict, finding_reason) for label, verdict, finding_reason in rows}


def excuse(
    connection: Connection,
    named: Iterable[tuple[str, str]],
    *,
    by: str,
    reason: str,
    run_id: str,
    asked_at: datetime | None = None,
) -> dict[str, int]:
    """Accepts differences, each named as (collection, key): while verdict and reason stay, they are counted as excused and are no
    drift. `by`: the person, or the run; `asked_at`: when they asked. A difference that was first seen later can't have been meant (a
    run may be cleared and run again weeks later).

    The key `*` stands for all open drift of the collection, a verdict for all differences with it (see model/named.py). A key that
    isn't open, or that is in flight, is excused for the first drift that is seen there. Returns how many were excused, by
    collection. Raises ParameterError as `refuse_ambiguous` does.
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
        given = {"collection": collection, "key": word}
        if word in VERDICTS and connection.execute(_IS_OPEN, given).fetchone():
            raise ParameterError(
                f"{collection}:{word} could mean all that is {word}, or the open difference whose key is {word}. Name the "
                f"others by key, or all with {collection}:*.",
                code="excuse-ambiguous",
            )


def unexcuse(connection: Connection, named: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Takes excuses back (`*`: all of a collection; a verdict: all that were given for it). The differences are drift again; an
    excuse given in advance is removed. Returns how many were taken back, by collection. Raises ParameterError as
    `refuse_ambiguous` does."""
    number: Counter[str] = Counter()
    named = list(named)
    refuse_ambiguous(connection, named)
    for collection, key in named:
        parameters = {"collection": collection, "key": key}
        number[collection] += connection.execute(_FORGET_EXCUSED_IN_ADVANCE, parameters).rowcount
        number[collection] += connection.execute(_UNEXCUSE, parameters).rowcount
    return {name: n for name, n in number.items() if n}


def latest(connection: Connection, limit: int) -> list[GivenExcuse]:
    """The differences that a person accepted, the latest first: who, why and since when. Long keys and reasons are cut,
    with an ellipsis: reports are kept small."""
    rows = connection.execute(_LATEST, {"limit": limit}).fetchall()
    return [
        {
            "collection": collection,
            "key": key,
            "verdict": verdict,
            "by": by,
            "reason": excuse_reason,
            "since": since.isoformat(timespec="seconds"),
        }
        for collection, key, verdict, by, excuse_reason, since in rows
    ]
