"""Several ways of doing one thing, timed side by side.

Each round runs every side once, so a busy minute of the machine falls on all of them; what is printed are medians over
the rounds. A ratio is taken within a round, then its median.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Side:
    """One way: `work` returns how many documents it dealt with. `prepare` isn't timed."""

    name: str
    work: Callable[[], int]
    prepare: Callable[[], object] = lambda: None


def measure(sides: Sequence[Side], rounds: int) -> None:
    """Prints documents a second of each side, its ratio to the first one, and the CPU time that it took in this process,
    which other programs on the machine disturb least."""
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    costs: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds + 1):
        for side in sides:
            side.prepare()
            began, cpu = time.perf_counter(), time.process_time()
            done = side.work()
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            if number:  # the first round warms up the emulator's JVM and Postgres's cache
                rates[side.name].append(done / seconds)
                costs[side.name].append(cpu / done * 1e6)
    first = rates[sides[0].name]
    print(
        f"\n| {'':<63} | documents/s | of the raw drain | CPU us/document |\n|{'-' * 65}|{'-' * 12}:|{'-' * 17}:|{'-' * 16}:|"
    )
    for side in sides:
        ratio = median(rate / base for rate, base in zip(rates[side.name], first, strict=True))
        speed, cost = median(rates[side.name]), median(costs[side.name])
        print(f"| {side.name:<63} | {speed:>11,.0f} | {ratio:>16.2f} | {cost:>15.0f} |", flush=True)
