"""Looks: their counts and their memory. Each kind keeps the labels, keys and differences that it needs.

A look reads nothing and writes nothing: `Examiner` reports to it. A `Look` counts each finding at once; it is for runs that
write, and for keys that are looked at by themselves. A first look holds back the differences that a second one must settle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from dualwrite.engine.seen import Seen
from dualwrite.engine.staged_rows import StagedRows
from dualwrite.engine.units import Unit
from dualwrite.model.errors import IdentityError
from dualwrite.model.keys import Key
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import DRIFT, OBSTACLES, SETTLED_BY_WRITING, Excuse, Finding, Verdict


@dataclass
class Look:
    """Counts each finding at once."""

    report: CollectionReport
    excused: Mapping[str, Excuse] = field(default_factory=dict)
    """Excuses, by label."""
    watched: frozenset[str] = frozenset()
    """Labels already open before this run."""
    settled: set[str] = field(default_factory=set, init=False)
    """Watched labels that match now."""
    _matched_keys: Seen = field(default_factory=Seen, init=False)
    comes_to_all_rows: ClassVar[bool] = False
    """Whether rows that no document accounted for are all examined in the end."""

    # --- taking up keys ---------------------------------------------------------------------------------------------------

    def read(self, messages: Iterable[Any]) -> None:
        """Called with the documents that the look's own scan delivered."""

    def unread(self, messages: Sequence[Any]) -> Sequence[Any]:
        """The documents that the look's own scan hasn't delivered."""
        return messages

    def read_entries(self, path: str) -> None:
        """Called when all entries of a document are examined."""

    def has_entries(self, path: str) -> bool:
        """Whether the entries of a document are examined already."""
        return False

    def take(self, label: str) -> None:
        """Called with a key that is on no page; its finding follows."""
        self.report.taken += 1

    def take_page(self, page: StagedRows) -> None:
        """Called after a page was judged, not before: if it can't be judged it isn't taken up, and a caller may go on."""
        self.report.taken += len(page)

    def take_units(self, units: Sequence[Unit]) -> None:
        """Called with keys that are examined one by one; their findings follow."""
        self.report.taken += len(units)

    def take_rows(self, keys: Iterable[Key]) -> None:
        """Called with the keys of rows whose documents' entries were all examined."""

    def fresh(self, units: Iterable[Unit]) -> list[Unit]:
        """The units that this look has not examined yet, each label once."""
        return list({u.label: u for u in units}.values())

    def unseen(self, keys: Iterable[Key]) -> list[Key]:
        """The rows' keys that no document of this look had."""
        return list(keys)

    # --- findings ---------------------------------------------------------------------------------------------------------

    def match(self, page: StagedRows, numbers: Collection[int]) -> None:
        """Called with the numbers of a page's rows that equal their documents."""
        if self.watched:
            self.settled |= {page.label(n) for n in numbers} & self.watched
        self.report.add_matching(len(numbers))

    def match_keys(self, keys: Iterable[Key]) -> None:
        """Called with natural keys whose rows equal a document now."""
        self._matched_keys.update(keys)

    def has_matched(self, key: Key) -> bool:
        return key in self._matched_keys

    def add(self, finding: Finding) -> None:
        """Called with the finding on a key that was taken up."""
        self.count(finding)

    def count(self, finding: Finding) -> None:
        """Counts a finding, as excused if an excuse covers it."""
        if self._excuse(finding) is not None:
            finding = replace(finding, excused=True)
        if finding.label in self.watched and finding.verdict not in DRIFT | {Verdict.IN_FLIGHT}:
            self.settled.add(finding.label)
        self.report.add(finding)

    def settle(self, findings: Iterable[Finding]) -> None:
        """Adds the labels of these findings to `settled` if they are no drift and not in flight. They aren't counted here."""
        self.settled |= {f.label for f in findings if f.verdict not in DRIFT | {Verdict.IN_FLIGHT}}

    def _excuse(self, finding: Finding) -> Excuse | None:
        """The excuse that covers a finding; None if there is none."""
        excuse = self.excused.get(finding.label)
        return excuse if excuse is not None and excuse.covers(finding) else None


