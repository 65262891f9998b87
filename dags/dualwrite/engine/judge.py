"""Judges mapped documents against rows: one verdict for each, and, in the same transaction, the writes it calls for.

Facts that the target doesn't have (required documents, the owner of a row) are read from the source between two
transactions, never inside one (WritingProtocol.judge). Then the page is compared again, until nothing is unknown.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from dualwrite import postgres
from dualwrite.engine.classify import classify, finding_of, is_insertable, is_updatable
from dualwrite.engine.inserts import Claims, write_in_turn
from dualwrite.engine.job import Job
from dualwrite.engine.parents import Required
from dualwrite.engine.staged_rows import StagedRows
from dualwrite.engine.units import Policy, Unit
from dualwrite.engine.whereabouts import Unknown, Whereabouts
from dualwrite.model.errors import TargetError
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Refusal, Row, without
from dualwrite.model.verdicts import Finding, Reason, Verdict
from dualwrite.postgres.bad_rows import Refused
from dualwrite.postgres.promises import Promises, claimant
from dualwrite.postgres.remembered import excuses
from dualwrite.postgres.target import Comparison, Difference, Write

log = logging.getLogger(__name__)

ATTEMPTS = 10
LONGEST_PAUSE_SECONDS = 5.0
"""The longest pause between two attempts."""
_REMEDY = "Find out who holds locks (pg_stat_activity), and whether the server is up; then run again."


@dataclass(frozen=True, slots=True)
class Judged:
    """A page judged, by numbers in it: the findings on rows that do not match, and the journal ids of rows written.

    A finding of None: other documents may share this row's key; it is settled once all of them are known.
    `obstacles`: constraints that refused rows and may accept them at another look, see `Refused.passing`, `own_table` and
    `may_be_freed`.
    """

    findings: dict[int, Finding | None]
    journal: dict[int, int]
    obstacles: dict[int, Refused] = field(default_factory=dict)
    derived_lag: int = 0
    """Rows that match and whose derived columns lag."""
    late: frozenset[int] = frozenset()
    """Inserted rows with nulls in place of references to rows that aren't there yet."""
    others: Sequence[tuple[int, Key]] = ()
    """See `Comparison.others`."""

    @property
    def inserted(self) -> int:
        """How many rows were inserted; the others in `journal` were updated."""
        return sum(1 for n in self.journal if _is(self.findings.get(n), Verdict.MISSING))


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A page that can't be judged yet: facts to read from the source first, or rows, by number, that replace rows which name
    documents that are gone."""

    unknown: Unknown | None
    nulled: dict[int, Row]


class Judge:
    """Judges the documents of one collection in one run."""

    def __init__(self, job: Job, whereabouts: Whereabouts) -> None:
        self._job = job
        self._whereabouts = whereabouts
        self._late = frozenset(c.name for c in job.collection.references if c.late)
        self._held = {c.name for c in job.collection.columns if c.via is not None}
        self._claims = Claims(whereabouts.uniques)
        self.promises = Promises()

    def judge(
        self, page: StagedRows, policy: Policy, expected: Mapping[Key, str | None] | None = None
    ) -> Judged | Unsettled:
        """The verdicts of a page and its writes, in one transaction.

        `expected`: the rows' versions (xmin), read before the documents. With it, stale rows are updated too, if their
        version is still the same, and the rows are known to own their keys. Raises postgres.Error.
        """
        with self._job.target.transaction() as connection:
            comparison = self._job.target.compare_staged(
                connection, self._job.collection, page.staged, page.__getitem__
            )
            differences = [self._as_promised(d) for d in comparison.differences]
            comparison = replace(comparison, differences=differences)
            nulling = self._nulling(connection) if differences else frozenset()
            required = {d.n: self._whereabouts.required(d, nulling) for d in differences}
            left = self._left_with_parents(connection, differences) if policy.insert else frozenset()
            required.update({n: [] for n in left})
            if (unknown := self._whereabouts.unknown(differences, required)) is not None:
                return Unsettled(unknown, {})
            if nulled := self._nulled(differences, nulling):
                return Unsettled(None, nulled)
            for difference in differences:  # they may no longer want the places that an earlier look promised them
                self.release(difference.row)
            judged = self._settle(connection, page, comparison, required, policy, expected, left)
            for difference in differences if not policy.writes else ():
                finding = judged.findings.get(difference.n)
                if finding is not None and finding.reason is Reason.UNIQUE_KEY_HELD_BY_STALE_ROW:
                    self.promises.stay_behind(difference.row, difference.holders)
        if policy.insert:
            self._claims.clear()  # the target's own unique keys hold them from now on
        return judged

    def _as_promised(self, difference: Difference) -> Difference:
        """A difference without the holders of unique keys that this look would have updated by now: who has these keys then is
        among the claims."""
        moved = self.promises.moved
        if not moved or not any(key in moved for key in difference.holders):
            return difference
        return replace(difference, holders=tuple(None if key in moved else key for key in difference.holders))

    def release(self, row: Row | Unit) -> None:
        """See WritingProtocol.release."""
        self._claims.release(row)
        self.promises.release(row)

    # --- documents that are gone, and may be null -------------------------------------------------------------------------

    def _nulling(self, connection: postgres.Connection) -> frozenset[str]:
        """The reference columns that become null if the document that they name is gone."""
        if not any(c.may_become_null for c in self._job.collection.references):
            return frozenset()
        return self._job.target.nulling(connection, self._job.collection)

    def _nulled(self, differences: Iterable[Difference], nulling: frozenset[str]) -> dict[int, Row]:
        """Rows that name documents which are gone, with nulls in these columns, by number."""
        gone = ((d, self._whereabouts.gone_columns(d.row, nulling)) for d in differences if nulling)
        return {d.n: without(d.row, columns) for d, columns in gone if columns}

    def without_gone(self, row: Row, gone: str | None) -> Row:
        """The row with nulls in the columns that name the document at path `gone`; unchanged if that is None."""
        if gone is None:
            return row
        with self._job.target.transaction() as connection:
            nulling = self._nulling(connection)
        return without(row, self._whereabouts.columns_naming(row, gone, nulling))

    # --- inside the comparison's transaction ----------------------------------------------------------------------------

    def _settle(
        self,
        connection: postgres.Connection,
        rows: StagedRows,
        comparison: Comparison,
        required: Mapping[int, Sequence[Required]],
        policy: Policy,
        expected: Mapping[Key, str | None] | None,
        left: frozenset[int],
    ) -> Judged:
        """Decides every difference, and writes. `left`: see `_left_with_parents`."""
        findings: dict[int, Finding | None] = {
            n: finding_of(Verdict.REJECTED, rows[n], None, reason=Refusal(why.text)) for n, why in comparison.refused
        }
        insertable: list[Difference] = []
        updatable: list[Difference] = []
        for difference in comparison.differences:
            if difference.exists and not self._job.collection.keyed_by_path and expected is None:
                findings[difference.n] = None
                continue
            finding = classify(difference, self._whereabouts.circumstances(difference, required[difference.n]))
            if difference.n in left and is_insertable(finding):
                finding = replace(finding, reason=Reason.PARENT_MISSING)
            findings[difference.n] = finding
        findings.update(self._excused(connection, findings))
        for difference in comparison.differences:
            if (settled := findings[difference.n]) is None:
                continue
            if is_insertable(settled):
                insertable.append(difference)
            elif is_updatable(settled):
                updatable.append(difference)
        inserts, losers = write_in_turn(
            self._claims, insertable, lambda part: self._insert(connection, rows, part, policy, expected)
        )
        updates = self._update(connection, updatable, policy, expected)
        for d in losers:
            self.promises.lose(d.row)
            findings[d.n] = finding_of(Verdict.DUPLICATE, d.row, d, reason=Reason.UNIQUE_KEY_TAKEN)
        for n in updates.unmade:
            findings[n] = replace(cast("Finding", findings[n]), reason=Reason.CHANGED_BY_TABLE)
        refused = {**inserts.refused, **updates.refused}
        for n, why in refused.items():
            if (
                not why.passing
            ):  # else a parent's row has just vanished, or a client took the key: it is looked at again
                findings[n] = finding_of(Verdict.REJECTED, rows[n], None, reason=Refusal(why.text))
        obstacles = {n: w for n, w in refused.items() if w.passing or w.own_table or w.may_be_freed}
        lag = comparison.derived_lag if expected is None else 0
        written = {**inserts.journal, **updates.journal}
        return Judged(
            dict(sorted(findings.items())), written, obstacles, lag, frozenset(inserts.late), comparison.others
        )

    def _left_with_parents(self, connection: postgres.Connection, differences: Iterable[Difference]) -> frozenset[int]:
        """Numbers of missing rows that were excused while rows that they need were missing too. These needed rows aren't
        inserted for them: that would change the reason, and end the excuse."""
        waiting = {d.n: d.row.label for d in differences if not d.exists and not self._late.issuperset(d.lacks)}
        if not waiting:
            return frozenset()
        accepted = excuses.excuses_among(connection, self._job.collection.name, list(waiting.values()))
        as_accepted = Finding(Verdict.MISSING, "", reason=Reason.PARENT_MISSING)
        return frozenset(n for n, label in waiting.items() if label in accepted and accepted[label].covers(as_accepted))

    def _excused(
        self, connection: postgres.Connection, findings: Mapping[int, Finding | None]
    ) -> dict[int, Finding | None]:
        """The excused ones of these findings, marked as such: no policy and no path through this class ever writes them."""
        writable = {n: f for n, f in findings.items() if f is not None and (is_insertable(f) or is_updatable(f))}
        if not writable:
            return {}
        labels = [f.label for f in writable.values()]
        accepted = excuses.excuses_among(connection, self._job.collection.name, labels)
        return {
            n: replace(f, excused=True)
            for n, f in writable.items()
            if f.label in accepted and accepted[f.label].covers(f)
        }

    def _insert(
        self,
        connection: postgres.Connection,
        rows: Sequence[Row],
        missing: Sequence[Difference],
        policy: Policy,
        expected: Mapping[Key, str | None] | None,
    ) -> Write:
        if not policy.insert:
            return self._try(connection, missing, stale=False, keeps=not policy.writes)
        # A row that was there when its version was read and isn't now was deleted by a client: it is looked at again.
        may_come = self._late if policy.parents else frozenset()
        ready = [d for d in missing if may_come.issuperset(d.lacks) and not (expected and expected.get(d.row.key))]
        late = [d.n for d in ready if d.lacks]
        return self._job.target.insert(
            connection, self._job.collection, rows, sorted(d.n for d in ready), self._job.run_id, late
        )

    def _update(
        self,
        connection: postgres.Connection,
        stale: Sequence[Difference],
        policy: Policy,
        expected: Mapping[Key, str | None] | None,
    ) -> Write:
        """Updates stale rows whose version is as expected. If this run doesn't update, it only finds the rows that the table
        would refuse, so a dry run, an apply and a verification agree."""
        if not policy.update:
            keeps = policy.would_update and not policy.writes
            if not keeps:
                return self._try(
                    connection, [d for d in stale if self._claims.are_free(d.row)], stale=True, keeps=False
                )
            return self._update_in_turn(connection, stale)
        unchanged = [
            d
            for d in stale
            if expected is not None and d.xmin == expected.get(d.row.key) and not self._held & set(d.lacks)
        ]  # a row whose value comes through another row, which has just vanished, is looked at again
        return (
            self._job.target.update(connection, self._job.collection, unchanged, self._job.run_id)
            if unchanged
            else Write()
        )

    def _update_in_turn(self, connection: postgres.Connection, stale: Sequence[Difference]) -> Write:
        """As `_try`, of rows that may want one unique key. An update takes them one by one if it can't take all: a row that gets a turn
        because the first was refused may come before others there."""
        first = True

        def turn(part: list[Difference]) -> Write:
            nonlocal first
            if not first:
                self.promises.late.update(claimant(d.row) for d in part)
            first = False
            return self._try(connection, part, stale=True, keeps=True)

        tried, losers = write_in_turn(self._claims, stale, turn, order=lambda d: d.n)
        for d in losers:
            self.promises.lose(d.row)
        return tried

    def _try(
        self, connection: postgres.Connection, differences: Sequence[Difference], *, stale: bool, keeps: bool
    ) -> Write:
        """The rows that the table would refuse, as a write that wrote nothing. `keeps`: as if the others had been written."""
        rows = {d.n: d.row for d in sorted(differences, key=lambda d: d.n)}
        given = {"stale": stale, "keeps": keeps}
        return Write(refused=self._job.target.try_write(connection, self._job.collection, rows, self.promises, **given))


def _is(finding: Finding | None, verdict: Verdict) -> bool:
    return finding is not None and finding.verdict is verdict


def wait_or_raise(collection: str, error: postgres.Error, attempt: int) -> None:
    """Waits before another attempt if that may help; else raises the error, or TargetError after the last attempt. Not
    tenacity: an attempt that raised nothing but found its rows changed counts as well."""
    if not postgres.is_transient(error):
        raise error
    if attempt + 1 >= ATTEMPTS:
        raise TargetError(
            f"Writing {collection} failed {attempt + 1} times with {postgres.condition(error)}. "
            f"{postgres.remedy(error) or _REMEDY}"
        ) from None
    log.info("%s: %s, trying again", collection, postgres.condition(error))
    time.sleep(random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_SECONDS, 0.1 * 2**attempt))
