"""A fault of the catalog that preflight finds in a few documents."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """A sentence with the remedy. `stops`: nothing that the run reports could be trusted, so it examines nothing."""

    text: str
    stops: bool = False
