"""Judges mapped documents against rows: one verdict for each, and, in the same transaction, the writes it calls for.

What the target alone can't settle (required documents, whose a row is) is asked of the source between transactions,
never inside one. Then the page is compared again, until nothing is unknown.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol as Interface
from typing import cast

from dualwrite import postgres
from dualwrite.engine.classify import (
    Circumstances,
    ParentState,
    classify,
    finding_of,
    is_insertable,
    is_updatable,
)
from dualwrite.engine.inserts import Claims, Promises, write_in_turn
from dualwrite.engine.owners import Owners
from dualwrite.engine.page import Page
from dualwrite.engine.units import Policy
from dualwrite.firestore.source import Source
from dualwrite.firestore.staging import Stager
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.errors import TargetError
from dualwrite.model.mapping import Key, Refusal, Row, without
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Finding, Reason, Verdict
from dualwrite.postgres.bad_rows import Refused
from dualwrite.postgres.remembered import excuses
from dualwrite.postgres.target import Comparison, Difference, Target, Write

log = logging.getLogger(__name__)

ATTEMPTS = 10
_WHAT_TO_SEE = "See who holds locks (pg_stat_activity), or whether the server is up, and run again."
Required = list[tuple[str, str]]
"""Collections and paths of documents."""


class RequiredDocuments(Interface):
    """What a judge asks of `Parents`."""

    def state(self, name: str, path: str) -> ParentState | None: ...
    def learn(self, required: Iterable[tuple[str, str]], rowless: Container[tuple[str, str]] = ...) -> None: ...
    def forget(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Judged:
    """A page judged, by numbers in it: the findings on rows that do not match, and the journal ids of rows written.

    A finding of None: other documents may share this row's key; it is settled once all of them are known.
    `obstacles`: constraints that refused rows and may not do so at another look, see `Refused.passing` and `own_table`.
    """

    findings: dict[int, Finding | None]
    journal: dict[int, int]
    obstacles: dict[int, Refused] = field(default_factory=dict)


class Judge:
    """Judges the documents of one collection in one run."""

    def __init__(
        self,
        source: Source,
        target: Target,
        catalog: Catalog,
        collection: Collection,
        *,
        report: CollectionReport,
        run_id: str,
        parents: RequiredDocuments,
    ) -> None:
        self.source = source
        self.target = target
        self.catalog = catalog
        self.collection = collection
        self.report = report
        self.run_id = run_id
        self.owners = Owners(source, target, collection)
        self._parents = parents
        self.stager = Stager(collection)
        self._references = [
            (c.name, collection.columns.index(c), c.parent.collection, catalog.ancestor_path(collection, c))
            for c in collection.references
        ]
        self._held = {c.name for c in collection.columns if c.via is not None}
        self._claims = Claims(self.owners)
        self._promises = Promises()

    def judge(self, page: Page, policy: Policy, expected: Mapping[Key, str | None] | None = None) -> Judged:
        """The verdicts of a page, and what was written of it.

        With `expected` (versions read before the documents) stale rows are updated too, on that condition, and the rows
        are known to own their keys.
        """
        for attempt in range(ATTEMPTS):
            nulled: dict[int, Row] = {}
            try:
                with self.target.transaction() as connection:
                    comparison = self.target.compare_staged(connection, self.collection, page.staged, page.__getitem__)
                    nulling = self.nulling(connection) if comparison.differences else frozenset()
                    required = {d.n: self._required(d, nulling) for d in comparison.differences}
                    left = self._left_with_parents(connection, comparison.differences) if policy.insert else frozenset()
                    required.update({n: [] for n in left})
                    if self._is_unknown(required, comparison.differences) or (
                        nulled := self._nulled(comparison.differences, nulling)
                    ):
                        judged = None
                    else:
                        judged = self._settle(connection, page, comparison, required, policy, expected, left)
            except postgres.Error as error:
                self.wait_or_raise(error, attempt)
                continue
            if judged is not None:
                # Counted after the commit: an attempt that was rolled back wrote nothing.
                inserted = sum(1 for n in judged.journal if _is(judged.findings.get(n), Verdict.MISSING))
                self.report.inserted += inserted
                self.report.updated += len(judged.journal) - inserted
                self.report.derived_lag += comparison.derived_lag if expected is None else 0
                if policy.insert:
                    self._claims.clear()  # the target's own unique keys hold them from now on
                return judged
            for n, row in nulled.items():
                page.put(n, row)
            # No transaction is open now: Firestore is never read while a lock or a snapshot is held.
            self._learn(required, comparison.differences)
        raise TargetError(
            f"Rows of {self.collection.name} kept changing through {ATTEMPTS} looks, so they could not be judged. Run "
            "again when there are fewer writes."
        )

    def wait_or_raise(self, error: postgres.Error, attempt: int) -> None:
        """Waits before another attempt if that may help; raises otherwise. Not tenacity: an attempt that raised nothing but found
        its rows changed counts as well."""
        if not postgres.is_transient(error):
            raise error
        if attempt + 1 >= ATTEMPTS:
            raise TargetError(
                f"Writing {self.collection.name} failed {attempt + 1} times with {postgres.condition(error)}. "
                f"{postgres.remedy(error) or _WHAT_TO_SEE}"
            ) from None
        log.info("%s: %s, trying again", self.collection.name, postgres.condition(error))
        time.sleep(random.uniform(0.5, 1.0) * min(5.0, 0.1 * 2**attempt))

    def forget(self) -> None:
        """Keeps what is remembered within bounds; called between pages."""
        self._parents.forget()
        self.owners.forget()

    # --- what is known of a difference --------------------------------------------------------------------------------

    def nulling(self, connection: postgres.Connection) -> frozenset[str]:
        """The reference columns that become null when the document that they name is gone."""
        if not any(c.may_become_null for c in self.collection.references):
            return frozenset()
        return self.target.nulling(connection, self.collection)

    def _nulled(self, differences: Iterable[Difference], nulling: frozenset[str]) -> dict[int, Row]:
        """By number, the rows that name documents which are gone, with nulls in their place."""
        found = {}
        for difference in differences if nulling else ():
            row = difference.row
            gone = [
                index
                for index, parent, path in self._named(row, nulling)
                if self._parents.state(parent, path) == "gone"
            ]
            if gone:
                found[difference.n] = without(row, gone)
        return found

    def _named(self, row: Row, nulling: frozenset[str]) -> Iterable[tuple[int, str, str]]:
        """Of each column that may become null: its index, and collection and path of the document that it names."""
        segments = row.path.split("/")
        for name, index, parent, path in self._references:
            if name in nulling and row.cells[index] is not None:
                yield index, parent, path(segments, str(row.cells[index]))

    def without_gone(self, row: Row, gone: str | None) -> Row:
        """The row with nulls where it names a document that is gone, by path."""
        if gone is None:
            return row
        with self.target.transaction() as connection:
            nulling = self.nulling(connection)
        return without(row, [index for index, _, path in self._named(row, nulling) if path == gone])

    def _required(self, difference: Difference, nulling: frozenset[str]) -> list[tuple[str, str]]:
        """Collection and path of each document that a row to be inserted needs, or whose row an existing one lacks; and of
        what a column names that differs and may have become null."""
        row = difference.row
        segments = row.path.split("/")
        return [
            (parent, path(segments, str(row.cells[index])))
            for name, index, parent, path in self._references
            if row.cells[index] is not None
            and (not difference.found or name in difference.lacks or (name in nulling and name in difference.columns))
        ]

    def _rowless(self, difference: Difference) -> list[tuple[str, str]]:
        """Of the documents that a row to be inserted needs, those without a row."""
        row = difference.row
        segments = row.path.split("/")
        return [
            (parent, path(segments, str(row.cells[index])))
            for name, index, parent, path in self._references
            if not difference.found and row.cells[index] is not None and name in difference.lacks
        ]

    def _learn(self, required: Mapping[int, Required], differences: Sequence[Difference]) -> None:
        """Asks the source for what is not known yet of these differences."""
        parents = dict.fromkeys(r for d in differences for r in required[d.n] if self._parents.state(*r) is None)
        self._parents.learn(parents, {r for d in differences for r in self._rowless(d)})
        self.owners.learn(key for d in differences for key in self.owners.unknown(d))

    def _is_unknown(self, required: Mapping[int, Required], differences: Iterable[Difference]) -> bool:
        return any(
            self.owners.unknown(d) or any(self._parents.state(*r) is None for r in required[d.n]) for d in differences
        )

    def _circumstances(self, difference: Difference, required: Required) -> Circumstances:
        states = (self._parents.state(*r) for r in required)
        return Circumstances(
            parents=[state for state in states if state is not None and state != "present"],
            holders=self.owners.holders(difference),
            belongs_elsewhere=self.owners.belongs_elsewhere(difference),
            unasked=self.owners.is_unasked(difference),
        )

    # --- inside the comparison's transaction ----------------------------------------------------------------------------

    def _settle(
        self,
        connection: postgres.Connection,
        rows: Page,
        comparison: Comparison,
        required: Mapping[int, Required],
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
            if difference.found and not self.collection.keyed_by_path and expected is None:
                findings[difference.n] = None
                continue
            finding = classify(difference, self._circumstances(difference, required[difference.n]))
            if difference.n in left and is_insertable(finding):
                finding = replace(finding, reason=Reason.PARENT_MISSING)
            findings[difference.n] = finding
        self._mark_excused(connection, findings)
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
            findings[d.n] = finding_of(Verdict.DUPLICATE, d.row, d, reason=Reason.UNIQUE_KEY_TAKEN)
        for n in updates.unmade:
            findings[n] = replace(cast(Finding, findings[n]), reason=Reason.CHANGED_BY_TABLE)
        refused = {**inserts.refused, **updates.refused}
        for n, why in refused.items():
            if not why.passing:  # else a parent's row vanished this moment, or a client took the key: looked at again
                findings[n] = finding_of(Verdict.REJECTED, rows[n], None, reason=Refusal(why.text))
        obstacles = {n: why for n, why in refused.items() if why.passing or why.own_table}
        return Judged(dict(sorted(findings.items())), {**inserts.journal, **updates.journal}, obstacles)

    def _left_with_parents(self, connection: postgres.Connection, differences: Iterable[Difference]) -> frozenset[int]:
        """Numbers of missing rows that a person accepted while rows that they need were missing too. Those are not
        inserted for their sake either: that would change the reason, and end the excuse."""
        waiting = {d.n: d.row.label for d in differences if not d.found and d.lacks}
        if not waiting:
            return frozenset()
        accepted = excuses.excuses_among(connection, self.collection.name, list(waiting.values()))
        as_accepted = Finding(Verdict.MISSING, "", reason=Reason.PARENT_MISSING)
        return frozenset(n for n, label in waiting.items() if label in accepted and accepted[label].covers(as_accepted))

    def _mark_excused(self, connection: postgres.Connection, findings: dict[int, Finding | None]) -> None:
        """Marks what a person accepted, so that nothing here writes it: no policy, and no way that leads to a write, is an
        exception."""
        writable = {n: f for n, f in findings.items() if f is not None and (is_insertable(f) or is_updatable(f))}
        if not writable:
            return
        accepted = excuses.excuses_among(connection, self.collection.name, [f.label for f in writable.values()])
        for n, finding in writable.items():
            if finding.label in accepted and accepted[finding.label].covers(finding):
                findings[n] = replace(finding, excused=True)

    def _insert(
        self,
        connection: postgres.Connection,
        rows: Sequence[Row],
        missing: Sequence[Difference],
        policy: Policy,
        expected: Mapping[Key, str | None] | None,
    ) -> Write:
        if not policy.insert:
            return self._try(connection, missing, stale=False)
        # A row that was there when its version was read, and isn't now: a client deleted it, so it is looked at again.
        ready = [d.n for d in missing if not d.lacks and not (expected and expected.get(d.row.key))]
        return self.target.insert(connection, self.collection, rows, sorted(ready), self.run_id)

    def _update(
        self,
        connection: postgres.Connection,
        stale: Sequence[Difference],
        policy: Policy,
        expected: Mapping[Key, str | None] | None,
    ) -> Write:
        """Updates what is stale where the versions allow it; where this run won't, says what the table would refuse, so
        that a dry run, an apply and a verification agree."""
        if not policy.update:
            return self._try(connection, stale, stale=True)
        unchanged = [
            d
            for d in stale
            if expected is not None and d.xmin == expected.get(d.row.key) and not self._held & set(d.lacks)
        ]  # whose value comes through a row that vanished this moment is looked at again
        return self.target.update(connection, self.collection, unchanged, self.run_id) if unchanged else Write()

    def _try(self, connection: postgres.Connection, differences: Sequence[Difference], *, stale: bool) -> Write:
        """What the table would refuse, as a write that wrote nothing."""
        rows = {d.n: d.row for d in differences}
        tried = self.target.try_write(connection, self.collection, sorted(rows), stale=stale)
        return Write(refused=self._promises.settle(rows, tried))


def _is(finding: Finding | None, verdict: Verdict) -> bool:
    return finding is not None and finding.verdict is verdict
