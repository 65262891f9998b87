"""A run's report on a collection: counts that must add up, a few samples of each verdict, their JSON, and the blocks that
render.py shows to a person.

A report holds ids, paths, column names, reasons and counts. It never holds a document's content.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, TypeVar

from dualwrite.model import cost
from dualwrite.model.errors import IdentityError
from dualwrite.model.render import Block, Code, Items, Paragraph, Table, number
from dualwrite.model.run_report import CollectionResult, GapReport, RunReport, Sample
from dualwrite.model.verdicts import DRIFT, VERDICTS, Finding, Verdict, printable

SAMPLES = 20
"""Findings of one verdict that a report shows; the counts beside them are exact."""

SHOWN_CHARACTERS = 120
"""Characters of an id or a path that a report shows. Ids may have 1,500 bytes, and XCom values are kept small."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The uses of a report's number, declared once beside the number. `name` is its key in the JSON."""

    name: str
    heading: str
    """The heading of its column in the table; empty if it has none."""
    added: bool
    """Whether the numbers of a collection's phases are added up; otherwise the first one's counts."""
    work: bool
    """Whether a repair's number is added to its collection's."""
    logged: bool
    """Whether dualwrite.runs has a column of this name."""


def _counter(
    heading: str = "", *, default: float | None = 0, added: bool = True, work: bool = False, logged: bool = False
) -> Any:
    return field(default=default, metadata={"heading": heading, "added": added, "work": work, "logged": logged})


