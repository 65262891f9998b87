"""A cap on billed reads, shared by threads: never passed, and nobody waits who needn't."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from dualwrite.firestore.budget import _LENT, Budget
from dualwrite.model.errors import BudgetError


@contextmanager
def begun(work: Callable[[], object]) -> Iterator[threading.Event]:
    """Work in a thread of its own, which has ended by the end of the block."""
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield done
    thread.join(20)
    assert done.is_set(), "it waits for ever"


def spent(limit: int, earlier: int) -> Budget:
    """A cap of which earlier tasks have spent a part."""
    budget = Budget(limit)
    budget.count_earlier(lambda: earlier)
    return budget


def lent(budget: Budget, least: int = 1, **how: bool) -> int | None:
    with budget.asking(least, "count() of posts", **how) as most:
        return most


def test_without_a_cap_any_number_may_be_read():
    budget = Budget()
    assert (budget.spent, budget.left, lent(budget)) == (0, None, None)
    budget.reserve(10**9, "reading posts")
    budget.spend(7)
    assert (budget.spent, budget.left) == (10**9 + 7, None)


def test_what_was_spent_before_counts():
    budget = spent(10, 4)
    assert (budget.spent, budget.left) == (4, 6)
    budget.spend(5)
    assert (budget.spent, budget.left) == (9, 1)
    budget.spend(-2)
    assert (budget.spent, budget.left) == (7, 3)


def test_what_was_spent_before_is_asked_once():
    """By the first of several threads that share a cap; of one that fails to learn it, by the next."""
    budget = Budget(10)
    with pytest.raises(ZeroDivisionError):
        budget.count_earlier(lambda: 1 // 0)
    for earlier in (4, 5):
        budget.count_earlier(lambda earlier=earlier: earlier)
    assert budget.spent == 4
    uncapped = Budget()
    uncapped.count_earlier(lambda: 1 // 0)
    assert uncapped.spent == 0, "without a cap nobody is asked"


@pytest.mark.parametrize(
    ("limit", "least", "everything", "expected"),
    [
        (9 * _LENT, 1, False, _LENT),
        (9 * _LENT, _LENT + 5, False, _LENT + 5),
        (9 * _LENT, 1, True, 9 * _LENT),
        (_LENT - 7, 1, False, _LENT - 7),
        (5, 5, False, 5),
    ],
)
def test_a_call_is_lent_what_it_needs_and_no_more_than_is_left(limit, least, everything, expected):
    budget = Budget(limit)
    for _ in range(2):  # what was lent is there again
        assert lent(budget, least, all_that_is_left=everything) == expected
    assert budget.left == limit


def test_a_call_that_needs_more_than_is_left_is_refused():
    budget = spent(10, 4)
    with pytest.raises(
        BudgetError, match=r"max_billed_reads = 10 reads: 4 are spent .*, and count\(\) of posts would cost 7 \("
    ):
        lent(budget, 7)
    assert lent(budget, 6) == 6
    with pytest.raises(BudgetError, match="would cost 1 or more"):
        raise budget.refusal(1, "more", or_more=True)


def test_calls_run_side_by_side_while_there_is_enough_for_each():
    budget = Budget(2 * _LENT)
    with ExitStack() as calls:
        assert [calls.enter_context(budget.asking(1, "a count")) for _ in range(2)] == [_LENT, _LENT]
        with begun(lambda: lent(budget)) as third:
            assert not third.wait(0.2), "nothing is left to be lent"
            calls.close()


@pytest.mark.parametrize("left", [0, 1, _LENT - 1])
def test_a_call_waits_for_others_rather_than_be_lent_too_little(left):
    budget, got = Budget(_LENT + left), []
    with ExitStack() as first:
        first.enter_context(budget.asking(1, "a count"))
        with begun(lambda: got.append(lent(budget))) as second:
            assert not second.wait(0.2)
            budget.spend(left)
            first.close()
    assert got == [_LENT]


def test_who_takes_all_that_is_left_waits_for_everybody():
    budget, got = Budget(9 * _LENT), []
    with ExitStack() as first:
        first.enter_context(budget.asking(1, "a count"))
        with begun(lambda: got.append(lent(budget, all_that_is_left=True))) as second:
            assert not second.wait(0.2)
            budget.spend(5)
            first.close()
    assert got == [9 * _LENT - 5]


def test_what_a_failed_call_was_lent_is_given_back():
    budget = Budget(_LENT)
    with pytest.raises(ValueError), budget.asking(1, "a count"):
        raise ValueError
    assert lent(budget) == _LENT


def test_a_scan_takes_its_reads_up_to_the_cap():
    budget = Budget(10)
    budget.reserve(4, "reading posts")
    with pytest.raises(BudgetError, match="4 are spent .* reading posts would cost 7 "):
        budget.reserve(7, "reading posts")
    budget.reserve(6, "reading posts")
    assert (budget.spent, budget.left) == (10, 0)


def test_a_scan_waits_only_for_reads_that_are_lent():
    budget = Budget(2 * _LENT)
    with ExitStack() as call:
        call.enter_context(budget.asking(1, "a count"))
        budget.reserve(_LENT, "a scan that fits beside it")
        budget.spend(-_LENT)
        with begun(lambda: budget.reserve(_LENT + 1, "a scan")) as scan:
            assert not scan.wait(0.2)
            call.close()
    assert budget.spent == _LENT + 1
