"""Pure: the files' promises, and how a live database differs from them.

A file promises its changes: the difference between the pictures before and after it. It promises an object that it creates
completely, but of an object that it alters only the altered parts, so that the app's own tables stay the app's. The live database
must fulfil the promises of the applied files, a later one overriding an earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualwrite.migrations.picture import Picture, Relation

Promise = dict[str, dict[str, dict[str, Any]]]
"""As a picture; None in place of a value: not there any more."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot.json: the promise of each migration, by <version>_<name>, and of the optional files."""

    files: Mapping[str, Promise]
    optional: Mapping[str, Promise]

    @classmethod
    def load(cls, path: Path, read: Callable[[str], str] = str) -> Snapshot:
        """The snapshot in a file. `read` adapts its text to this installation."""
        snapshot = json.loads(read(path.read_text(encoding="utf-8")))
        return cls(snapshot["files"], snapshot["optional"])

    def as_json(self) -> dict[str, Any]:
        return {"files": self.files, "optional": self.optional}


def changes(before: Mapping[str, Relation], after: Mapping[str, Relation]) -> Promise:
    """The difference between two pictures."""
    promise: Promise = {}
    for relation in sorted({*before, *after}):
        old, new = before.get(relation, {}), after.get(relation, {})
        parts = ["relation"] if not new else sorted({*old, *new})
        for part in parts:
            was, now = old.get(part, {}), new.get(part, {})
            changed = {name: now.get(name) for name in sorted({*was, *now}) if was.get(name) != now.get(name)}
            if changed:
                promise.setdefault(relation, {})[part] = changed
    return promise


def together(promises: Iterable[Promise]) -> Promise:
    """Several promises, in their order, as one; a later one overrides an earlier one."""
    whole: Promise = {}
    for promise in promises:
        for relation, parts in promise.items():
            for part, entries in parts.items():
                whole.setdefault(relation, {}).setdefault(part, {}).update(entries)
    return whole


def differences(promised: Promise, live: Picture) -> list[str]:
    """The differences, one a line: `public.drafts.title: default missing (promised ''::text)`."""
    lines = []
    for relation, parts in sorted(promised.items()):
        kind = parts.get("relation", {}).get("kind", "relation")
        if kind is None:
            if relation in live:
                lines.append(f"{relation}: is there, promised to be dropped")
            continue
        if relation not in live:
            lines.append(f"{relation}: {kind} missing")
            continue
        made = "relation" in parts  # then anything beyond the promise is a difference too
        for part in sorted({*parts, *live[relation]}) if made else parts:
            entries, there = parts.get(part, {}), live[relation].get(part, {})
            for name in sorted({*entries, *there}) if made else entries:
                line = _difference(relation, part, name, entries.get(name), there.get(name))
                if line:
                    lines.append(line)
    return lines


def _difference(relation: str, part: str, name: str, promised: Any, live: Any) -> str | None:
    if promised == live:
        return None
    match part:
        case "default":
            if live in (None, "none"):  # if the column is missing or promised to be gone, its own line says so
                return (
                    None
                    if live is None or promised is None
                    else f"{relation}.{name}: default missing (promised {promised})"
                )
            return f"{relation}.{name}: default is {live}, promised {promised or 'none'}"
        case "column":
            if live is None:
                return f"{relation}.{name}: column missing (promised {promised})"
            return f"{relation}.{name}: type is {live}, promised {promised or 'no such column'}"
        case "grant":
            return f"{relation}: {name} may {live or 'nothing'}, promised {promised or 'nothing'}"
        case "column grant":
            column, _, role = name.rpartition(" to ")
            return f"{relation}.{column}: {role} may {live or 'nothing'}, promised {promised or 'nothing'}"
        case "row-level security":
            return f"{relation}: row-level security is {_switch(live)}, promised {_switch(promised)}"
        case "owner" | "relation":
            return f"{relation}: {name} is {live}, promised {promised}"
        case "view" if promised is None:
            return f"{relation}: view {name} reads it {live}, which no file promises"
    if live is None:
        return f"{relation}: {part} {name} missing (promised {promised})"
    return f"{relation}: {part} {name} is {live}, promised {promised or 'none'}"


def _switch(value: Any) -> str:
    return "on" if value else "off"
