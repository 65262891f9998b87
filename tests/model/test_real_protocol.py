"""The writing protocol's own code, in every interleaving: `WritingProtocol`, `Judge` and `Deletes` over a model of both sides.

What SQL does there (comparing, conditional writes, the journal) is modelled statement by statement in world.py; what is
decided, in which order both sides are read, what is written and what is confirmed, is decided by the product's code.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine.classify import ParentState
from dualwrite.engine.compare_and_set import WritingProtocol
from dualwrite.engine.job import Job
from dualwrite.engine.parents import Parents
from dualwrite.engine.units import Policy, unit_of
from dualwrite.model.documents import Document
from dualwrite.model.report import CollectionReport
from dualwrite.model.verdicts import Reason, Verdict
from dualwrite.postgres.bad_rows import Refused
from dualwrite.postgres.remembered import excuses, journal
from dualwrite.postgres.target import Comparison, Deleted, Difference, Write
from tests.model.explore import Ask, Explored, explore
from tests.model.world import STARTS, World

BLOCKS = CATALOG["blocks"]
PATH = "users/u1/blockedUsers/u2"
UNIT = unit_of(BLOCKS, ("u1", "u2"), PATH)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _document(content: int) -> Document:
    moment = BEGIN + timedelta(seconds=content)
    return Document(PATH, {"blockedAt": moment}, BEGIN, moment)


def _content(row: Any) -> int:
    return round((row.update_time - BEGIN).total_seconds())


class ModelSource:
    """Firestore, as far as one document goes."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def get(self, paths: Sequence[str], fields: Sequence[str] = ()) -> dict[str, Document | None]:
        found = {}
        for path in paths:
            assert path == PATH
            content = self._ask("read")
            found[path] = None if content is None else _document(content)
        return found

    def get_in_parts(self, paths: Iterable[str], fields: Sequence[str] = ()) -> Iterator[dict[str, Document | None]]:
        if found := self.get(list(paths), fields):
            yield found


