"""How long N workers take for the slices of a collection: a simulation from measured rates, for sizes that no machine here holds.

    PYTHONPATH=dags:. python -m benchmarks.simulated_slices [--rate 5000] [--target 40000] [--start 4] [--failing 0.01]

Each worker takes the next slice as soon as it is free, needs `start` seconds before it reads (a task's process), and then
reads at `rate` documents a second, or at its share of the target's rate (`target` rows a second), whichever is less. A slice that
fails does so half-way and is done again. Slices are between half and all of their size, as `runs/slices/slice.py` cuts them. Left
out: Firestore's own limits, which are above these rates, and the time to cut (counts, side by side).
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass

from dualwrite.model import cost
from dualwrite.runs.slices.slice import size

SLICE_DOCUMENTS = 250_000


@dataclass(frozen=True)
class Rates:
    """The rates of one worker (documents a second) and of the target (rows a second, all workers), and a task's start (seconds)."""

    worker: float
    target: float
    start: float
    failing: float
    """Share of the tries that fail half-way."""


def slices_of(documents: int, seed: int = 1) -> list[int]:
    """Sizes of the slices of a collection: small neighbours are joined, so they are half full or more."""
    most = size(SLICE_DOCUMENTS, documents if documents > SLICE_DOCUMENTS else 0)
    chance, left, slices = random.Random(seed), documents, list[int]()
    while left > 0:
        slices.append(min(left, int(most * chance.uniform(0.5, 1.0))))
        left -= slices[-1]
    return slices


def makespan(slices: list[int], workers: int, rates: Rates, seed: int = 1) -> float:
    """Seconds until the last slice is done."""
    chance, now = random.Random(seed), 0.0
    waiting = list(reversed(slices))
    starting: list[tuple[float, float]] = []
    reading: list[float] = []
    while waiting or starting or reading:
        while waiting and len(starting) + len(reading) < workers:
            documents = float(waiting.pop())
            if chance.random() < rates.failing:
                documents *= 1.5
            heapq.heappush(starting, (now + rates.start, documents))
        speed = min(rates.worker, rates.target / max(1, len(reading)))
        ends = min(reading) / speed if reading else float("inf")
        begins = starting[0][0] - now if starting else float("inf")
        step = min(ends, begins)
        now += step
        reading = [left for r in reading if (left := r - step * speed) > 1e-6]
        while starting and starting[0][0] <= now + 1e-9:
            reading.append(heapq.heappop(starting)[1])
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=5_000)
    parser.add_argument("--target", type=float, default=40_000)
    parser.add_argument("--start", type=float, default=4)
    parser.add_argument("--failing", type=float, default=0.01)
    given = parser.parse_args()
    rates = Rates(given.rate, given.target, given.start, given.failing)
    print("documents | slices | workers | hours | of one worker | dollars")
    for documents in (1_000_000, 100_000_000, 10_000_000_000):
        slices = slices_of(documents)
        alone = makespan(slices, 1, rates)
        for workers in (1, 4, 16, 64):
            took = makespan(slices, workers, rates)
            money = cost.dollars(documents)
            print(f"{documents:,} | {len(slices)} | {workers} | {took / 3600:.2f} | {alone / took:.1f} x | {money}")


if __name__ == "__main__":
    main()