@dataclass
class CollectionReport:
    """The report of one phase of a run in one collection. Mutable while the phase lasts.

    `documents_read`: documents that the scan delivered, strays included; `billed_reads`: all reads that Firestore bills: these,
    the counts (one for 1,000) and each single document.
    """

    collection: str
    phase: str
    taken: int = 0
    """Keys taken up for examination, counted when they are read, not when they are judged."""
    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    excused_counts: Counter[str] = field(default_factory=Counter)
    """Drift that a person accepted, by verdict."""
    columns: Counter[str] = field(default_factory=Counter)
    """In how many stale rows each column differs, excused ones left out."""
    examined: int = _counter(logged=True)
    documents_read: int = _counter(logged=True)
    stray: int = _counter("stray")
    left_out: int = _counter("left out by where")
    """Documents that don't meet their collection's condition: they have no row, and aren't examined."""
    unlocatable: int = _counter("unlocatable")
    operations_left: int = _counter("operations left out")
    """Keys that only operations name and that were not looked at, because there are more than max_operation_looks."""
    expected: int = _counter("expected")
    """Drift that came while dual-write was switched off: kept open, and no failure."""
    inserted: int = _counter("inserted", work=True, logged=True)
    updated: int = _counter("updated", work=True, logged=True)
    deleted: int = _counter("deleted", work=True, logged=True)
    parents_inserted: int = _counter("parents inserted", work=True)
    derived_lag: int = _counter("counters lag")
    order_decides: int = _counter("order decides")
    """Rows that a look refuses because of a unique key or an exclusion constraint that the catalog doesn't know, and that an
    apply may write: rows that it updates leave their places there, and who gets one depends on Postgres's order."""
    source_count: int | None = _counter("documents", default=None, added=False)
    target_count: int | None = _counter("rows", default=None, added=False)
    reads_to_verify: int = _counter(added=False)
    """Reads that a complete read of the collection would bill."""
    proof_reads: int = _counter("reads for proofs", work=True, logged=True)
    """Reads of names, among the billed ones, to prove that no document has a row's key."""
    billed_reads: int = _counter("billed reads", work=True, logged=True)
    seconds: float = _counter("seconds", default=0.0, logged=True)
    verification: str | None = None
    slices: int = 0
    """The number of slices that it was examined in; 0 if in one piece."""
    not_examined: str | None = None
    """Why the collection was not completely examined; None if it was."""

    def add(self, finding: Finding) -> None:
        """Counts one examined key in its verdict and keeps a sample of it."""
        self.examined += 1
        self.counts[finding.verdict] += 1
        if finding.excused:
            self.excused_counts[finding.verdict] += 1
        elif finding.verdict is Verdict.STALE:
            self.columns.update(finding.columns)
        if finding.reason:
            self.reasons[f"{finding.verdict}: {finding.reason}"] += 1
        samples = self.samples.setdefault(finding.verdict, [])
        if len(samples) < SAMPLES:
            samples.append(finding.as_sample(SHOWN_CHARACTERS))

    def add_matching(self, number: int) -> None:
        """Counts keys whose row equals the document, without samples."""
        self.examined += number
        self.counts[Verdict.MATCHING] += number

    def add_work(self, repair: CollectionReport) -> None:
        """Adds the writes and reads of a repair of this collection, but not its verdicts, which are on the same keys."""
        for counter in COUNTERS:
            if counter.work:
                setattr(self, counter.name, getattr(self, counter.name) + getattr(repair, counter.name))

    @property
    def excused(self) -> int:
        return self.excused_counts.total()

    @property
    def left_alone(self) -> int:
        """How many missing and stale rows are excused: no run writes them."""
        return self.excused_counts[Verdict.MISSING] + self.excused_counts[Verdict.STALE]

    @property
    def drift(self) -> int:
        """Keys with a verdict that is drift, without excused and expected ones."""
        return sum(self.counts[v] for v in DRIFT) - self.excused - self.expected

    def check_identity(self) -> None:
        """Raises IdentityError unless every key taken up was examined and ended in exactly one verdict."""
        unknown = set(self.counts) - set(VERDICTS)
        total = sum(self.counts.values())
        if unknown or total != self.examined or self.examined != self.taken:
            raise IdentityError(
                f"Every key examined ends in exactly one verdict: {self.collection} started with {self.taken} keys, examined "
                f"{self.examined}, and counted {total} verdicts. This is a defect of the bundle: don't trust this collection's "
                "report. Report the defect with the task's log."
            )

    @property
    def outcome(self) -> Literal["examined", "not_examined"]:
        return "examined" if self.not_examined is None else "not_examined"

    def logged(self) -> dict[str, float | None]:
        """The numbers that dualwrite.runs has a column for, by the column's name."""
        return {c.name: getattr(self, c.name) for c in COUNTERS if c.logged} | {"seconds": round(self.seconds, 3)}

    def as_json(self) -> CollectionResult:
        # Slices may have been examined side by side, so the sum of their seconds isn't the time that passed.
        rate = self.seconds > 0 and not self.slices
        return {
            "collection": self.collection,
            "phase": self.phase,
            "outcome": self.outcome,
            "not_examined": self.not_examined,
            "counts": {str(v): self.counts[v] for v in VERDICTS},
            "drift": self.drift,
            "examined": self.examined,
            "excused": self.excused,
            "left_alone": self.left_alone,
            "excused_counts": {str(v): n for v, n in self.excused_counts.items()},
            "columns": dict(self.columns.most_common(SAMPLES)),
            "documents_read": self.documents_read,
            "stray": self.stray,
            "left_out": self.left_out,
            "unlocatable": self.unlocatable,
            "operations_left": self.operations_left,
            "expected": self.expected,
            "inserted": self.inserted,
            "updated": self.updated,
            "deleted": self.deleted,
            "parents_inserted": self.parents_inserted,
            "derived_lag": self.derived_lag,
            "order_decides": self.order_decides,
            "source_count": self.source_count,
            "target_count": self.target_count,
            "reads_to_verify": self.reads_to_verify,
            "proof_reads": self.proof_reads,
            "billed_reads": self.billed_reads,
            "seconds": round(self.seconds, 3),
            "documents_per_second": round(self.documents_read / self.seconds) if rate else None,
            "verification": self.verification,
            "slices": self.slices,
            "reasons": dict(self.reasons.most_common(SAMPLES)),
            "samples": {str(v): s for v, s in self.samples.items() if v != Verdict.MATCHING},
        }

    @classmethod
    def from_json(cls, given: CollectionResult) -> Self:
        """The report from its JSON; other keys are ignored."""
        return cls(
            given["collection"],
            given["phase"],
            taken=given["examined"],
            counts=Counter(given["counts"]),
            samples={verdict: list(samples) for verdict, samples in given["samples"].items()},
            reasons=Counter(given["reasons"]),
            examined=given["examined"],
            excused_counts=_excused_counts(given),
            columns=Counter(given.get("columns", {})),  # as below
            documents_read=given["documents_read"],
            stray=given["stray"],
            left_out=given.get("left_out", 0),  # the previous version's reports lack it
            unlocatable=given["unlocatable"],
            operations_left=given["operations_left"],
            expected=given["expected"],
            inserted=given["inserted"],
            updated=given["updated"],
            deleted=given["deleted"],
            parents_inserted=given["parents_inserted"],
            derived_lag=given["derived_lag"],
            order_decides=given.get("order_decides", 0),  # as above
            source_count=given["source_count"],
            target_count=given["target_count"],
            reads_to_verify=given["reads_to_verify"],
            proof_reads=given["proof_reads"],
            billed_reads=given["billed_reads"],
            seconds=given["seconds"],
            verification=given["verification"],
            slices=given["slices"],
            not_examined=given["not_examined"],
        )


