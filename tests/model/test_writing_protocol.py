"""The writing protocol of docs/protocol.md, in every interleaving with clients that fail, killed at any step.

The model is one document and its row, up to three operations of clients (create, edit, delete, upsert; either half
failing), our run killed once (`make soak`: twice) and finished from its journal.
"""

from __future__ import annotations

import pytest

from tests.model.explore import Ask, Explored, explore
from tests.model.world import STARTS, World

ROUNDS = 5


def five_steps(ask: Ask, *, insert: bool, update: bool, delete: bool, own: bool, break_: str = "") -> bool:
    """The protocol for one key. Returns whether its last look held still."""
    for _ in range(ROUNDS):
        if break_ == "1 and 2 swapped":
            read = ask("read")
            version = ask("version")
        else:
            version = ask("version")
            read = ask("read")
        if read is not None:
            done = ask("put", read, version, insert, update)
            verdict, *journal = done.split()
            settled = (
                verdict == "matching" or (verdict == "missing" and not insert) or (verdict == "stale" and not update)
            )
        elif version is None or not (delete or own):
            return True
        else:
            done = ask("remove", version)
            verdict, *journal = done.split()
            settled = False
        if not journal:
            if settled:
                return True
            continue
        if break_ == "no step 5" or ask("read") == read:
            ask("confirm", tuple(int(n) for n in journal))
            return True
    return False


def repair(ask: Ask, *, delete: bool, break_: str = "") -> None:
    """A run over the key, and what it wrote and could not confirm."""
    five_steps(ask, insert=True, update=True, delete=delete, own=False, break_=break_)
    finish(ask, delete=delete, break_=break_)


def finish(ask: Ask, *, delete: bool, break_: str = "") -> None:
    """What the next writing run does first."""
    open_ = ask("unconfirmed")
    if not open_:
        return
    own = ask("untouched", open_)
    if five_steps(ask, insert=True, update=True, delete=delete, own=own, break_=break_):
        ask("confirm", open_)


def explored(*, delete: bool, operations: int = 3, break_: str = "", kills: int = 1) -> Explored:
    def program(ask: Ask) -> None:
        repair(ask, delete=delete, break_=break_)

    def resume(ask: Ask) -> None:
        finish(ask, delete=delete, break_=break_)

    return explore(
        [start._replace(left=operations) for start in STARTS],
        program,
        resume,
        kills=kills,
        unfinished=World.unfinished,
        judge=lambda world: world.wrong(may_delete=delete),
    )


def test_the_row_always_ends_as_its_document():
    """No newer row is overwritten."""
    found = explored(delete=True)
    assert found.bad == []
    assert found.states > 300_000, "the model shrank: does it still explore what its docstring says?"


def test_without_deletes_only_rows_to_delete_end_otherwise():
    """The row always ends as its document, unless only a delete could mend it."""
    found = explored(delete=False, operations=2)
    assert found.bad == []
    assert found.states > 10_000, "the model shrank: does it still explore what its docstring says?"


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("delete", [True, False], ids=["with_deletes", "without_deletes"])
def test_killed_twice_the_row_ends_as_its_document(delete):
    assert explored(delete=delete, kills=2).bad == []


def test_without_step_5_a_deleted_document_leaves_its_row_behind():
    wrongs = {wrong for wrong, *_ in explored(delete=True, break_="no step 5").bad}
    assert any(wrong.startswith("document None, row ") for wrong in wrongs), "no resurrection"
    assert any(not wrong.startswith("document None") for wrong in wrongs), "no lost edit"


def test_with_steps_1_and_2_swapped_newer_rows_are_overwritten():
    wrongs = {wrong for wrong, *_ in explored(delete=True, operations=2, break_="1 and 2 swapped").bad}
    assert "a newer row was overwritten" in wrongs
