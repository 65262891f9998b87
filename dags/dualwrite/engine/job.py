"""The job of examining one collection: between which databases, for which run, counted in which report."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.report import CollectionReport
from dualwrite.postgres.target import Target


@dataclass(frozen=True, slots=True)
class Job:
    """One collection in one phase of one run. `report` fills while it is examined."""

    source: Source
    target: Target
    catalog: Catalog
    collection: Collection
    run_id: str
    report: CollectionReport

    def of(self, name: str) -> Job:
        """The same for a collection that this one requires. Its report isn't used."""
        return replace(self, collection=self.catalog[name], report=CollectionReport(name, self.report.phase))
