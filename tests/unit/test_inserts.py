"""Of several documents that want one unique key one gets it, and the next where Postgres refuses the first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dualwrite.engine.inserts import Claims, write_in_turn
from dualwrite.model.mapping import Row
from dualwrite.postgres.target import Difference, Write

T = datetime(2026, 2, 1, tzinfo=UTC)


def uniques(row: Row) -> tuple[tuple[object, ...], ...]:
    """Two further unique keys: the cells after the first, one each."""
    return tuple((cell,) for cell in row.cells[1:])


def row(name: str, *uniques: object, key: str | None = None, age: int = 0, path: str | None = None, entry=None) -> Row:
    created = T - timedelta(days=age)
    return Row(name, (key or name,), (name, *uniques), frozenset(), path or f"things/{name}", entry, created, created)


def claims() -> Claims:
    return Claims(uniques)


def test_a_claimed_key_is_refused_to_any_other_document():
    """The same one gets it again."""
    claimed = claims()
    assert claimed.claim(row("a", "u")) is True
    assert claimed.claim(row("b", "u")) is False
    assert claimed.claim(row("a", "u")) is True
    assert claimed.claim(row("c", "v")) is True


def test_the_primary_key_is_claimed_too():
    claimed = claims()
    assert claimed.claim(row("a", key="k"))
    assert not claimed.claim(row("b", key="k"))


def test_equal_values_of_different_unique_keys_are_two_keys():
    claimed = claims()
    assert claimed.claim(row("a", "u", "v"))
    assert claimed.claim(row("b", "v", "u"))
    assert not claimed.claim(row("c", "w", "v"))
    assert claimed.claim(row("v", "x", "y")), "nor are they the primary key"


def test_nulls_are_distinct():
    claimed = claims()
    assert claimed.claim(row("a", None, "u"))
    assert claimed.claim(row("b", None, "v"))
    assert not claimed.claim(row("c", None, "u")), "what stands behind a null counts"


def test_two_entries_of_one_document_are_two_claimants():
    claimed = claims()
    assert claimed.claim(row("a", "u", path="things/x", entry="1"))
    assert not claimed.claim(row("b", "u", path="things/x", entry="2"))


def test_a_document_that_lost_one_of_its_keys_claims_none():
    claimed = claims()
    assert claimed.claim(row("a", "u", "v"))
    assert not claimed.claim(row("b", "u", "w"))
    assert claimed.claim(row("c", "x", "w"))


def test_a_released_row_gives_back_all_its_keys_and_no_others():
    claimed = claims()
    claimed.claim(row("a", "u", "v"))
    claimed.claim(row("b", "w", "x"))
    claimed.release(row("a", "u", "v"))
    claimed.release(row("never claimed", "w", "x"))
    assert claimed.claim(row("c", "u", "y"))
    assert claimed.claim(row("d", "z", "v"))
    assert not claimed.claim(row("e", "w", "q"))


def test_a_row_that_claims_again_gives_back_what_it_had():
    claimed = claims()
    assert claimed.claim(row("a", "u"))
    assert claimed.claim(row("b", "v"))
    assert not claimed.claim(row("a", "v")), "b has it"
    assert claimed.claim(row("b", "u")), "a wants it no longer"
    assert claimed.claim(row("a", "v"))


def test_asking_whether_keys_are_free_reserves_none():
    claimed = claims()
    assert claimed.are_free(row("a", "u"))
    claimed.claim(row("b", "u"))
    assert not claimed.are_free(row("a", "u"))
    assert claimed.are_free(row("b", "u"))


def test_a_cleared_run_knows_no_claims():
    claimed = claims()
    claimed.claim(row("a", "u"))
    claimed.clear()
    assert claimed.claim(row("b", "u"))
    claimed.release(row("a", "u"))
    assert not claimed.claim(row("c", "u")), "a claim from before gives nothing back"


# --- in turn --------------------------------------------------------------------------------------------------------


def written(rows: list[Row], refuse: tuple[str, ...] = ()):
    """What write_in_turn makes of these rows: the order of what was written in each turn, the result, the losers."""
    turns: list[list[str]] = []

    def write(winners: list[Difference]) -> Write:
        turns.append([d.row.label for d in winners])
        refused = {d.n: "23514" for d in winners if d.row.label in refuse}
        return Write({d.n: 100 + d.n for d in winners if d.n not in refused}, refused)

    differences = [Difference(n, r, False, None, (), (), (), None) for n, r in enumerate(rows)]
    whole, losers = write_in_turn(claims(), differences, write)
    return turns, whole, [d.row.label for d in losers]


def test_the_older_document_wins_then_the_smaller_id():
    assert written([row("a", "u"), row("b", "u", age=1)])[0] == [["b"]]
    turns, whole, losers = written([row("b", "u"), row("a", "u"), row("c", "v")])
    assert turns == [["a", "c"]]
    assert whole == Write({1: 101, 2: 102}, {})
    assert losers == ["b"]


def test_if_postgres_refuses_the_winner_the_next_gets_its_turn():
    turns, whole, losers = written(
        [row("a", "u", age=3), row("b", "u", age=2), row("c", "u", age=1), row("d", "v")], refuse=("a", "b")
    )
    assert turns == [["a", "d"], ["b"], ["c"]]
    assert whole == Write({2: 102, 3: 103}, {0: "23514", 1: "23514"})
    assert losers == []


def test_a_refusal_frees_only_its_own_key():
    turns, whole, losers = written(
        [row("a", "u", age=3), row("b", "u"), row("c", "v", age=3), row("d", "v")], refuse=("a",)
    )
    assert turns == [["a", "c"], ["b"]]
    assert losers == ["d"]
    assert whole.refused == {0: "23514"}


def test_nothing_to_write_is_not_written():
    assert written([]) == ([], Write(), [])


def test_all_that_are_refused_end_it():
    turns, whole, losers = written([row("a", "u"), row("b", "v")], refuse=("a", "b"))
    assert turns == [["a", "b"]]
    assert whole.journal == {}
    assert losers == []
