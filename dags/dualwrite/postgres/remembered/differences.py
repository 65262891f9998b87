"""The open differences, `dualwrite.open_differences`: seen, and not known to be gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

from dualwrite.model.history import OpenKey
from dualwrite.model.named import Named
from dualwrite.model.run_report import OpenLine
from dualwrite.model.verdicts import ENDS_NO_EXCUSE, Excuse, Finding, Verdict, reason_of
from dualwrite.postgres.connection import Connection, Jsonb, class_row, dict_row, sql
from dualwrite.postgres.own_statements import own_statements
from dualwrite.postgres.session import Session
from dualwrite.postgres.text import restored, stored

_SQL = own_statements(__file__)
_DIFFERENCES_AT = _SQL["differences_at"]
_IN_PAGES = _SQL["in_pages"]
_EXCUSED = _SQL["excused"]
_NAMED = _SQL["named"]
_DUE = _SQL["due"]
_NOT_DUE = _SQL["not_due"]
_KNOWN = _SQL["known"]
_MISSED_WHILE_OFF = _SQL["missed_while_off"]
_WAITING = _SQL["waiting"]
_GOING_WITH = _SQL["going_with"]
_REMEMBER = _SQL["remember"]
_CLOSE = _SQL["close"]
_WITH_ROW_KEYS = _SQL["with_row_keys"]
_RELABEL = _SQL["relabel"]
_LISTED = _SQL["listed"]
_OPEN_KEYS = _SQL["open_keys"]
_OPEN_COLUMNS = _SQL["open_columns"]
_OPEN_COUNTS = _SQL["open_counts"]


@dataclass(frozen=True, slots=True)
class OpenDifference:
    """A difference that was seen and isn't known to be gone. Times are the target's, UTC."""

    finding: Finding
    """As it was last seen, without its entry, its columns and its cause: the next look finds them anew."""
    first_seen: datetime
    last_seen: datetime
    """When a look last recorded it; `finding` is that look's."""
    excuse: Excuse | None
    """The excuse that a person gave; None if it isn't excused."""

    @property
    def label(self) -> str:
        return self.finding.label


AT_ONCE = 5_000
"""Labels that one statement takes, and differences that are held, or sent, at a time: after an outage a hundred thousand may be
open. All that is sent together must be answered in the time of one statement."""


class _Line(NamedTuple):
    """A line of `open_differences`, as far as another look at it needs it."""

    label: str
    verdict: str
    row_key: list[str] | None
    path: str | None
    requires: str | None
    reason: str | None
    fingerprint: str | None
    first_seen: datetime
    last_seen: datetime
    excused_by: str | None
    excused_verdict: str | None
    excused_finding_reason: str | None
    collection: str = ""
    """Empty if the statement reads one collection."""

    def difference(self) -> OpenDifference:
        finding = Finding(
            Verdict(self.verdict),
            self.label,
            restored(self.path),
            key=None if self.row_key is None else tuple(self.row_key),
            reason=reason_of(self.reason),
            fingerprint=self.fingerprint,
            requires=restored(self.requires),
        )
        excuse = Excuse(self.excused_verdict, self.excused_finding_reason) if self.excused_by is not None else None
        return OpenDifference(finding, self.first_seen, self.last_seen, excuse)


def _lines(connection: Connection, statement: sql.SQL, parameters: Mapping[str, object]) -> list[_Line]:
    with connection.cursor(row_factory=class_row(_Line)) as cursor:
        return cursor.execute(statement, parameters).fetchall()


def _differences(connection: Connection, statement: sql.SQL, **parameters: object) -> list[OpenDifference]:
    return [line.difference() for line in _lines(connection, statement, parameters)]


def differences_at(connection: Connection, collection: str, labels: Sequence[str]) -> dict[str, OpenDifference]:
    """The open differences at these labels."""
    differences: dict[str, OpenDifference] = {}
    for start in range(0, len(labels), AT_ONCE):
        part = list(labels[start : start + AT_ONCE])
        differences.update(
            (d.label, d) for d in _differences(connection, _DIFFERENCES_AT, collection=collection, labels=part)
        )
    return differences


def in_pages(
    transaction: Callable[[], AbstractContextManager[Connection]], collection: str, size: int | None = None
) -> Iterator[list[OpenDifference]]:
    """All open differences of a collection, the excused too, by label, in pages of AT_ONCE, each in a transaction of its own. Of
    those added meanwhile, only those after the last label are seen."""
    size, after = size or AT_ONCE, ""
    while True:
        with transaction() as connection:
            page = _differences(connection, _IN_PAGES, collection=collection, after=after, size=size)
        if page:
            yield page
            after = page[-1].label
        if len(page) < size:
            return


def excused_differences(connection: Connection, collection: str) -> list[OpenDifference]:
    """The excused differences, as they were last seen."""
    return _differences(connection, _EXCUSED, collection=collection)


@dataclass(frozen=True, slots=True)
class Known:
    """The open differences of a collection, as a first look needs them."""

    excuses: dict[str, Excuse]
    """By label, the excuses that a person gave."""
    own_labels: frozenset[str]
    """Labels of all open differences, except rows that are extra only because another document is gone."""
    unsettled: tuple[str, ...]
    """Labels of differences that were in flight or rejected at the last look and aren't excused, those seen longest ago first."""


