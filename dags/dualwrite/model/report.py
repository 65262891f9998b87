"""What a run found: counts that must add up, a few samples of each verdict, their JSON, and the blocks that render.py
shows a person.

A report holds ids, paths, column names, reasons and counts. It never holds a document's content.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualwrite.model import cost
from dualwrite.model.errors import IdentityError
from dualwrite.model.render import Block, Code, Items, Paragraph, Table, number
from dualwrite.model.verdicts import DRIFT, VERDICTS, Finding, Verdict

VERSION = 1
SAMPLES = 20
"""How many findings of one verdict a report shows; the counts beside them are exact."""

LONGEST_LABEL = 120
"""Characters of an id or a path that a report shows. Ids may have 1,500 bytes, and XCom values are kept small."""


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
    examined: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    documents_read: int = 0
    billed_reads: int = 0
    stray: int = 0
    unlocatable: int = 0
    derived_lag: int = 0
    expected: int = 0
    """Missing while dual-write is switched off: kept open, and no failure."""
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    parents_inserted: int = 0
    source_count: int | None = None
    target_count: int | None = None
    reads_to_verify: int = 0
    """What reading the collection whole would bill."""
    seconds: float = 0.0
    verification: str | None = None
    not_examined: str | None = None
    """Why the collection could not be read whole; None where it was."""

    def add(self, finding: Finding) -> None:
        """Counts one examined key in its verdict and keeps a sample of it."""
        self.examined += 1
        self.counts[finding.verdict] += 1
        if finding.excused:
            self.excused[finding.verdict] += 1
        if finding.reason:
            self.reasons[f"{finding.verdict}: {finding.reason}"] += 1
        samples = self.samples.setdefault(finding.verdict, [])
        if len(samples) < SAMPLES:
            samples.append(finding.as_sample(LONGEST_LABEL))

    def add_matching(self, number: int) -> None:
        """Counts keys whose row equals the document; nobody needs samples of those."""
        self.examined += number
        self.counts[Verdict.MATCHING] += number

    @property
    def drift(self) -> int:
        """Keys in a verdict that is drift, those left out that are excused or expected."""
        return sum(self.counts[v] - self.excused[v] for v in DRIFT) - self.expected

    def check_identity(self) -> None:
        """Raises IdentityError unless every key examined ended in exactly one verdict."""
        unknown = set(self.counts) - set(VERDICTS)
        total = sum(self.counts.values())
        if unknown or total != self.examined or self.examined != self.taken:
            raise IdentityError(
                f"Every key examined ends in exactly one verdict: {self.collection} took up {self.taken} keys, examined "
                f"{self.examined}, and its verdicts add up to {total}. This is a defect of the bundle: nothing it reported "
                "of this collection can be trusted. Report it with the task's log."
            )

    def as_json(self) -> dict[str, Any]:
        return {
            "collection": self.collection,
            "phase": self.phase,
            "outcome": "examined" if self.not_examined is None else "not_examined",
            "not_examined": self.not_examined,
            "examined": self.examined,
            "counts": {str(v): self.counts[v] for v in VERDICTS},
            "excused": sum(self.excused.values()),
            "drift": self.drift,
            "documents_read": self.documents_read,
            "billed_reads": self.billed_reads,
            "stray": self.stray,
            "unlocatable": self.unlocatable,
            "derived_lag": self.derived_lag,
            "expected": self.expected,
            "inserted": self.inserted,
            "updated": self.updated,
            "deleted": self.deleted,
            "parents_inserted": self.parents_inserted,
            "source_count": self.source_count,
            "target_count": self.target_count,
            "reads_to_verify": self.reads_to_verify,
            "seconds": round(self.seconds, 3),
            "documents_per_second": round(self.documents_read / self.seconds) if self.seconds > 0 else None,
            "verification": self.verification,
            "reasons": dict(self.reasons.most_common(SAMPLES)),
            "samples": {str(v): s for v, s in self.samples.items() if v != Verdict.MATCHING},
        }


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that is wrong. The task's last line, its exception and the Sentry event are made of `text`.

    `collection` and `verdict` are None where it is not about one of them; together they name the standing problem, so
    that a drift that stays is one issue and not a hundred.
    """

    text: str
    collection: str | None = None
    verdict: str | None = None
    cause: str | None = None


_ADDED = (
    "examined", "excused", "drift", "documents_read", "billed_reads", "stray", "unlocatable", "derived_lag", "expected",
    "inserted", "updated", "deleted", "parents_inserted",
)  # fmt: skip


def merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several phases of one collection as one: what was examined in each, added up. A phase that is no verdict on
    further keys (a repair, the look after it) is not to be among them."""
    first = parts[0]
    whole = {**first, **{name: sum(p[name] for p in parts) for name in _ADDED}}
    whole["seconds"] = round(sum(p["seconds"] for p in parts), 3)
    whole["counts"] = {v: sum(p["counts"][v] for p in parts) for v in first["counts"]}
    whole["not_examined"] = next((p["not_examined"] for p in parts if p["not_examined"]), None)
    whole["outcome"] = "not_examined" if whole["not_examined"] else "examined"
    reasons: Counter[str] = Counter()
    samples: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        reasons.update(part["reasons"])
        for verdict, found in part["samples"].items():
            samples[verdict] = [*samples.get(verdict, []), *found][:SAMPLES]
    whole |= {"reasons": dict(reasons.most_common(SAMPLES)), "samples": samples}
    if sum(whole["counts"].values()) != whole["examined"]:
        raise IdentityError(
            f"Every key examined ends in exactly one verdict: {whole['collection']} examined {whole['examined']} keys, and "
            f"its verdicts add up to {sum(whole['counts'].values())}. This is a defect of the bundle. Report it with the log."
        )
    return whole


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

_NUMBERS = (
    ("stray", "stray"),
    ("unlocatable", "unlocatable"),
    ("expected", "expected"),
    ("inserted", "inserted"),
    ("updated", "updated"),
    ("deleted", "deleted"),
    ("parents_inserted", "parents inserted"),
    ("derived_lag", "counters lag"),
    ("source_count", "documents"),
    ("target_count", "rows"),
    ("billed_reads", "billed reads"),
    ("cost", "cost"),
    ("seconds", "seconds"),
)


def table(collections: Sequence[Mapping[str, Any]]) -> Table:
    """Counts by collection and verdict. Columns that would hold nothing but zeros are left out."""
    shown = [v for v in VERDICTS if any(r["counts"][v] for r in collections)]
    always = ("billed_reads", "cost", "seconds")
    numbers = [(k, n) for k, n in _NUMBERS if k in always or any(r.get(k) for r in collections)]
    verified = any(r.get("verification") for r in collections)
    header = ["collection", "examined", *(str(v).replace("_", " ") for v in shown), *(name for _, name in numbers)]
    rows = []
    for r in collections:
        if r["outcome"] == "not_examined":
            row = [r["collection"], "NOT EXAMINED", *[""] * (len(header) - 2)]
        else:
            row = [
                r["collection"],
                number(r["examined"]),
                *(number(r["counts"][v]) if r["counts"][v] else "-" for v in shown),
            ]
            values = {**r, "cost": cost.amount(r["billed_reads"]) if r["billed_reads"] else None}
            row += [
                str(values[k]) if k == "cost" and values[k] else number(values[k]) if values.get(k) else "-"
                for k, _ in numbers
            ]
        rows.append([*row, str(r.get("verification") or "").replace("_", " ")] if verified else row)
    return Table([*header, "verification"] if verified else header, rows)


def samples(collections: Iterable[Mapping[str, Any]]) -> list[Block]:
    """What was not examined, and samples of every verdict that is not matching: ids, paths and columns, no content."""
    blocks: list[Block] = []
    for r in collections:
        if r["not_examined"]:
            blocks.append(Paragraph(f"{r['collection']} was not examined: {r['not_examined']}", strong=True))
        for verdict, found in r["samples"].items():
            title = f"{r['collection']}, {verdict.replace('_', ' ')} ({r['counts'][verdict]:,}, {len(found)} shown)"
            blocks.append(Items(title, [_sample(s) for s in found]))
    return blocks


def listed(counts: Mapping[str, int], verdicts: Iterable[str] = VERDICTS) -> str:
    """Counts that are not zero, as "2 missing, 1 stale"."""
    return ", ".join(f"{counts[v]:,} {str(v).replace('_', ' ')}" for v in verdicts if counts.get(v))


def total(collections: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """The verdicts of all collections added up."""
    found: Counter[str] = Counter()
    for r in collections:
        found.update(r["counts"])
    return found


def _sample(sample: Mapping[str, Any]) -> list[str]:
    """One finding in one line."""
    parts: list[str] = [Code(sample["key"])]
    if sample.get("path"):
        parts += ["at", Code(sample["path"])]
    if sample.get("columns"):
        parts.append("differs in " + ", ".join(sample["columns"]))
    if sample.get("reason"):
        parts.append(f"({sample['reason']})")
    if sample.get("cause"):
        parts.append(f"cause: {sample['cause']}")
    if sample.get("excused"):
        parts.append("excused")
    return parts
