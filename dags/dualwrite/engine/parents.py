"""The documents that a row requires: whether they are there, and in a writing run, their rows first.

Firestore keeps what is below a deleted document, and the rows of deleted documents may still be there. So before a
row is called missing, all documents that it requires are looked up, not only those whose rows aren't there.
"""

from __future__ import annotations

from collections.abc import Iterable

from dualwrite.engine.classify import ParentState, parent_state
from dualwrite.engine.compare_and_set import Protocol
from dualwrite.engine.judge import Judge
from dualwrite.engine.page import Page
from dualwrite.engine.units import Policy
from dualwrite.firestore.source import Source
from dualwrite.model.declaration import Catalog
from dualwrite.model.documents import Unasked
from dualwrite.model.mapping import Row, map_document
from dualwrite.model.report import CollectionReport
from dualwrite.postgres.target import Target

_REMEMBERED = 200_000
"""Documents remembered in one run; forgotten all at once when there are more."""


class Parents:
    """What was learned of required documents in one run of one collection, by collection and path."""

    def __init__(
        self,
        source: Source,
        target: Target,
        catalog: Catalog,
        *,
        run_id: str,
        insert: bool,
        report: CollectionReport,
    ) -> None:
        self._source = source
        self._target = target
        self._catalog = catalog
        self._run_id = run_id
        self._policy = Policy(insert=insert)
        self._report = report
        self._known: dict[tuple[str, str], ParentState] = {}
        self._workers: dict[str, tuple[Judge, Protocol]] = {}

    def close(self) -> None:
        for _, protocol in self._workers.values():
            protocol.close()

    def state(self, name: str, path: str) -> ParentState | None:
        """What is known of a document; None where nobody asked yet."""
        return self._known.get((name, path))

    def insertable(self) -> list[tuple[str, str]]:
        """Collections and paths of the documents that were asked for, could have a row and have none: what an inserting run
        writes for those that require them."""
        return [required for required, state in self._known.items() if state == "insertable"]

    def forget(self) -> None:
        """Keeps what is remembered within bounds; called between pages."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()

    def learn(self, required: Iterable[tuple[str, str]]) -> None:
        """Reads documents; those without a row are inserted where the run inserts, with their own parents first.

        Called between transactions: no lock and no snapshot of ours is held while Firestore is read.
        """
        by_name: dict[str, list[str]] = {}
        for name, path in dict.fromkeys(required):
            by_name.setdefault(name, []).append(path)
        for name, paths in by_name.items():
            for path, state in self._settle(name, paths).items():
                self._known[name, path] = state

    def _settle(self, name: str, paths: list[str]) -> dict[str, ParentState]:
        collection = self._catalog[name]
        states: dict[str, ParentState] = {}
        rows: list[Row] = []
        for path, document in self._source.get(paths, collection.fields).items():
            if document is None:
                states[path] = "gone"
                continue
            units = None if isinstance(document, Unasked) else map_document(collection, document)
            if units and isinstance(units[0], Row):
                rows.append(units[0])
            else:
                states[path] = "unfit"
        if not rows:
            return states
        judge, protocol = self._worker(name)
        judged = judge.judge(Page.of(judge.stager, rows), self._policy)
        for n, row in enumerate(rows):
            states[row.path] = parent_state(judged.findings.get(n), n in judged.journal)
        inserted = [rows[n] for n in judged.journal]
        self._report.parents_inserted += len(inserted)
        protocol.confirm_later(inserted, list(judged.journal.values()))
        protocol.collect_confirmations(wait=True)
        return states

    def _worker(self, name: str) -> tuple[Judge, Protocol]:
        if name not in self._workers:
            judge = Judge(
                self._source,
                self._target,
                self._catalog,
                self._catalog[name],
                report=CollectionReport(name, self._report.phase),
                run_id=self._run_id,
                parents=self,
            )
            self._workers[name] = judge, Protocol(judge, self._policy)
        return self._workers[name]
