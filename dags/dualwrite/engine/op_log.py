"""What the app's own op log, write_ops, says: which keys it tried to write, when, and why a row isn't as it should be.

write_ops belongs to the app and is only read. An op id is `entity:operation:entity id:epoch milliseconds`, such as
`comment:update:AbC123:1768512345678`; whatever doesn't look so is counted and left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dualwrite.engine.units import Unit
from dualwrite.model.declaration import Collection, DocumentId, EntryKey, Segment
from dualwrite.model.mapping import joined_label
from dualwrite.model.verdicts import Cause, Finding, Verdict, Why
from dualwrite.postgres import Connection
from dualwrite.postgres.target import Target
from dualwrite.postgres.visibility import shows_every_row

_OP_ID = re.compile(r"^([^:]+):([^:]+):(.+):(\d+)$", re.DOTALL)
_AROUND = timedelta(minutes=5)
"""How far an operation's time may be from its document's: the app's clock and a slow network."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of write_ops. `at` is when the lock was taken, by the target's clock; None where that is null."""

    op_id: str
    kind: str
    entity: str
    entity_id: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Activity:
    """The op log in a stretch of time. None in `total`: there is no table write_ops, or we may not read it."""

    total: int | None
    malformed: int = 0
    unknown_entities: int = 0
    in_the_future: int = 0
    by_entity: dict[str, int] = field(default_factory=dict)
    """Operations of each entity type that has any."""

    def of(self, entities: Iterable[str]) -> int:
        """How many operations these entity types have together."""
        return sum(self.by_entity.get(entity, 0) for entity in entities)

    def as_json(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "by_entity": self.by_entity,
            "malformed": self.malformed,
            "unknown_entities": self.unknown_entities,
            "in_the_future": self.in_the_future,
        }


def parse(op_id: str, at: datetime | None) -> Operation | None:
    """The parts of an op id; None where it isn't one."""
    found = _OP_ID.match(op_id)
    return Operation(op_id, found[2], found[1], found[3], at) if found else None


def is_readable(connection: Connection) -> bool:
    """Whether there is a write_ops of which we may read every row: half of it would look like a dual-write that is off."""
    return shows_every_row(connection, "write_ops")


def activity(connection: Connection, entities: Iterable[str], start: datetime, end: datetime) -> Activity:
    """How many operations there were in [start, end), those of no known form among them."""
    if not is_readable(connection):
        return Activity(None)
    row = connection.execute(
        """
        SELECT count(*) FILTER (WHERE created_at < %(end)s),
          count(*) FILTER (WHERE op_id !~ '^[^:]+:[^:]+:.+:[0-9]+$'),
          count(*) FILTER (WHERE op_id ~ '^[^:]+:[^:]+:.+:[0-9]+$' AND split_part(op_id, ':', 1) <> ALL(%(known)s)),
          count(*) FILTER (WHERE created_at >= %(end)s + interval '5 minutes')
        FROM write_ops
        WHERE created_at >= %(start)s
        """,
        {"start": start, "end": end, "known": list(entities)},
    ).fetchone()
    assert row is not None
    known = sorted(set(entities))
    by_entity = connection.execute(
        """
        SELECT split_part(op_id, ':', 1), count(*)
        FROM write_ops
        WHERE created_at >= %s AND created_at < %s AND split_part(op_id, ':', 1) = ANY(%s)
        GROUP BY 1 ORDER BY 1
        """,
        (start, end, known),
    ).fetchall()
    total, malformed, unknown, ahead = row
    return Activity(total, malformed, unknown, ahead, dict(by_entity))


def entities_of(collection: Collection) -> list[str]:
    return list(dict.fromkeys(o.entity for o in collection.operations))


def since(connection: Connection, collection: Collection, start: datetime) -> list[Operation]:
    """The operations on this collection's entities from `start` on; those without a time too, which could be any."""
    entities = entities_of(collection)
    if not entities or not is_readable(connection):
        return []
    rows = connection.execute(
        """
        SELECT op_id, created_at FROM write_ops
        WHERE (created_at >= %s OR created_at IS NULL) AND split_part(op_id, ':', 1) = ANY(%s)
        """,
        (start, entities),
    )
    return [operation for op_id, at in rows if (operation := parse(op_id, at)) is not None]


# --- from operations to keys ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Located:
    """Where operations point: documents to read whole, keys to look at, and how many lead nowhere."""

    paths: tuple[str, ...]
    units: tuple[Unit, ...]
    unlocatable: int


def locate(target: Target, collection: Collection, found: Sequence[Operation], seen: Iterable[str]) -> Located:
    """The keys that operations name.

    An operation has an id and no path. The id gives the path where the path is made of nothing else; otherwise a row
    does, or a document that was seen already (`seen` are labels and paths). What is left is unlocatable: a sweep sees it.
    """
    known = {part for label in seen for part in (label, label.rsplit("/", 1)[-1])}
    paths: dict[str, None] = {}
    keys: dict[tuple[str, ...], str] = {}
    units: dict[str, Unit] = {}
    unlocatable = 0
    for entity_id in dict.fromkeys((o.entity, o.entity_id) for o in found):
        values = _values(collection, *entity_id)
        if values is None:
            unlocatable += 0 if entity_id[1] in known else 1
            continue
        path = _path(collection, values)
        if path is not None and collection.entries is not None:
            paths[path] = None
            continue
        if all(c.name in values for c in collection.key):
            keys[tuple(values[c.name] for c in collection.key)] = path or ""
            continue
        column, value = next(iter(values.items()))
        rows = target.keys_where(collection, column, [value])
        for unit in _units(target, collection, rows):
            units[unit.label] = unit
        if not rows and value not in known:
            unlocatable += 1
    told = target.paths(collection, [key for key, path in keys.items() if not path])
    for key, path in keys.items():
        where = path or next(iter(told.get(key, ())), None)
        label = joined_label(key)
        if where:
            units[label] = Unit(label, key, where, _entry(collection, key))
        elif label not in known:
            unlocatable += 1
    return Located(tuple(paths), tuple(units.values()), unlocatable)


