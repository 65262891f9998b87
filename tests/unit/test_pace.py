"""No more than so many a second, on average, however they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dualwrite.model.pace import BURST_SECONDS, Pace
from dualwrite.postgres.pressure import SLOW_SECONDS, Pressure


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), min_size=1, max_size=50), st.floats(1, 10_000))
def test_whoever_waits_as_told_never_passes_the_rate(takes, rate):
    pace, now, taken = Pace(rate), 0.0, 0
    for number, idle in takes:
        now += idle
        now += pace.delay(number, now)
        taken += number
        assert taken <= rate * (now + BURST_SECONDS) * (1 + 1e-9)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20), st.floats(1, 10_000))
def test_nobody_waits_longer_than_the_rate_asks(numbers, rate):
    pace, now = Pace(rate), 0.0
    for number in numbers:
        now += pace.delay(number, now)
    assert now <= sum(numbers) / rate * (1 + 1e-9)


def test_without_a_limit_nobody_waits():
    assert Pace().delay(10**9, 0) == 0


def test_a_slow_target_gets_smaller_pages_and_rests(monkeypatch, caplog):
    """It does so until it is quick again."""
    caplog.set_level("INFO")
    rests: list[float] = []
    monkeypatch.setattr("dualwrite.postgres.pressure.time.sleep", rests.append)
    found = Pressure()
    found.after("posts", 5000, 0.05)
    assert (found.most_rows, rests) == (None, [])
    found.after("posts", 5000, 3 * SLOW_SECONDS)
    found.after("posts", 2500, 2 * SLOW_SECONDS)
    assert found.most_rows == 1250
    assert rests == [3 * SLOW_SECONDS, 2 * SLOW_SECONDS], "as much time is left to the app as the page took"
    while found.most_rows is not None:
        found.after("posts", found.most_rows, 0.05)
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"], "one line when it begins, one when it ends"
    assert len(rests) == 2
