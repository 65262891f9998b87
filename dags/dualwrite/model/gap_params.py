"""Pure: the parameters of backfill_gap."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import Field

from dualwrite.model.declaration import Catalog
from dualwrite.model.parameters import (
    EACH_DIFFERENCE,
    FINE_TUNING,
    MAX_BILLED_READS,
    Accepted,
    Collections,
    ExcuseReason,
    Instant,
    MaxBilledReads,
    MaxReadsPerSecond,
    MaxRowsPerSecond,
    Params,
    SliceDocuments,
    pairs,
    refuse_unknown_collections,
)
from dualwrite.model.windows import Window, gap_window


class GapParams(Params):
    """The parameters of one run of backfill_gap, checked. Instants are UTC."""

    mode: Literal["dry_run", "review", "apply"] = Field(
        "dry_run",
        title="Mode",
        description="A dry run writes nothing; its counts are what an apply would do.",
        json_schema_extra={
            "words": [
                "dry run: examine and report, write nothing",
                "review: dry run, then wait for an approval, then write",
                "apply: write missing and stale rows",
            ]
        },
    )
    update_stale: bool = Field(
        True,
        title="Update stale rows",
        description="Also update rows that differ from their document, besides inserting missing ones.",
    )
    collections: Collections = Field(description="Parents that they need are added; the report names them.")
    scope: Literal["window", "all"] = Field(
        "window",
        title="Scope",
        description="Choose all to also find edits that no timestamp shows; it costs one read for each document.",
        json_schema_extra={"words": ["window: documents written since the export", "all: every document"]},
    )
    since: Instant = Field(
        title="Since (the export's time)",
        description="The picker's time is in the zone chosen in Airflow. By API or CLI, write the offset from UTC: a time without "
        "one is refused, because reading local time as UTC would skip hours of writes.",
    )
    margin_hours: float = Field(
        24,
        ge=0,
        le=24 * 366,
        title="Margin (hours)",
        description="Start the window this long before Since. Rows that already match are left alone.",
    )
    until: Instant | None = Field(None, title="Until", description="With an offset from UTC; empty means now.")
    """Set when a run begins: never later than its beginning, and the same moment in all its tasks."""
    max_billed_reads: MaxBilledReads = None
    excuse: Accepted = Field(
        (),
        title="Excuse",
        description=EACH_DIFFERENCE + "all of its differences that an earlier verification left open.",
    )
    excuse_reason: ExcuseReason = None
    page_size: int = Field(
        5000,
        ge=1,
        le=50_000,
        title="Page size (documents)",
        description="Documents that are compared and written at a time.",
        json_schema_extra=FINE_TUNING,
    )
    explain_up_to: int | None = Field(
        None,
        ge=0,
        le=MAX_BILLED_READS,
        title="Explain up to (documents)",
        description="Larger collections are not verified key by key, and are reported as not proven. Empty: all are verified, "
        "at one read for each document.",
        json_schema_extra=FINE_TUNING,
    )
    grace_seconds: float = Field(
        15,
        ge=0,
        le=3600,
        title="Grace (seconds)",
        description="How much later the verification looks again at differences, because a row may lag behind its document.",
        json_schema_extra=FINE_TUNING,
    )
    slice_documents: SliceDocuments = 250_000
    max_reads_per_second: MaxReadsPerSecond = None
    max_rows_per_second: MaxRowsPerSecond = None
    added: tuple[str, ...] = Field((), strict=False)
    """Parents that the selection needs and that weren't selected."""

    @property
    def most_explained(self) -> float:
        """The most documents or rows that a collection may have to be verified key by key."""
        return math.inf if self.explain_up_to is None else self.explain_up_to

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.added, *self.collections)

    @property
    def window(self) -> Window:
        assert self.until is not None, "settled by `parse`"
        return gap_window(self.since, timedelta(hours=self.margin_hours), None, self.until)

    @property
    def scan_window(self) -> Window | None:
        return None if self.scope == "all" else self.window

    @property
    def excuses(self) -> tuple[tuple[str, str], ...]:
        return pairs(self.excuse)


def parse(given: Mapping[str, Any], catalog: Catalog, now: datetime) -> GapParams:
    """Checks the parameters of a run that begins at `now`, and sets `until` and `added`. Raises ParameterError with the first
    fault, CatalogError if a collection isn't declared."""
    params = GapParams.checked(given, catalog)
    window = gap_window(params.since, timedelta(hours=params.margin_hours), params.until, now)
    refuse_unknown_collections(params.excuses, catalog.names)
    added = tuple(name for name in catalog.with_parents(params.collections) if name not in params.collections)
    return params.model_copy(update={"until": window.end, "added": added})