@dataclass
class RepairLook(Look):
    """Counts a repair's findings, and remembers the deletes that Postgres refused: a later look couldn't see why."""

    obstructed: list[Finding] = field(default_factory=list, init=False)
    """Extra rows that were to be deleted and are still there, each with the reason."""

    def count(self, finding: Finding) -> None:
        if finding.reason in OBSTACLES:
            self.obstructed.append(finding)
        super().count(finding)


@dataclass
class PendingLook(Look):
    """Holds back the differences that need a second look. Examines each key once."""

    labels: set[str] = field(default_factory=set, init=False)
    """Labels examined so far. In a window: all. In a sweep: rejections, keys examined one by one, and those open or excused
    before; `_keys` covers the rest."""
    paths: Seen = field(default_factory=Seen, init=False)
    """In a window, the paths of the documents whose entries this look examined: operations may name them too."""
    rejected: list[Finding] = field(default_factory=list, init=False)
    """Rejections without an excuse."""
    accepted: list[Finding] = field(default_factory=list, init=False)
    """Findings whose key was excused before anything differed there."""
    _pending: list[Finding] = field(default_factory=list, init=False)

    @cached_property
    def told(self) -> frozenset[str]:
        """Labels that were open or excused before this run."""
        return self.watched | self.excused.keys()

    def has_entries(self, path: str) -> bool:
        return path in self.paths

    def take(self, label: str) -> None:
        super().take(label)
        self.labels.add(label)

    def take_units(self, units: Sequence[Unit]) -> None:
        labels = {u.label for u in units}
        again = self.labels & labels
        if again or len(labels) < len(units):
            raise IdentityError(
                f"Each key is examined once in a look: {self.report.collection} would examine {len(again)} again. This is a "
                "defect of the bundle. Report it with the task's log."
            )
        super().take_units(units)
        self.labels |= labels

    def add(self, finding: Finding) -> None:
        excuse = self._excuse(finding)
        if excuse is not None:
            finding = replace(finding, excused=True)
            if excuse.verdict is None:
                self.accepted.append(finding)
        if not finding.excused:
            unsettled = finding.verdict in SETTLED_BY_WRITING or finding.verdict is Verdict.IN_FLIGHT
            if unsettled and finding.key is not None:
                self._pending.append(finding)
                return
            if finding.verdict is Verdict.REJECTED:
                self.rejected.append(replace(finding, key=None))  # its document is mapped again
        self.count(finding)

    def fresh(self, units: Iterable[Unit]) -> list[Unit]:
        return super().fresh(u for u in units if u.label not in self.labels)

    def ended(self) -> list[Finding]:
        """Ends the look: returns the differences that need a second look, which will count them."""
        pending, self._pending = self._pending, []
        self.report.taken -= len(pending)
        return pending


@dataclass
class _Keyed(PendingLook):
    """A first look that holds eight bytes for each key that it saw in a document."""

    _keys: Seen = field(default_factory=Seen, init=False)

    def take_page(self, page: StagedRows) -> None:
        super().take_page(page)
        self._keys.update(page.key(n) for n in range(len(page)))

    def take_rows(self, keys: Iterable[Key]) -> None:
        self._keys.update(keys)

    def fresh(self, units: Iterable[Unit]) -> list[Unit]:
        return super().fresh(u for u in units if u.key not in self._keys)

    def unseen(self, keys: Iterable[Key]) -> list[Key]:
        return [key for key in keys if key not in self._keys]


@dataclass
class WindowLook(_Keyed):
    """The first look at a window. It remembers every label, and the names of the window's documents."""

    _names: Seen = field(default_factory=Seen, init=False)

    def read(self, messages: Iterable[Any]) -> None:
        self._names.update(m.name for m in messages)

    def unread(self, messages: Sequence[Any]) -> Sequence[Any]:
        return [m for m in messages if m.name not in self._names]

    def read_entries(self, path: str) -> None:
        self.paths.update((path,))

    def take_page(self, page: StagedRows) -> None:
        super().take_page(page)
        self.labels.update(page.label(n) for n in range(len(page)))


@dataclass
class SweepLook(_Keyed):
    """The first look at all documents and rows of a collection, or at the rows that its slices left."""

    comes_to_all_rows = True

    def take_page(self, page: StagedRows) -> None:
        super().take_page(page)
        self.labels |= told_of(page, self.told)


def told_of(page: StagedRows, labels: frozenset[str]) -> set[str]:
    """The labels that belong to the page's rows."""
    return {page.label(n) for n in range(len(page))} & labels if labels else set()
