"""Inserts what is missing, or tries it on a copy of the table; of several documents that want one unique key, one.

Of those the older wins, then the smaller id; across pages, the first one read. A winner that Postgres refuses holds no
key after all, so the others get their turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dualwrite.engine.owners import Owners
from dualwrite.model.mapping import Key, Row
from dualwrite.postgres.target import Difference, Write


class Claims:
    """Unique keys of rows that this run inserts, or would, and the documents that claimed them."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._claimants: dict[tuple[int, Key], str] = {}
        self._claimed: dict[str, list[tuple[int, Key]]] = {}

    def claim(self, row: Row) -> bool:
        """Reserves the keys of a row to be inserted; False where another document of this run has one already."""
        wanted: list[tuple[int, Key]] = [(-1, row.key)]
        for number, values in enumerate(self._owners.uniques(row)):
            if None not in values:  # nulls are distinct in a unique key
                wanted.append((number, values))
        claimant = _claimant(row)
        if any(self._claimants.get(w, claimant) != claimant for w in wanted):
            return False
        self._claimants.update(dict.fromkeys(wanted, claimant))
        self._claimed[claimant] = wanted
        return True

    def release(self, row: Row) -> None:
        """A row that Postgres refused holds no unique key after all."""
        for key in self._claimed.pop(_claimant(row), ()):
            self._claimants.pop(key, None)

    def clear(self) -> None:
        self._claimants.clear()
        self._claimed.clear()


def _claimant(row: Row) -> str:
    return f"{row.path}#{row.entry}"


def write_in_turn(
    claims: Claims, differences: Sequence[Difference], write: Callable[[list[Difference]], Write]
) -> tuple[Write, list[Difference]]:
    """Writes (or tries) what is missing with `write`; returns what was written, and the differences that lost their
    unique key to another document."""
    whole = Write()
    waiting = sorted(differences, key=lambda d: (d.row.create_time, d.row.label))
    while waiting:
        claimed = [(d, claims.claim(d.row)) for d in waiting]
        winners = [d for d, won in claimed if won]
        waiting = [d for d, won in claimed if not won]
        written = write(winners)
        whole.journal.update(written.journal)
        whole.refused.update(written.refused)
        rows = {d.n: d.row for d in winners}
        for n in written.refused:
            claims.release(rows[n])
        if not written.refused:
            break
    return whole, waiting
