"""Pure: the parameters of reconcile_dual_writes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from dualwrite.model.errors import ParameterError
from dualwrite.model.named import Named, by_collection
from dualwrite.model.parameters import (
    ALARMS,
    EACH_DIFFERENCE,
    FINE_TUNING,
    MAX_BILLED_READS,
    Accepted,
    Collections,
    Differences,
    ExcuseReason,
    MaxBilledReads,
    MaxReadsPerSecond,
    MaxRowsPerSecond,
    Params,
    SliceDocuments,
    pairs,
)

BY_A_PERSON = ("keys", "undo", "excuse", "excuse_reason", "unexcuse")
"""Parameters that only a person gives, for differences open at that moment; a Variable would apply to all later ones too."""


SCHEDULED_MAX_BILLED_READS = 2_000_000
"""The cap of a scheduled run without Variable reconcile_max_billed_reads, $1.20, because clients can cause reads. A sweep of
more documents needs that Variable; null in it means no cap."""


def _looks_at_these(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    chosen: tuple[str, ...] = info.data.get("collections") or ()
    if value and info.data.get("scope") == "sweep":
        raise ParameterError(
            "A run with keys looks at these and compares nothing else: leave scope = sweep out, or keys.",
            code="keys-with-sweep",
        )
    for name, key in pairs(value) if chosen else ():
        if name not in chosen:
            raise ParameterError(
                f"keys names {name}:{key}, but collections leaves {name} out. Choose from {', '.join(chosen)}.",
                code="keys-outside-collections",
            )
    return value


def _nothing_else(value: str | None, info: ValidationInfo) -> str | None:
    if value is not None and (info.data.get("repair") != "off" or info.data.get("keys")):
        raise ParameterError(
            "A run with undo takes another one back, and does nothing else: leave repair and keys out, or undo.",
            code="undo-with-others",
        )
    return value


class ReconcileParams(Params):
    """The parameters of one run of reconcile_dual_writes, checked. A scheduled run takes Variables reconcile_<name>."""

    repair: Literal["off", "missing", "missing_and_stale", "all"] = Field(
        "off",
        title="Repair",
        description="Triggering is the approval: there is no further question.",
        json_schema_extra={
            "words": [
                "off: compare and report, write nothing",
                "missing: insert missing rows",
                "missing and stale: also update rows that differ",
                "all: also delete rows whose documents are gone",
            ]
        },
    )
    scope: Literal["recent", "sweep", "none"] = Field(
        "recent",
        title="Scope",
        description="A sweep also finds differences that no window shows; it costs one read for each document.",
        json_schema_extra={
            "words": [
                "recent: written since the last run, and sweeps that are due",
                "sweep: every document and every row",
                "none: compare nothing but keys; excuses count at once",
            ]
        },
    )
    collections: Collections = Field(
        description="The others keep their watermark: the next run that selects them starts there."
    )
    keys: Annotated[Differences, AfterValidator(_looks_at_these)] = Field(
        (),
        title="Only these",
        description=EACH_DIFFERENCE + "all of its open differences. The run looks at these, repairs no others, and "
        "compares nothing else. A row that one of them needs and that isn't named here is reported, not written.",
    )
    undo: Annotated[
        str | None,
        Field(  # before the validator: a bound that stands after one is applied to None, too
            max_length=250,
            title="Undo a run",
            description="The id of a run, of this DAG or of backfill_gap, that has ended: its writes in the selected collections are "
            "taken back by its journal, except in rows that were written since. Compares nothing.",
        ),
        AfterValidator(_nothing_else),
    ] = None
    max_repairs: int = Field(
        500,
        ge=1,
        le=1_000_000,
        title="Max. rows",
        description="A repair of more rows than this is refused entirely. Parents that missing rows need count too.",
    )
    max_share: float = Field(
        5,
        ge=0,
        le=100,
        title="Max. share of a table (%)",
        description="Refuse the whole repair if it would change more than this share of a table (checked above 20 updates and "
        "deletes).",
    )
    max_billed_reads: MaxBilledReads = None
    max_proof_reads: int = Field(
        250_000,
        ge=0,
        le=MAX_BILLED_READS,
        title="Max. reads to prove a delete (max_proof_reads)",
        description="A row is called extra or deleted only after all document names of its collection were read. If there are more "
        "than this, it stays open as absence_not_proved.",
    )
    max_proof_reads_a_day: int = Field(
        1_000_000,
        ge=0,
        le=MAX_BILLED_READS,
        title="Max. reads for proofs a day",
        description="Once scheduled runs have read this many names within 24 hours, they prove no more deletes: these rows "
        "stay open as absence_not_proved, and the run reports it. Any client can make a row that needs a proof.",
        json_schema_extra=FINE_TUNING,
    )
    excuse: Accepted = Field((), title="Excuse", description=EACH_DIFFERENCE + "all of its differences open now.")
    excuse_reason: ExcuseReason = None
    unexcuse: Accepted = Field(
        (),
        title="Take an excuse back",
        description="One a line, as collection:key or collection:*; the difference counts as open again.",
    )
    minutes: int = Field(
        30,
        ge=1,
        le=7 * 24 * 60,
        title="Minutes",
        description="The window begins at the collection's watermark or this long ago, whichever is earlier.",
        json_schema_extra=FINE_TUNING,
    )
    overlap_minutes: int = Field(
        60,
        ge=0,
        le=7 * 24 * 60,
        title="Overlap (minutes)",
        description="Start the documents' window this much earlier, to catch writes that an offline phone sends late with old "
        "timestamps.",
        json_schema_extra=FINE_TUNING,
    )
    grace_seconds: float = Field(
        120,
        ge=0,
        le=3600,
        title="Grace (seconds)",
        description="A difference is drift if a second look, this much later, finds it unchanged.",
        json_schema_extra=FINE_TUNING,
    )
    sweep_every_hours: float = Field(
        24,
        ge=0,
        le=24 * 366,
        title="Sweep every (hours)",
        description="A collection that has not been swept for this long is swept. Costs one read for each document.",
        json_schema_extra=FINE_TUNING,
    )
    slice_documents: SliceDocuments = 250_000
    max_reads_per_second: MaxReadsPerSecond = None
    max_rows_per_second: MaxRowsPerSecond = None
    liveness_minimum: int = Field(
        5,
        ge=1,
        le=1_000_000,
        title="Liveness minimum (documents)",
        description="If at least this many documents are created and none of their rows arrives by itself, dual-write seems off, "
        "whatever write_ops says; likewise for one collection. Documents that were only updated count if write_ops is silent.",
        json_schema_extra=FINE_TUNING,
    )
    max_unattempted_repairs: int = Field(
        5,
        ge=0,
        le=1_000_000,
        title="Unattempted repairs a day",
        description="A scheduled repair fails if scheduled runs have repaired more than this many rows within 24 hours that no "
        "operation had attempted: repairs must not hide that dual-write is off.",
        json_schema_extra=ALARMS,
    )
    max_repairs_a_day: int = Field(
        20,
        ge=0,
        le=1_000_000,
        title="Other repairs a day",
        description="The same limit for each other cause: rows whose operation had failed, rows for which no operation shows "
        "why (inserted parents among them), and rows missed while dual-write was switched off.",
        json_schema_extra=ALARMS,
    )
    max_examined_age_hours: float = Field(
        6,
        ge=0,
        le=24 * 366,
        title="Oldest complete comparison (hours)",
        description="A scheduled run fails if any collection's last complete comparison is older than this; a manual run checks "
        "only the selected ones. 0 switches this off.",
        json_schema_extra=ALARMS,
    )
    max_swept_age_hours: float = Field(
        72,
        ge=0,
        le=24 * 366,
        title="Oldest sweep (hours)",
        description="The same for sweeps; at least twice sweep_every_hours. 0 switches this off.",
        json_schema_extra=ALARMS,
    )
    write_ops_required: bool = Field(
        True,
        title="write_ops must be readable",
        description="The run fails if write_ops can't be read, because then nothing shows why a row differs. A catalog that "
        "declares no operations needs no write_ops.",
        json_schema_extra=ALARMS,
    )
    max_open_looks: int = Field(
        5000,
        ge=1,
        le=1_000_000,
        title="Max. open differences",
        description="Open differences that one run looks at again, those seen longest ago first. The others stay "
        "open, and the report counts them. Costs one or two reads each.",
        json_schema_extra=FINE_TUNING,
    )

    max_operation_looks: int = Field(
        5000,
        ge=0,
        le=1_000_000,
        title="Max. keys that only operations name",
        description="Keys of a collection that one run looks at because only an operation names them, no document or row "
        "of the window. The report counts the others; they fail the run and are left to the sweep.",
        json_schema_extra=FINE_TUNING,
    )

    @property
    def compares(self) -> bool:
        """Whether the run compares windows or sweeps; otherwise it looks only at named keys, or at nothing."""
        return self.scope != "none" and not self.keys and self.undo is None

    @cached_property
    def named(self) -> Mapping[str, Named]:
        """The named keys and verdicts, by collection."""
        return by_collection(pairs(self.keys))

    def repairs_key(self, collection: str, label: str, verdict: str) -> bool:
        """Whether a repair may touch this difference: if keys are named, only one of these."""
        if not self.keys:
            return True
        named = self.named.get(collection)
        return named is not None and named.names(label, verdict)

    @property
    def excuses(self) -> tuple[tuple[str, str], ...]:
        return pairs(self.excuse)

    @property
    def unexcuses(self) -> tuple[tuple[str, str], ...]:
        return pairs(self.unexcuse)