def _excused_counts(given: CollectionResult) -> Counter[str]:
    """A task of the version before told the sum, and how many of it are missing or stale."""
    before = {Verdict.REJECTED: given["excused"] - given["left_alone"], Verdict.MISSING: given["left_alone"]}
    return Counter({str(v): n for v, n in given.get("excused_counts", before).items() if n})


COUNTERS = tuple(Counted(f.name, **f.metadata) for f in fields(CollectionReport) if f.metadata)


def merged(parts: Sequence[CollectionReport]) -> CollectionReport:
    """The reports of several phases of one collection, added up. Leave out phases that look at the same keys again (a repair,
    or the look after it). Raises IdentityError if the result doesn't add up."""
    whole = replace(parts[0], taken=sum(p.taken for p in parts), counts=Counter(), samples={}, reasons=Counter())
    whole = replace(whole, excused_counts=Counter(), columns=Counter())
    for counter in COUNTERS:
        if counter.added:
            setattr(whole, counter.name, sum(getattr(p, counter.name) for p in parts))
    for part in parts:
        whole.counts.update(part.counts)
        whole.reasons.update(part.reasons)
        whole.excused_counts.update(part.excused_counts)
        whole.columns.update(part.columns)
        for verdict, found in part.samples.items():
            whole.samples[verdict] = [*whole.samples.get(verdict, []), *found][:SAMPLES]
    whole.not_examined = next((p.not_examined for p in parts if p.not_examined), None)
    whole.check_identity()
    return whole


LIMIT = 60_000
"""Bytes of a report's JSON. XCom values are in Airflow's database; the promise is at most 64 KB."""

Whole = TypeVar("Whole", RunReport, GapReport)


def size(report: RunReport | GapReport) -> int:
    """A report's size, in bytes of JSON."""
    return len(json.dumps(report, ensure_ascii=False).encode())


def fit(report: Whole, limit: int = LIMIT) -> Whole:
    """The report with as many samples as fit into `limit` bytes; `samples_shown` says how many of each verdict."""
    keep = SAMPLES
    while size(report) > limit and keep > 0:
        keep //= 2
        for collection in report["collections"]:
            collection["samples"] = {v: s[:keep] for v, s in collection["samples"].items() if keep}
        report["samples_shown"] = keep
    return report


# --- as a person reads it -----------------------------------------------------------------------------------------------

_ALWAYS = ("billed_reads", "seconds")


def table(collections: Iterable[CollectionResult]) -> Table:
    """Counts by collection and verdict, without columns of zeros."""
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


def samples(collections: Iterable[CollectionResult]) -> list[Block]:
    """Collections that weren't examined, and samples of each verdict that isn't matching: ids, paths, columns, no content."""
    blocks: list[Block] = []
    for r in collections:
        if r["not_examined"]:
            blocks.append(Paragraph(f"{r['collection']} was not examined: {r['not_examined']}", strong=True))
        for verdict, of_verdict in r["samples"].items():
            prefix = f"{verdict}: "
            reasons = {k.removeprefix(prefix): n for k, n in r["reasons"].items() if k.startswith(prefix)}
            shown, counted = _by_reason(of_verdict, reasons)
            title = f"{r['collection']}, {verdict.replace('_', ' ')} ({r['counts'][verdict]:,}, {len(shown)} shown)"
            if verdict == Verdict.STALE and r.get("columns"):
                title += f": {differing(r['columns'])}"
            blocks.append(Items(title, [*counted, *map(_sample, shown)]))
    return blocks


def differing(columns: Mapping[str, int]) -> str:
    """In how many stale rows each column differs, as "title 12, content 3"."""
    return ", ".join(f"{name} {number:,}" for name, number in columns.items())


_ALIKE = 3
"""Samples shown for one reason that many share: more would be the same line with other keys."""


def _by_reason(samples: Sequence[Sample], reasons: Mapping[str, int]) -> tuple[list[Sample], list[str]]:
    """The samples of a verdict to show, and a line with the number for each reason that many share."""
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
    """Up to `most` names for people to read, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def total(collections: Iterable[CollectionResult]) -> Counter[str]:
    """The verdicts of all collections added up."""
    counts: Counter[str] = Counter()
    for r in collections:
        counts.update(r["counts"])
    return counts


def _sample(sample: Sample) -> list[str]:
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
