"""The parts of a comparison, each alone."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from benchmarks.stack import COMMENTS, PAGE_SIZE, SCAN, Stack
from dualwrite.firestore.staging import Stager
from dualwrite.firestore.values import document_of
from dualwrite.model.mapping import Staged, map_document


class Parts:
    """Each method does one part for every comment and returns how many those were. Its input is made before, by `prepare`, outside
    the measured time."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    @cached_property
    def _messages(self) -> list[list[Any]]:
        with self._stack.source() as source:
            return [page.messages for page in source.pages(SCAN, PAGE_SIZE)]

    @cached_property
    def _staged(self) -> list[list[Staged]]:
        stage = Stager(COMMENTS).stage
        return [[row for n, m in enumerate(page) if (row := stage(n, m))] for page in self._messages]

    def prepare(self) -> None:
        _ = self._staged

    def pages(self) -> int:
        """The reader: the stream, cut into pages and proved by a count()."""
        with self._stack.source() as source:
            return sum(len(page.messages) for page in source.pages(SCAN, PAGE_SIZE))

    def documents(self) -> int:
        """The reader, every document as plain Python."""
        with self._stack.source() as source:
            return sum(len(page.documents) for page in source.pages(SCAN, PAGE_SIZE))

    def mapping(self) -> int:
        """The exact way: message, Document, Row."""
        return sum(1 for page in self._messages for m in page if map_document(COMMENTS, document_of(m)))

    def staging(self) -> int:
        """The short way: message, tuple."""
        stage = Stager(COMMENTS).stage
        return sum(1 for page in self._messages for n, m in enumerate(page) if stage(n, m))

    def copying(self) -> int:
        """COPY of staged rows."""
        return self._staging_table(compare=False)

    def comparing(self) -> int:
        """COPY and the comparing statement."""
        return self._staging_table(compare=True)

    def _staging_table(self, *, compare: bool) -> int:
        with self._stack.target() as target:
            statements = target.statements(COMMENTS)
            for page in self._staged:
                with target.transaction() as connection:
                    if compare:
                        target.compare_staged(connection, COMMENTS, page, _never)
                        continue
                    connection.execute(statements.create_stage)
                    with connection.cursor() as cursor, cursor.copy(statements.copy_stage) as copy:
                        assert statements.copy_types is not None
                        copy.set_types(statements.copy_types)
                        for row in page:
                            copy.write_row(row)
        return sum(map(len, self._staged))


def _never(n: int) -> Any:
    raise AssertionError("every comment matches")
