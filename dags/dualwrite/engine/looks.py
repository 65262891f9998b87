"""What a look remembers of what it examines: each kind owns the labels, keys and differences that are its own.

A look reads nothing and writes nothing: `Examiner` tells it what it saw. One that counts (`Look`) belongs to what writes and
to keys that are looked at by themselves. A first look holds back the differences that a second one must decide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from dualwrite.engine.page import Page
from dualwrite.engine.seen import Seen
from dualwrite.engine.units import Unit
from dualwrite.model.errors import IdentityError
from dualwrite.model.mapping import Key
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import DRIFT, OBSTACLES, SETTLED_BY_WRITING, Excuse, Finding, Verdict


@dataclass
class Look:
    """Counts each finding at once."""

    report: CollectionReport
    excused: Mapping[str, Excuse] = field(default_factory=dict)
    """What a person accepted, by label."""
    watched: frozenset[str] = frozenset()
    """Labels already open before this run."""
    settled: set[str] = field(default_factory=set, init=False)
    """Watched labels that match now."""
    _matched_keys: Seen = field(default_factory=Seen, init=False)
    comes_to_all_rows: ClassVar[bool] = False
    """Whether rows that no document accounted for are all examined in the end."""

    # --- what was taken up ------------------------------------------------------------------------------------------------

    def read(self, messages: Iterable[Any]) -> None:
        """Documents of the look's own scan were delivered."""

    def unread(self, messages: Sequence[Any]) -> Sequence[Any]:
        """Those of the documents that the look's own scan hasn't read."""
        return messages

    def read_entries(self, path: str) -> None:
        """All entries of a document are examined."""

    def has_entries(self, path: str) -> bool:
        """Whether the entries of a document are examined already."""
        return False

    def take(self, label: str) -> None:
        """A key of its own that isn't one of a page: its finding follows."""
        self.report.taken += 1

    def take_page(self, page: Page) -> None:
        """A page was judged. Not before: one that can't be judged was not taken up, and a caller may go on without it."""
        self.report.taken += len(page)

    def take_units(self, units: Sequence[Unit]) -> None:
        """Keys are examined one by one."""
        self.report.taken += len(units)

    def take_rows(self, keys: Iterable[Key]) -> None:
        """Rows of documents whose entries were all examined."""

    def fresh(self, units: Iterable[Unit]) -> list[Unit]:
        """Those of the units that this look has not examined yet."""
        return list({u.label: u for u in units}.values())

    def unseen(self, keys: Iterable[Key]) -> list[Key]:
        """Those of the rows' keys that no document of this look had."""
        return list(keys)

    # --- what became of it ------------------------------------------------------------------------------------------------

    def match(self, page: Page, numbers: Collection[int]) -> None:
        """These rows of a page equal their documents."""
        if self.watched:
            self.settled |= {page.label(n) for n in numbers} & self.watched
        self.report.add_matching(len(numbers))

    def match_keys(self, keys: Iterable[Key]) -> None:
        """Natural keys whose rows equal a document now."""
        self._matched_keys.update(keys)

    def has_matched(self, key: Key) -> bool:
        return key in self._matched_keys

    def found(self, finding: Finding) -> None:
        """A finding on a key that was taken up."""
        self.count(finding)

    def count(self, finding: Finding) -> None:
        """Counts a finding, as excused if a person accepted it."""
        if self._excuse(finding) is not None:
            finding = replace(finding, excused=True)
        if finding.label in self.watched and finding.verdict not in DRIFT | {Verdict.IN_FLIGHT}:
            self.settled.add(finding.label)
        self.report.add(finding)

    def settle(self, findings: Iterable[Finding]) -> None:
        """What was open is gone, if these findings on it say so. They are counted elsewhere, or not at all."""
        self.settled |= {f.label for f in findings if f.verdict not in DRIFT | {Verdict.IN_FLIGHT}}

    def _excuse(self, finding: Finding) -> Excuse | None:
        """What covers a finding."""
        excuse = self.excused.get(finding.label)
        return excuse if excuse is not None and excuse.covers(finding) else None


@dataclass
class RepairLook(Look):
    """Counts what a repair did, and remembers why it couldn't: a look can't tell why Postgres refused a delete."""

    obstructed: list[Finding] = field(default_factory=list, init=False)
    """Extra rows that were to be deleted and are still there, each with the reason."""

    def count(self, finding: Finding) -> None:
        if finding.reason in OBSTACLES:
            self.obstructed.append(finding)
        super().count(finding)


@dataclass
class PendingLook(Look):
    """Holds back the differences that must be looked at a second time. Examines each key once."""

    labels: set[str] = field(default_factory=set, init=False)
    """Labels of keys that this look examined: all, or, if it sees all documents, those that the rows' keys don't give and
    those that were open or excused before this run."""
    paths: set[str] = field(default_factory=set, init=False)
    """Paths of the documents whose entries this look examined."""
    rejected: list[Finding] = field(default_factory=list, init=False)
    """Rejections that nobody excused."""
    accepted: list[Finding] = field(default_factory=list, init=False)
    """Drift that a person had excused before it was found."""
    _pending: list[Finding] = field(default_factory=list, init=False)

    @cached_property
    def told(self) -> frozenset[str]:
        """Labels of what was open or excused before this run."""
        return self.watched | self.excused.keys()

    def read_entries(self, path: str) -> None:
        self.paths.add(path)

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

    def found(self, finding: Finding) -> None:
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
                self.rejected.append(replace(finding, key=None))  # it is the document that is mapped again
        self.count(finding)

    def fresh(self, units: Iterable[Unit]) -> list[Unit]:
        return super().fresh(u for u in units if u.label not in self.labels)

    def ended(self) -> list[Finding]:
        """The differences to be looked at a second time, which counts them."""
        pending, self._pending = self._pending, []
        self.report.taken -= len(pending)
        return pending


@dataclass
class _Keyed(PendingLook):
    """A first look that holds eight bytes for each key that it saw in documents."""

    _keys: Seen = field(default_factory=Seen, init=False)

    def take_page(self, page: Page) -> None:
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
    """The first look at a window: remembers every label, and the names of the documents that lay in it."""

    _names: Seen = field(default_factory=Seen, init=False)

    def read(self, messages: Iterable[Any]) -> None:
        self._names.update(m.name for m in messages)

    def unread(self, messages: Sequence[Any]) -> Sequence[Any]:
        return [m for m in messages if m.name not in self._names]

    def take_page(self, page: Page) -> None:
        super().take_page(page)
        self.labels.update(page.label(n) for n in range(len(page)))


@dataclass
class SweepLook(_Keyed):
    """The first look at all documents and rows of a collection, or at what its slices left."""

    comes_to_all_rows = True

    def take_page(self, page: Page) -> None:
        super().take_page(page)
        self.labels |= told_of(page, self.told)


def told_of(page: Page, labels: frozenset[str]) -> set[str]:
    """Those of the labels that are of the page's rows."""
    return {page.label(n) for n in range(len(page))} & labels if labels else set()
