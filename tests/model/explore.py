"""Every interleaving of one program with a world that others change, the program killed wherever it may be.

A program is a plain function that asks its world through `ask(name, *arguments)` and does nothing else that anybody
could see. What it will do next therefore depends on nothing but the answers that it got so far: its state *is* that
list of answers. To go on from a state, the program is run again from the start, with the answers that are known, up to
the first question without one. Two ways that lead to the same world and the same answers are one state, explored once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

Ask = Callable[..., Any]
Program = Callable[[Ask], object]


class _Unanswered(BaseException):
    """Leaves the program at its first question without an answer. No `except Exception` of the program stops it."""


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    arguments: tuple[Hashable, ...]


@dataclass(slots=True)
class Node:
    """A program after some answers: at a question, or, where there is none, at its end."""

    program: Program
    answers: tuple[Any, ...] = ()
    question: Question | None = None
    following: dict[Hashable, Node] = field(default_factory=dict)

    def after(self, answer: Hashable) -> Node:
        if answer not in self.following:
            self.following[answer] = start(self.program, (*self.answers, answer))
        return self.following[answer]


def start(program: Program, answers: tuple[Any, ...] = ()) -> Node:
    """Runs the program with the answers that are known. Each question is an atomic step of the world."""
    node = Node(program, answers)
    known = iter(answers)

    def ask(name: str, *arguments: Hashable) -> Any:
        for answer in known:
            return answer
        node.question = Question(name, arguments)
        raise _Unanswered

    try:
        program(ask)
    except _Unanswered:
        return node
    node.question = None
    return node


class World(Protocol):
    """What the explorer needs of a world: a frozen value."""

    def others(self) -> Iterable[World]:
        """All that anybody else may do next."""

    def answer(self, question: Question) -> tuple[Hashable, World]:
        """The answer, and the world after it."""


@dataclass(slots=True)
class Explored:
    states: int = 0
    ends: int = 0
    bad: list[tuple[str, ...]] = field(default_factory=list)
    """For each end that `judge` objects to: its words, and the steps that lead there."""


def explore(
    worlds: Iterable[Any],
    program: Program,
    resume: Program,
    *,
    kills: int,
    unfinished: Callable[[Any], bool],
    judge: Callable[[Any], str | None],
    keep: int = 10,
) -> Explored:
    """Every way from these worlds on. A program that is killed, or that ends `unfinished`, is followed by `resume`.

    Worlds are hashable. `judge` says what is wrong with a world at the end, or None; `keep` traces are kept.
    """
    found = Explored()
    first, second = start(program), start(resume)
    came_from: dict[tuple[Any, int, int], tuple[tuple[Any, int, int] | None, str]] = {}
    nodes: dict[int, Node] = {}
    others: dict[Any, tuple[Any, ...]] = {}
    todo: list[tuple[Any, Node, int]] = []

    def reach(world: Any, node: Node, left: int, source: tuple[Any, int, int] | None, step: str) -> None:
        state = (world, id(node), left)
        if state not in came_from:
            came_from[state] = (source, step)
            nodes[id(node)] = node  # kept, so that no other node takes its id
            todo.append((world, node, left))

    def trace(state: tuple[Any, int, int] | None) -> tuple[str, ...]:
        steps: list[str] = []
        while state is not None:
            world = state[0]
            state, step = came_from[state]
            steps.append(f"{step}: {world}")
        return tuple(reversed(steps))

    for world in worlds:
        reach(world, first, kills, None, "begin")
    while todo:
        world, node, left = todo.pop()
        state = (world, id(node), left)
        found.states += 1
        if world not in others:
            others[world] = tuple(world.others())
        for after in others[world]:
            reach(after, node, left, state, "others")
        if node.question is not None:
            answer, after = world.answer(node.question)
            reach(after, node.after(answer), left, state, node.question.name)
            if left:
                reach(world, second, left - 1, state, "killed")
        elif unfinished(world):
            reach(world, second, left, state, "the next run")
        elif (wrong := judge(world)) is not None:
            found.ends += 1
            if len(found.bad) < keep:
                found.bad.append((wrong, *trace(state)))
            else:
                found.bad.append((wrong,))
        else:
            found.ends += 1
    return found
