"""Inserts missing rows, or tries it without writing. If several documents claim one unique key, one of them gets it.

On one page the older document wins, then the smaller label; across pages, the first one read. A winner that Postgres refuses
gives up its keys, and the others get their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dualwrite.engine.units import Unit
from dualwrite.model.mapping import Key, Row
from dualwrite.postgres.bad_rows import Refused, by_constraint
from dualwrite.postgres.target import Difference, Write
from dualwrite.postgres.trial import Place, Tried


class Claims:
    """The unique keys of rows that this run inserts, or would insert, and the documents that claimed them."""

    def __init__(self, uniques: Callable[[Row], Sequence[Key]]) -> None:
        """`uniques` gives a row's values for each further unique key."""
        self._uniques = uniques
        self._claimants: dict[tuple[int, Key], str] = {}
        self._claimed: dict[str, list[tuple[int, Key]]] = {}

    def claim(self, row: Row) -> bool:
        """Reserves the keys of a row to be inserted; False if another document of this run has one of them already."""
        wanted: list[tuple[int, Key]] = [(-1, row.key)]
        for number, values in enumerate(self._uniques(row)):
            if None not in values:  # nulls are distinct in a unique key
                wanted.append((number, values))
        claimant = _claimant(row)
        if any(self._claimants.get(w, claimant) != claimant for w in wanted):
            return False
        self._claimants.update(dict.fromkeys(wanted, claimant))
        self._claimed[claimant] = wanted
        return True

    def release(self, row: Row | Unit) -> None:
        """Gives up the keys of a row that isn't inserted after all."""
        for key in self._claimed.pop(_claimant(row), ()):
            self._claimants.pop(key, None)

    def clear(self) -> None:
        self._claimants.clear()
        self._claimed.clear()


class Promises:
    """The rows that a dry run would have written by now: their places in unique keys that the catalog doesn't know, and their
    keys, which others of their table may reference. With them it refuses the rows that an apply would."""

    def __init__(self) -> None:
        self._places: dict[Place, str] = {}
        self._keys: set[Key] = set()

    def settle(self, rows: Mapping[int, Row], tried: Tried) -> dict[int, Refused]:
        """The tried rows that the target would refuse, by number, those included that an earlier row blocks."""
        refused = dict(tried.refused)
        for n in sorted(rows):
            if n not in refused:
                claimant, places = _claimant(rows[n]), tried.takes.get(n, [])
                taken = next((place for place in places if self._places.get(place, claimant) != claimant), None)
                if taken is not None:
                    refused[n] = by_constraint(taken[0], "23505")
                    continue
                self._places.update(dict.fromkeys(places, claimant))
        if tried.has_own_references:
            self._settle_own(rows, tried, refused)
        return refused

    def _settle_own(self, rows: Mapping[int, Row], tried: Tried, refused: dict[int, Refused]) -> None:
        """Adds to `refused` the rows whose references within their table stay open, as one statement would leave them."""
        while True:
            there = self._keys | {row.key for n, row in rows.items() if n not in refused}
            lacking = {
                n: replace(by_constraint(name, "23503"), own_table=True)
                for n, needs in tried.needs.items()
                for name, key in needs
                if n not in refused and key not in there
            }
            refused.update(lacking)
            if not lacking:
                self._keys |= there
                return


def _claimant(row: Row | Unit) -> str:
    return f"{row.path}#{row.entry}"


def write_in_turn(
    claims: Claims, differences: Sequence[Difference], write: Callable[[list[Difference]], Write]
) -> tuple[Write, list[Difference]]:
    """Writes (or tries) missing rows with `write`; returns the result, and the differences that lost a unique key to another
    document."""
    whole = Write()
    waiting = sorted(differences, key=lambda d: (d.row.create_time, d.row.label))
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