def _units(target: Target, collection: Collection, keys: Sequence[tuple[object, ...]]) -> list[Unit]:
    texts = [tuple(str(part) for part in key) for key in keys]
    told = target.paths(collection, list(texts))
    return [Unit(joined_label(k), k, told[k][0], _entry(collection, k)) for k in texts if told.get(k)]


def _entry(collection: Collection, key: Sequence[str]) -> str | None:
    return next((key[i] for i, c in enumerate(collection.key) if isinstance(c.origin, EntryKey)), None)


def _values(collection: Collection, entity: str, entity_id: str) -> dict[str, str] | None:
    """The columns that an entity id gives. None: no column holds it, or it can be read in several ways."""
    operations = next((o for o in collection.operations if o.entity == entity), None)
    if operations is None or not operations.columns:
        return None
    parts = [entity_id] if len(operations.columns) == 1 else entity_id.split("_")
    if len(parts) != len(operations.columns):
        return None
    return dict(zip(operations.columns, parts, strict=True))


def _path(collection: Collection, values: dict[str, str]) -> str | None:
    """The document's path, where the columns that the operation gives say all of it."""
    template = collection.templates[0]
    if len(collection.templates) > 1:
        return None
    known: dict[str, str] = {}
    for column in collection.columns:
        if column.name in values and isinstance(column.origin, Segment):
            known[column.origin.variable] = values[column.name]
        elif column.name in values and isinstance(column.origin, DocumentId):
            known[template.variables[-1]] = values[column.name]
    return template.path(known) if all(v in known for v in template.variables) else None


# --- why ----------------------------------------------------------------------------------------------------------------


def causes(connection: Connection, collection: Collection, findings: Sequence[Finding]) -> dict[str, Cause]:
    """For each missing, stale or extra key what the op log says of it, by label.

    missing: an operation that wrote it. extra: one that deleted it. stale: one that wrote it about when the document
    was last written; where there are only others, nobody can tell, because counters move a document's time too.
    """
    wanted = {f.label: _entity_ids(collection, f) for f in findings if f.requires is None}
    ids = sorted({i for found in wanted.values() for i in found})
    if not is_readable(connection) or not ids:
        return {f.label: Cause(Why.UNKNOWN) for f in findings}
    rows = connection.execute(
        """
        SELECT op_id, created_at FROM write_ops
        WHERE split_part(op_id, ':', 1) = ANY(%s) AND substring(op_id FROM '^[^:]+:[^:]+:(.+):[0-9]+$') = ANY(%s)
        """,
        (entities_of(collection), ids),
    )
    by_id: dict[str, list[Operation]] = {}
    for op_id, at in rows:
        operation = parse(op_id, at)
        if operation is not None:
            by_id.setdefault(operation.entity_id, []).append(operation)
    return {
        f.label: _cause(f, [o for i in wanted.get(f.label, ()) for o in by_id.get(i, [])], bool(wanted.get(f.label)))
        for f in findings
    }


def _cause(finding: Finding, found: list[Operation], expressible: bool) -> Cause:
    if not expressible or finding.verdict not in (Verdict.MISSING, Verdict.STALE, Verdict.EXTRA):
        return Cause(Why.UNKNOWN)
    deletes = finding.verdict is Verdict.EXTRA
    fitting = [o for o in found if (o.kind == "delete") == deletes]
    if not fitting:
        return Cause(Why.NEVER_ATTEMPTED)
    last = max(fitting, key=lambda o: (o.at is not None, o.at, o.op_id))
    if finding.verdict is Verdict.STALE:
        moment = finding.document_time
        near = moment is not None and last.at is not None and abs(last.at - moment) <= _AROUND
        return Cause(Why.ATTEMPTED_FAILED if near else Why.UNKNOWN, last.op_id, last.at)
    return Cause(Why.ATTEMPTED_FAILED, last.op_id, last.at)


def _entity_ids(collection: Collection, finding: Finding) -> list[str]:
    """What the app would call this key in an op id."""
    found = []
    for operations in collection.operations:
        if not operations.columns:
            if finding.path is not None:
                found.append(finding.path.rsplit("/", 1)[-1])
            continue
        values = _columns_of(collection, finding)
        if all(name in values for name in operations.columns):
            found.append("_".join(values[name] for name in operations.columns))
    return found


def _columns_of(collection: Collection, finding: Finding) -> dict[str, str]:
    """The key's columns, where its label says them."""
    parts = finding.label.split("/")
    if not collection.keyed_by_path or len(parts) != len(collection.key):
        return {}
    return dict(zip((c.name for c in collection.key), parts, strict=True))
