"""Pure: the actions that each value of the param repair allows, and the value that a difference needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dualwrite.model.run_report import Rules
from dualwrite.model.verdicts import DRIFT, Verdict

Repair = Literal["off", "missing", "missing_and_stale", "all"]
Action = Literal["insert", "update", "delete"]

REPAIRS: tuple[Repair, ...] = ("off", "missing", "missing_and_stale", "all")
"""Each allows the actions of the one before it, and more."""

ACTIONS: dict[Verdict, Action] = {Verdict.MISSING: "insert", Verdict.STALE: "update", Verdict.EXTRA: "delete"}
"""The repair's action on a row with this verdict. No repair ends a difference with another verdict."""

_MAY: dict[Repair, tuple[Action, ...]] = {
    "off": (),
    "missing": ("insert",),
    "missing_and_stale": ("insert", "update"),
    "all": ("insert", "update", "delete"),
}


def may(repair: Repair, action: Action) -> bool:
    """Whether a value of the param allows an action."""
    return action in _MAY[repair]


def needed(verdict: Verdict) -> Repair:
    """The least repair that ends a difference with this verdict. Raises KeyError if none does."""
    return next(repair for repair in REPAIRS if ACTIONS[verdict] in _MAY[repair])


def most(repairs: Iterable[Repair]) -> Repair:
    """The least value that allows all that these allow; off if there are none."""
    return max(repairs, key=REPAIRS.index, default="off")


def rules() -> Rules:
    """These rules as JSON, for the page."""
    return {
        "drift": [*map(str, ACTIONS), *sorted(str(verdict) for verdict in DRIFT if verdict not in ACTIONS)],
        "repairs": {r: {str(v): action for v, action in ACTIONS.items() if may(r, action)} for r in REPAIRS},
    }