def known(session: Session, collection: str, *, but: str | None = None) -> Known:
    """The open differences of a collection before a look at it, in one round trip. `but`: a run whose own looks have settled all that
    they can; the differences that it saw last are not `unsettled`."""
    rows = session.fetch(_KNOWN, {"collection": collection, "but": but})
    return Known(
        {label: Excuse(*accepted) for label, _, _, excused, *accepted in rows if excused},
        frozenset(label for label, own, *_ in rows if own),
        tuple(label for label, _, unsettled, *_ in rows if unsettled),
    )


def missed_while_off(session: Session, since: datetime) -> dict[str, int]:
    """How many rows are missing in each collection because dual-write was switched off, of those first seen since a moment."""
    return dict(session.fetch(_MISSED_WHILE_OFF, {"since": since}))


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many differences wait for a second look, and how many of these (`young`) had their first less than a grace period ago.
    Drift needs no wait: it stays drift until it is gone."""

    number: int
    young: int


def waiting(connection: Connection, collection: str, run_id: str, grace: timedelta) -> Waiting:
    """The open differences that aren't excused, without rejections that this run has counted already."""
    with connection.cursor(row_factory=class_row(Waiting)) as cursor:
        counts = cursor.execute(_WAITING, {"collection": collection, "run": run_id, "grace": grace}).fetchone()
    assert counts is not None
    return counts


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

    This run's own rejections need no second look.
    """
    given = {"names": list(collections), "run": run_id, "limit": limit}
    lines = _lines(connection, _DUE, given)
    left = connection.execute(_NOT_DUE, given).fetchall()
    differences: dict[str, list[OpenDifference]] = {}
    for line in lines:
        differences.setdefault(line.collection, []).append(line.difference())
    return Due(
        differences, {name: number for name, number, _ in left}, {name: undecided for name, _, undecided in left}
    )


def named(connection: Connection, collection: str, names: Named) -> list[OpenDifference]:
    """A collection's open differences that are named and not excused."""
    return _differences(
        connection, _NAMED, collection=collection, labels=list(names.keys), verdicts=list(names.verdicts)
    )


def going_with(connection: Connection, paths: Sequence[str]) -> list[tuple[str | None, str, str]]:
    """Open differences, not excused, that exist only because a document at one of these paths is gone: that path, the collection and
    the label."""
    rows = connection.execute(_GOING_WITH, {"paths": [stored(path) for path in paths]}).fetchall()
    return [(restored(path), name, label) for path, name, label in rows]


def remember(connection: Connection, collection: str, findings: Iterable[Finding], run_id: str) -> None:
    """Records open differences: adds new ones, updates known ones.

    An excuse stays while verdict and reason are those for which it was given; one given in advance holds for these from now on.
    When it ends, another difference begins.
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


def close(connection: Connection, collection: str, labels: Iterable[str]) -> int:
    """Forgets differences that are gone, with their excuses; returns how many. Their causes stay in the journal, with the
    writes that ended them."""
    gone = list(labels)
    return sum(
        connection.execute(_CLOSE, {"collection": collection, "labels": gone[i : i + AT_ONCE]}).rowcount
        for i in range(0, len(gone), AT_ONCE)
    )


def relabel(connection: Connection, collection: str, prefix: str, label_of: Callable[[tuple[str, ...]], str]) -> None:
    """Gives the open differences of rows (labels with this prefix) the labels that their keys have now: an earlier version
    called some by their content. Their excuses stay."""
    rows = connection.execute(_WITH_ROW_KEYS, {"collection": collection, "prefix": prefix}).fetchall()
    changed = {old: label_of(tuple(key)) for old, key in rows}
    for old, new in changed.items():
        if old != new:
            connection.execute(_RELABEL, {"collection": collection, "old": old, "new": new})


def _reported(row: dict[str, Any]) -> dict[str, Any]:
    """A line as a report has it: paths as they are in Firestore, times as text, to the second."""
    line = {n: v.isoformat(timespec="seconds") if isinstance(v, datetime) else v for n, v in row.items()}
    return line | {n: restored(line[n]) for n in ("path", "requires") if n in line}


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
"""The fields of each line in a list of open differences, in this order."""


def listed(connection: Connection, limit: int) -> tuple[list[list[Any]], int]:
    """The open differences, excused ones last, then the oldest first: at most `limit`, each as LISTED, and how many there are. Ids,
    paths and names of columns, no content."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_LISTED, {"limit": limit}).fetchall()
    number = rows[0]["number"] if rows else 0
    return [[line[name] for name in LISTED] for line in map(_reported, rows)], number


def open_keys(connection: Connection, collection: str, labels: Sequence[str]) -> dict[str, OpenKey]:
    """The open differences at these labels, by label: ids, paths and names of columns, no content."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_OPEN_KEYS, {"collection": collection, "labels": list(labels)}).fetchall()
    return {row.pop("key"): cast("OpenKey", _reported(row)) for row in rows}


def open_columns(connection: Connection, most: int) -> dict[str, dict[str, int]]:
    """In how many open stale rows, excused ones left out, each column differs: by collection, the commonest `most` columns of each."""
    rows = connection.execute(_OPEN_COLUMNS).fetchall()
    by_collection: dict[str, dict[str, int]] = {}
    for collection, name, number in rows:
        columns = by_collection.setdefault(collection, {})
        if len(columns) < most:
            columns[name] = number
    return by_collection


def open_counts(connection: Connection) -> list[OpenLine]:
    """Counts of open differences by collection, verdict, reason, cause and whether they are excused, with the time at which the
    first was seen. Rejections' reasons, of which there are many, are left out."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_OPEN_COUNTS).fetchall()
    return [cast("OpenLine", {**row, "since": row["since"].isoformat()}) for row in rows]
