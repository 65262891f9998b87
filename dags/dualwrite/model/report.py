"""What a run found: counts that must add up, a few samples of each verdict, their JSON, and the blocks that render.py
shows a person.

A report holds ids, paths, column names, reasons and counts. It never holds a document's content.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from dualwrite.model import cost
from dualwrite.model.errors import IdentityError
from dualwrite.model.render import Block, Code, Items, Paragraph, Table, number
from dualwrite.model.verdicts import DRIFT, VERDICTS, Finding, Verdict, printable

VERSION = 1
SAMPLES = 20
"""How many findings of one verdict a report shows; the counts beside them are exact."""

LONGEST_LABEL = 120
"""Characters of an id or a path that a report shows. Ids may have 1,500 bytes, and XCom values are kept small."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a number of a report is for, declared once beside the number: its key in the JSON is its name."""

    name: str
    heading: str
    """Of its column in the table; empty where it has none."""
    added: bool
    """Whether the phases of one collection add up; else the first one's holds."""
    work: bool
    """Whether a repair, which gives no verdicts, adds to its collection's."""
    logged: bool
    """Whether dualwrite.runs has a column of this name."""


def _counter(
    heading: str = "", *, default: float | None = 0, added: bool = True, work: bool = False, logged: bool = False
) -> Any:
    return field(default=default, metadata={"heading": heading, "added": added, "work": work, "logged": logged})


