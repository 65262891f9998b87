"""Step 5 of a page's inserts, beside the next page: a thread reads the rows' documents once more. Rows that refer to others which
come later wait for these first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from dualwrite.engine.units import Unit, unit_of_row
from dualwrite.firestore.source import Source
from dualwrite.model.documents import Answer, Document
from dualwrite.model.mapping import Row

_MOST_PAGES = 2
"""Pages that may wait for their answers while the next one is judged."""


@dataclass(frozen=True, slots=True)
class _Inserted:
    """A row that was inserted and isn't confirmed yet, without its content."""

    unit: Unit
    path: str
    update_time: datetime
    journal_id: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A page's inserts after their documents were read again: journal ids of those with unchanged documents, and the others,
    with their journal ids."""

    still: list[int] = field(default_factory=list)
    moved: list[tuple[Unit, int]] = field(default_factory=list)


class Confirmations:
    """The inserts of one collection that aren't confirmed yet."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="confirm")
        self._waiting: list[tuple[list[_Inserted], Future[dict[str, Answer]]]] = []
        self._late: list[tuple[Unit, int]] = []
        """Rows inserted with nulls in place of references to rows that weren't there yet, with their journal ids."""

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def ask(self, rows: Sequence[Row], journal_ids: Sequence[int]) -> None:
        """Starts reading the documents of these rows again, each once."""
        if rows:
            written = [
                _Inserted(unit_of_row(row), row.path, row.update_time, i)
                for row, i in zip(rows, journal_ids, strict=True)
            ]
            paths = list(dict.fromkeys(row.path for row in rows))
            self._waiting.append((written, self._executor.submit(self._source.get, paths)))

    def answered(self, *, wait: bool) -> Iterator[Answered]:
        """The pages whose documents were read again, in their order; with `wait`, all of them."""
        while self._waiting and (wait or self._waiting[0][1].done() or len(self._waiting) > _MOST_PAGES):
            written, future = self._waiting.pop(0)
            documents = future.result()
            answer = Answered()
            for one in written:
                document = documents[one.path]
                if isinstance(document, Document) and document.update_time == one.update_time:
                    answer.still.append(one.journal_id)
                else:
                    answer.moved.append((one.unit, one.journal_id))
            yield answer

    # --- rows that wait for others ----------------------------------------------------------------------------------------

    def add_late(self, unit: Unit, journal_id: int) -> None:
        """Adds a row with nulls in place of references to rows that weren't there yet."""
        self._late.append((unit, journal_id))

    @property
    def has_late(self) -> bool:
        return bool(self._late)

    def take_late(self) -> list[tuple[Unit, int]]:
        """These rows, with their journal ids; they wait no longer."""
        late, self._late = self._late, []
        return late
