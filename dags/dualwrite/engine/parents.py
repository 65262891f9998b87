"""The documents that a row requires: whether they are there, and in a writing run, their rows first.

Firestore keeps what is below a deleted document, and the rows of deleted documents may still be there. So before a
row is called missing, all documents that it requires are looked up, not only those whose rows aren't there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from datetime import timedelta

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
from dualwrite.postgres.remembered import gone
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
        self.trusted: timedelta | None = None
        """How long it holds that a document without a row was gone when it was asked for; None: it is asked for again."""
        self.gone: set[tuple[str, str]] = set()
        """Documents without a row, by collection and path, that were asked for and are gone."""
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

    def learn(self, required: Iterable[tuple[str, str]], rowless: Container[tuple[str, str]] = frozenset()) -> None:
        """Reads documents; those without a row are inserted where the run inserts, with their own parents first. Of the
        `rowless` ones, whose row isn't there, those are not asked for that were gone lately: one that came back has a row,
        or is missing itself.

        Called between transactions: no lock and no snapshot of ours is held while Firestore is read.
        """
        by_name: dict[str, list[str]] = {}
        wanted = dict.fromkeys(required)
        if self.trusted is not None and (without := [r for r in wanted if r in rowless]):
            for document in gone.known(self._target, without, self.trusted):
                self._known[document] = "gone"
                del wanted[document]
        for name, path in wanted:
            by_name.setdefault(name, []).append(path)
        for name, paths in by_name.items():
            for path, state in self._settle(name, paths).items():
                self._known[name, path] = state
                if state == "gone" and (name, path) in rowless:
                    self.gone.add((name, path))

    def _settle(self, name: str, paths: list[str]) -> dict[str, ParentState]:
        collection = self._catalog[name]
        states: dict[str, ParentState] = {}
        for documents in self._source.get_in_parts(paths, collection.fields):
            rows: list[Row] = []
            for path, document in documents.items():
                if document is None:
                    states[path] = "gone"
                    continue
                units = None if isinstance(document, Unasked) else map_document(collection, document)
                if units and isinstance(units[0], Row):
                    rows.append(units[0])
                else:
                    states[path] = "unfit"
            states.update(self._judged(name, rows))
        return states

    def _judged(self, name: str, rows: Sequence[Row]) -> dict[str, ParentState]:
        """What these documents are by their own rows, which are inserted where the run inserts."""
        if not rows:
            return {}
        judge, protocol = self._worker(name)
        judged = judge.judge(Page.of(judge.stager, rows), self._policy)
        inserted = [rows[n] for n in judged.journal]
        self._report.parents_inserted += len(inserted)
        protocol.confirm_later(inserted, list(judged.journal.values()))
        protocol.collect_confirmations(wait=True)
        return {row.path: parent_state(judged.findings.get(n), n in judged.journal) for n, row in enumerate(rows)}

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