@dataclass
class CollectionReport:
    """The findings of one run in one collection. Mutable while the run lasts.

    `documents_read` counts documents of the window as delivered (strays included); `billed_reads` everything that
    Firestore bills: those, the counts (one per 1,000) and each look at a single document.
    """

    collection: str
    phase: str
    taken: int = 0
    """Keys taken up for examination, counted where they are read and not where they are judged."""
    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    examined: int = _counter(logged=True)
    excused: int = _counter()
    """Drift that a person accepted."""
    left_alone: int = _counter()
    """Of that, missing and stale rows: no run writes them."""
    documents_read: int = _counter(logged=True)
    stray: int = _counter("stray")
    unlocatable: int = _counter("unlocatable")
    operations_left: int = _counter("operations left out")
    """Keys that only operations name and that were not looked at, because there are more than max_operation_looks."""
    expected: int = _counter("expected")
    """Missing while dual-write is switched off: kept open, and no failure."""
    inserted: int = _counter("inserted", work=True, logged=True)
    updated: int = _counter("updated", work=True, logged=True)
    deleted: int = _counter("deleted", work=True, logged=True)
    parents_inserted: int = _counter("parents inserted", work=True)
    derived_lag: int = _counter("counters lag")
    source_count: int | None = _counter("documents", default=None, added=False)
    target_count: int | None = _counter("rows", default=None, added=False)
    reads_to_verify: int = _counter(added=False)
    """What reading the collection whole would bill."""
    proof_reads: int = _counter("reads for proofs", work=True, logged=True)
    """Of the billed reads those of names, to prove that no document has a row's key."""
    billed_reads: int = _counter("billed reads", work=True, logged=True)
    seconds: float = _counter("seconds", default=0.0, logged=True)
    verification: str | None = None
    not_examined: str | None = None
    """Why the collection could not be read whole; None where it was."""

    def add(self, finding: Finding) -> None:
        """Counts one examined key in its verdict and keeps a sample of it."""
        self.examined += 1
        self.counts[finding.verdict] += 1
        self.excused += finding.excused
        self.left_alone += finding.excused and finding.verdict in (Verdict.MISSING, Verdict.STALE)
        if finding.reason:
            self.reasons[f"{finding.verdict}: {finding.reason}"] += 1
        samples = self.samples.setdefault(finding.verdict, [])
        if len(samples) < SAMPLES:
            samples.append(finding.as_sample(LONGEST_LABEL))

    def add_matching(self, number: int) -> None:
        """Counts keys whose row equals the document; nobody needs samples of those."""
        self.examined += number
        self.counts[Verdict.MATCHING] += number

    def add_work(self, repair: CollectionReport) -> None:
        """Adds what a repair of this collection wrote and read. Its verdicts are no further keys."""
        for counter in COUNTERS:
            if counter.work:
                setattr(self, counter.name, getattr(self, counter.name) + getattr(repair, counter.name))

    @property
    def outcome(self) -> str:
        return "examined" if self.not_examined is None else "not_examined"

    @property
    def drift(self) -> int:
        """Keys in a verdict that is drift, those left out that are excused or expected."""
        return sum(self.counts[v] for v in DRIFT) - self.excused - self.expected

    def check_identity(self) -> None:
        """Raises IdentityError unless every key examined ended in exactly one verdict."""
        unknown = set(self.counts) - set(VERDICTS)
        total = sum(self.counts.values())
        if unknown or total != self.examined or self.examined != self.taken:
            raise IdentityError(
                f"Every key examined ends in exactly one verdict: {self.collection} started with {self.taken} keys, examined "
                f"{self.examined}, and counted {total} verdicts. This is a defect of the bundle: don't trust this collection's "
                "report. Report the defect with the task's log."
            )

    def as_json(self) -> dict[str, Any]:
        return {
            "collection": self.collection,
            "phase": self.phase,
            "outcome": self.outcome,
            "not_examined": self.not_examined,
            "counts": {str(v): self.counts[v] for v in VERDICTS},
            "drift": self.drift,
            **{counter.name: getattr(self, counter.name) for counter in COUNTERS},
            "seconds": round(self.seconds, 3),
            "documents_per_second": round(self.documents_read / self.seconds) if self.seconds > 0 else None,
            "verification": self.verification,
            "reasons": dict(self.reasons.most_common(SAMPLES)),
            "samples": {str(v): s for v, s in self.samples.items() if v != Verdict.MATCHING},
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """The report as `as_json` gave it to another task, or kept it; what else stands there is left alone."""
        return cls(
            given["collection"],
            given["phase"],
            taken=given["examined"],
            counts=Counter(given["counts"]),
            samples={verdict: list(samples) for verdict, samples in given["samples"].items()},
            reasons=Counter(given["reasons"]),
            verification=given["verification"],
            not_examined=given["not_examined"],
            **{counter.name: given[counter.name] for counter in COUNTERS},
        )


COUNTERS = tuple(Counted(f.name, **f.metadata) for f in fields(CollectionReport) if f.metadata)


def merged(parts: Sequence[CollectionReport]) -> CollectionReport:
    """Several phases of one collection as one: what was examined in each, added up. Leave out phases
    that look at the same keys again (a repair, or the look after it). Raises IdentityError if it doesn't add up."""
    whole = replace(parts[0], taken=sum(p.taken for p in parts), counts=Counter(), samples={}, reasons=Counter())
    for counter in COUNTERS:
        if counter.added:
            setattr(whole, counter.name, sum(getattr(p, counter.name) for p in parts))
    for part in parts:
        whole.counts.update(part.counts)
        whole.reasons.update(part.reasons)
        for verdict, found in part.samples.items():
            whole.samples[verdict] = [*whole.samples.get(verdict, []), *found][:SAMPLES]
    whole.not_examined = next((p.not_examined for p in parts if p.not_examined), None)
    whole.check_identity()
    return whole


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that is wrong. The task's last line, its exception and the Sentry event are made of `text`.

    `collection` is None if the problem concerns no single one. `kind` is a verdict, or a word for what went wrong
    (not_swept, timed_out, ...). Together they name the standing problem, so that a drift that stays is one issue and not a
    hundred.
    """

    text: str
    collection: str | None = None
    kind: str | None = None
    cause: str | None = None


def fit(report: dict[str, Any], limit: int = 60_000) -> dict[str, Any]:
    """The report with as many samples as fit into `limit` bytes of JSON; says so where it had to drop some.

    XCom values live in Airflow's database; 64 KB is the promise.
    """
    keep = SAMPLES
    while len(json.dumps(report, ensure_ascii=False).encode()) > limit and keep > 0:
        keep //= 2
        for collection in report["collections"]:
            collection["samples"] = {v: s[:keep] for v, s in collection["samples"].items() if keep}
        report["samples_shown"] = keep
    return report


# --- as a person reads it -----------------------------------------------------------------------------------------------

_ALWAYS = ("billed_reads", "seconds")


def table(collections: Iterable[Mapping[str, Any]]) -> Table:
    """Counts by collection and verdict. Columns that would hold nothing but zeros are left out."""
    reports = [CollectionReport.from_json(given) for given in collections]
    verdicts = [v for v in VERDICTS if any(r.counts[v] for r in reports)]
    counters = [c for c in COUNTERS if c.heading and (c.name in _ALWAYS or any(getattr(r, c.name) for r in reports))]
    headings = [str(v).replace("_", " ") for v in verdicts]
    for c in counters:
        headings += [c.heading, "cost"] if c.name == "billed_reads" else [c.heading]
    verified = any(r.verification for r in reports)
    counted = any(r.source_count is not None for r in reports)  # and perhaps nothing more
    examined = not counted or any(r.examined or r.not_examined is not None for r in reports)
    header = ["collection", *(["examined"] if examined else []), *headings, *(["verification"] if verified else [])]
    lines = [_line(r, verdicts, counters, len(headings), verified) for r in reports]
    return Table(header, lines if examined else [[line[0], *line[2:]] for line in lines])


def _line(
    r: CollectionReport, verdicts: Iterable[Verdict], counters: Iterable[Counted], width: int, verified: bool
) -> list[str]:
    """A collection's line of the table."""
    verification = [(r.verification or "").replace("_", " ")] if verified else []
    if r.not_examined is not None:
        return [r.collection, "NOT EXAMINED", *[""] * width, *verification]
    cells = [number(r.counts[v]) if r.counts[v] else "-" for v in verdicts]
    for counter in counters:
        value = getattr(r, counter.name)
        cells.append(number(value) if value else "-")
        if counter.name == "billed_reads":
            cells.append(cost.amount(value) if value else "-")
    return [r.collection, number(r.examined), *cells, *verification]


def samples(collections: Iterable[Mapping[str, Any]]) -> list[Block]:
    """What was not examined, and samples of every verdict that is not matching: ids, paths and columns, no content."""
    blocks: list[Block] = []
    for r in collections:
        if r["not_examined"]:
            blocks.append(Paragraph(f"{r['collection']} was not examined: {r['not_examined']}", strong=True))
        for verdict, found in r["samples"].items():
            prefix = f"{verdict}: "
            reasons = {k.removeprefix(prefix): n for k, n in r["reasons"].items() if k.startswith(prefix)}
            shown, counted = _by_reason(found, reasons)
            title = f"{r['collection']}, {verdict.replace('_', ' ')} ({r['counts'][verdict]:,}, {len(shown)} shown)"
            blocks.append(Items(title, [*counted, *map(_sample, shown)]))
    return blocks


_ALIKE = 3
"""Samples that are shown of many with one reason: the others would be the same line with another key."""


def _by_reason(
    samples: Sequence[Mapping[str, Any]], reasons: Mapping[str, int]
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Of a verdict's samples those worth showing, and a line with the number of each reason that many share."""
    many = {reason: number for reason, number in reasons.items() if number > _ALIKE}
    left = Counter(dict.fromkeys(many, _ALIKE))
    shown = []
    for sample in samples:
        reason = sample.get("reason")
        if reason in many:
            left[reason] -= 1
            if left[reason] < 0:
                continue
        shown.append(sample)
    return shown, [f"{number:,} with the reason {reason}" for reason, number in many.items()]


def listed(counts: Mapping[str, int], verdicts: Iterable[str] = VERDICTS) -> str:
    """Counts that are not zero, as "2 missing, 1 stale"."""
    return ", ".join(f"{counts[v]:,} {str(v).replace('_', ' ')}" for v in verdicts if counts.get(v))


def few(names: Sequence[str], most: int = 10) -> str:
    """Names for people to read, and how many are left out."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def total(collections: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """The verdicts of all collections added up."""
    found: Counter[str] = Counter()
    for r in collections:
        found.update(r["counts"])
    return found


def _sample(sample: Mapping[str, Any]) -> list[str]:
    """One finding in one line."""
    parts: list[str] = [Code(sample["key"])]
    if sample.get("reason"):
        parts.append(f"({sample['reason']})")
    if sample.get("columns"):
        parts.append("differs in " + ", ".join(sample["columns"]))
    if sample.get("cause"):
        parts.append(f"cause: {sample['cause']}")
    if sample.get("excused"):
        parts.append("excused")
    if sample.get("path"):  # last: it is long, and a log doesn't wrap
        parts += ["at", Code(sample["path"])]
    return parts
