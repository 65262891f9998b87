"""References of a column to another document's row, and the order of collections that follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parent:
    """The collection whose row must exist first: `references=Parent("profiles", holds="id")`.

    The document always names the parent document's key. `holds`: the column of the parent's row whose value this column has (a
    generated id, a uuid); without it, the parent's key, as with `references="profiles"`.
    """

    collection: str
    holds: str | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """A column, and the collection whose row it needs. `waits`: it may be null until that row is there."""

    column: str
    parent: str
    waits: bool


@dataclass(frozen=True, slots=True)
class Order:
    """Collections, parents before children, and the columns, as (collection, name), that stay null until their parents' rows
    are there."""

    names: tuple[str, ...]
    late: frozenset[tuple[str, str]]


class NeedEachOther(ValueError):
    """Collections that need each other, and none of which can wait."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


def in_order(needs: Mapping[str, Sequence[Need]]) -> Order:
    """Collections in the order in which their rows are written; among equals as given.

    A column that refers to its own collection, or closes a circle, is late: its row is inserted with a null, which is filled in
    when the other row is there. In a circle, the first collection that can wait does. Raises NeedEachOther if none can.
    """
    late = {(name, n.column) for name, of in needs.items() for n in of if n.parent == name}
    stuck = {name for name, of in needs.items() for n in of if n.parent == name and not n.waits}
    if stuck:
        raise NeedEachOther(sorted(stuck))
    done: list[str] = []

    def lacking(name: str) -> Iterator[Need]:
        return (n for n in needs[name] if n.parent not in done and (name, n.column) not in late)

    while len(done) < len(needs):
        rest = [name for name in needs if name not in done]
        ready = next((name for name in rest if not any(lacking(name))), None)
        if ready is not None:
            done.append(ready)
            continue
        waiting = next(
            (
                name
                for name in rest
                if all(n.waits and _leads(needs, n.parent, name, frozenset(done)) for n in lacking(name))
            ),
            None,
        )
        if waiting is None:
            raise NeedEachOther([name for name in rest if _leads(needs, name, name, frozenset(done))] or rest)
        late |= {(waiting, n.column) for n in lacking(waiting)}
    return Order(tuple(done), frozenset(late))


def _leads(needs: Mapping[str, Sequence[Need]], start: str, end: str, without: frozenset[str]) -> bool:
    """Whether one collection needs another, directly or through others."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        for need in needs[todo.pop()]:
            if need.parent == end:
                return True
            if need.parent not in seen and need.parent not in without:
                seen.add(need.parent)
                todo.append(need.parent)
    return False