class ModelTarget:
    """Postgres, as far as one row and its journal go. A "connection" is the way to ask, for the journal."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Ask]:
        yield self._ask

    def versions(self, collection: Any, keys: Sequence[Any]) -> dict[Any, tuple[str, str]]:
        version = self._ask("version") if keys else None
        return {} if version is None else {UNIT.key: (str(version), f"row {version}")}

    def compare_staged(
        self, connection: Ask, collection: Any, page: Sequence[Any], of: Callable[[int], Any]
    ) -> Comparison:
        assert len(page) == 1
        row = of(0)
        there = self._ask("compare", _content(row))
        if there is None:
            return Comparison([Difference(0, row, False, None, (), (), (), None)], [], 0)
        same, xmin = there
        return Comparison([] if same else [Difference(0, row, True, str(xmin), ("created_at",), (), (), "d")], [], 0)

    def insert(
        self, connection: Ask, collection: Any, rows: Sequence[Any], ns: Sequence[int], run_id: str, late: Sequence[int]
    ) -> Write:
        assert not late
        number = self._ask("insert", _content(rows[0])) if ns else None
        return Write() if number is None else Write({0: number})

    def update(self, connection: Ask, collection: Any, unchanged: Sequence[Difference], run_id: str) -> Write:
        (difference,) = unchanged
        number = self._ask("update", _content(difference.row), int(str(difference.xmin)))
        return Write() if number is None else Write({0: number})

    def try_write(self, *_: Any, **__: Any) -> dict[int, Refused]:
        return {}

    def delete(self, collection: Any, candidates: Sequence[Any], run_id: str) -> Deleted:
        ((_, label, _, xmin),) = candidates
        _, *journal = self._ask("remove", int(xmin)).split()
        return Deleted({label: int(journal[0])} if journal else {})

    def untouched(self, connection: Ask, collection: Any, ids: Sequence[int]) -> frozenset[str]:
        return frozenset({UNIT.label}) if self._ask("untouched", tuple(ids)) else frozenset()


class Present(Parents):
    """Everybody that the row refers to is there."""

    def state(self, name: str, path: str) -> ParentState:
        return "present"


@pytest.fixture
def modelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def confirm(connection: Ask, ids: Sequence[int]) -> None:
        if ids:
            connection("confirm", tuple(ids))

    def unconfirmed(connection: Ask, collection: str) -> list[journal.JournalEntry]:
        entries = connection("entries")
        return [journal.JournalEntry(n, UNIT.label, PATH, action, UNIT.key) for n, action in entries]

    monkeypatch.setattr(excuses, "excuses_among", lambda *_: {})  # nobody accepted anything
    monkeypatch.setattr(journal, "confirm", confirm)
    monkeypatch.setattr(journal, "unconfirmed", unconfirmed)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def _protocol(ask: Ask, may_delete: bool, source: type = ModelSource) -> WritingProtocol:
    job = Job(source(ask), ModelTarget(ask), CATALOG, BLOCKS, "run", CollectionReport("blocks", "gap"))
    return WritingProtocol(job, Policy(delete=may_delete), Present(job))


def explored(*, delete: bool, operations: int, source: type = ModelSource) -> Explored:
    policy = Policy(insert=True, update=True, delete=delete)
    return explore(
        [start._replace(left=operations) for start in STARTS],
        lambda ask: _protocol(ask, delete, source).run([UNIT], policy),
        lambda ask: _protocol(ask, delete, source).finish_journal(),
        kills=1,
        unfinished=World.unfinished,
        # What came back is restored without deletes (WritingProtocol.run): should a client then delete the document and lose the
        # row's delete, its own row is told as extra, and left to the next run.
        judge=lambda world: world.wrong(may_delete=False),
    )


@pytest.mark.parametrize("delete", [True, False], ids=["with_deletes", "without_deletes"])
def test_the_code_ends_with_the_row_as_its_document(modelled, delete):
    """It overwrites nothing newer."""
    found = explored(delete=delete, operations=2)
    assert found.bad == []
    assert found.states > 10_000, "the model shrank: does it still explore what its docstring says?"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("delete", [True, False], ids=["with_deletes", "without_deletes"])
def test_with_three_operations_it_does_too(modelled, delete):
    assert explored(delete=delete, operations=3).bad == []


class BlindSource(ModelSource):
    """A second reading that says what the first one said: step 5 is there and sees nothing."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._first: dict[str, Document | None] | None = None

    def get(self, paths: Sequence[str], fields: Sequence[str] = ()) -> dict[str, Document | None]:
        if not paths:
            return {}
        self._first = self._first or super().get(paths, fields)
        return self._first


def test_the_model_sees_it_where_step_5_is_blind(modelled):
    assert explored(delete=True, operations=2, source=BlindSource).bad


def test_a_key_that_keeps_changing_is_looked_at_five_times(modelled, monkeypatch):
    """The pauses grow, and it is told as in flight. Nobody settles it, and the run goes on without it."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    versions = iter(range(100))

    def ask(statement: str, *_: Any) -> Any:
        """A client writes the row between any two statements."""
        version = next(versions)
        return {"version": version, "read": 5, "compare": (False, version)}[statement]

    [finding] = _protocol(ask, may_delete=False).run([UNIT], Policy(update=True))
    assert (finding.verdict, finding.reason) == (Verdict.IN_FLIGHT, Reason.KEPT_CHANGING)
    assert next(versions) == 5 * 3, "five times: version, document, comparison"
    for n, seconds in enumerate(slept, 1):
        assert 0.5 * 0.05 * 2**n <= seconds <= 0.05 * 2**n
    assert len(slept) == 4, "the first look waits for nobody"


def test_a_key_that_matches_is_looked_at_once(modelled, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    answers = {"version": 1, "read": 5, "compare": (True, 1)}
    [finding] = _protocol(lambda statement, *_: answers[statement], may_delete=False).run([UNIT], Policy(update=True))
    assert (finding.verdict, slept) == (Verdict.MATCHING, [])
