"""Inserts missing rows, or tries without writing to insert or update rows. If several documents claim one unique key, one of them gets it.

On one page the older document wins, then the smaller label; across pages, the first one read. A winner that Postgres refuses
gives up its keys, and the others get their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dualwrite.engine.units import Unit
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Row
from dualwrite.postgres.promises import claimant
from dualwrite.postgres.target import Difference, Write


class Claims:
    """The unique keys of rows that this run inserts, or would insert, and the documents that claimed them."""

    def __init__(self, uniques: Callable[[Row], Sequence[Key]]) -> None:
        """`uniques` gives a row's values for each further unique key."""
        self._uniques = uniques
        self._claimants: dict[tuple[int, Key], str] = {}
        self._claimed: dict[str, list[tuple[int, Key]]] = {}

    def claim(self, row: Row) -> bool:
        """Reserves the keys of a row to be written, instead of those that it had; False if another document of this run has one of
        them already."""
        self.release(row)
        wanted, own = self._wanted(row), claimant(row)
        if not self._are_free(wanted, own):
            return False
        self._claimants.update(dict.fromkeys(wanted, own))
        self._claimed[own] = wanted
        return True

    def are_free(self, row: Row) -> bool:
        """Whether no other document of this run has one of the row's keys."""
        return self._are_free(self._wanted(row), claimant(row))

    def _are_free(self, wanted: Sequence[tuple[int, Key]], own: str) -> bool:
        return all(self._claimants.get(w, own) == own for w in wanted)

    def _wanted(self, row: Row) -> list[tuple[int, Key]]:
        uniques = enumerate(self._uniques(row))
        return [(-1, row.key), *((n, values) for n, values in uniques if None not in values)]  # nulls are distinct

    def release(self, row: Row | Unit) -> None:
        """Gives up the keys of a row that isn't inserted after all."""
        for key in self._claimed.pop(claimant(row), ()):
            self._claimants.pop(key, None)

    def clear(self) -> None:
        self._claimants.clear()
        self._claimed.clear()


def by_age(difference: Difference) -> tuple[object, ...]:
    """The order in which documents of one page get their turn: the older first, then the smaller label."""
    return (difference.row.create_time, difference.row.label)


def write_in_turn(
    claims: Claims,
    differences: Sequence[Difference],
    write: Callable[[list[Difference]], Write],
    order: Callable[[Difference], Any] = by_age,
) -> tuple[Write, list[Difference]]:
    """Writes (or tries) rows with `write`; returns the result, and the differences that lost a unique key to another
    document."""
    whole = Write()
    waiting = sorted(differences, key=order)
    while waiting:
        claimed = [(d, claims.claim(d.row)) for d in waiting]
        winners = [d for d, won in claimed if won]
        waiting = [d for d, won in claimed if not won]
        written = write(winners)
        whole.journal.update(written.journal)
        whole.refused.update(written.refused)
        whole.late.update(written.late)
        rows = {d.n: d.row for d in winners}
        for n in written.refused:
            claims.release(rows[n])
        if not written.refused:
            break
    return whole, waiting
