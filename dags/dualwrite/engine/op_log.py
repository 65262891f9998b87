"""The app's own op log, write_ops: which keys clients tried to write, when, and so why a row differs.

write_ops belongs to the app and is only read. An op id is `entity:operation:entity id:epoch milliseconds`, such as
`comment:update:AbC123:1768512345678`; other forms are counted and ignored.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dualwrite.engine.units import Unit, unit_of
from dualwrite.model.declaration import Collection, DocumentId, Segment
from dualwrite.model.documents import can_be_asked
from dualwrite.model.keys import label_of_key
from dualwrite.model.run_report import OperationCounts
from dualwrite.model.verdicts import Cause, Finding, Verdict, Why
from dualwrite.model.windows import LONG_AGO, Window
from dualwrite.postgres import Connection
from dualwrite.postgres.target import Target
from dualwrite.postgres.visibility import shows_every_row

LONGEST = 8_192
"""Bytes of an op id; two ids of 1,500 bytes, the longest that Firestore allows, fit. Clients choose the length: a longer op id
is malformed, and never read."""

AT_ONCE = 1_000
"""Operations that are read at a time."""

MOST_BYTES = 8 * 1024 * 1024
"""Memory for entities and their ids, in bytes: 200,000 usual ones."""

_OPERATIONS = f"""
SELECT op_id, created_at,
  CASE WHEN octet_length(op_id) <= {LONGEST} THEN op_id ~ '^[^:]+:[^:]+:.+:[0-9]+$' ELSE false END AS well_formed,
  CASE WHEN octet_length(op_id) <= {LONGEST} THEN split_part(op_id, ':', 1) END AS entity,
  CASE WHEN octet_length(op_id) <= {LONGEST} THEN split_part(op_id, ':', 2) END AS kind,
  CASE WHEN octet_length(op_id) <= {LONGEST} THEN substr(
    op_id,
    length(split_part(op_id, ':', 1)) + length(split_part(op_id, ':', 2)) + 3,
    greatest(0, length(op_id) - 3
      - length(split_part(op_id, ':', 1)) - length(split_part(op_id, ':', 2)) - length(split_part(op_id, ':', -1)))
  ) END AS entity_id
FROM public.write_ops
"""
"""Each operation with its parts, which are valid only if `well_formed`. (A regular expression that gives the parts takes five
times as long.)"""

_EARLIEST = LONG_AGO + timedelta(days=1)
"""Older times are ignored, because Python can't hold all that Postgres can."""

AROUND = timedelta(minutes=5)
"""How far an operation's time may be from its document's, because of the app's clock and a slow network."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of write_ops, which deletes or writes. `at`: when the lock was taken, by the target's clock; None if that is
    null."""

    op_id: str
    deletes: bool
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Activity:
    """Counts of operations in a stretch of time. `total` is None if there is no table write_ops, or if we can't read all of
    it."""

    total: int | None
    malformed: int = 0
    unknown_entities: int = 0
    in_the_future: int = 0
    by_entity: dict[str, int] = field(default_factory=dict)
    """Operations of each known entity type that has any."""

    def of(self, entities: Iterable[str]) -> int:
        """Operations of these entity types together."""
        return sum(self.by_entity.get(entity, 0) for entity in entities)

    def as_json(self) -> OperationCounts:
        return {
            "total": self.total,
            "by_entity": self.by_entity,
            "malformed": self.malformed,
            "unknown_entities": self.unknown_entities,
            "in_the_future": self.in_the_future,
        }


def is_readable(connection: Connection) -> bool:
    """Whether write_ops is there and shows us every row: half of it would look as if dual-write were off."""
    return shows_every_row(connection, "write_ops")


def activity(connection: Connection, entities: Iterable[str], start: datetime, end: datetime) -> Activity:
    """Counts of the operations in [start, end), malformed ones included; `in_the_future` are five minutes or more after
    `end`."""
    if not is_readable(connection):
        return Activity(None)
    known = sorted(set(entities))
    row = connection.execute(
        f"""
        SELECT count(*) FILTER (WHERE created_at < %(end)s),
          count(*) FILTER (WHERE NOT well_formed),
          count(*) FILTER (WHERE well_formed AND entity <> ALL(%(known)s)),
          count(*) FILTER (WHERE created_at >= %(end)s + interval '5 minutes')
        FROM ({_OPERATIONS}) o
        WHERE created_at >= %(start)s
        """,
        {"start": start, "end": end, "known": known},
    ).fetchone()
    assert row is not None
    by_entity = connection.execute(
        f"""
        SELECT entity, count(*)
        FROM ({_OPERATIONS}) o
        WHERE created_at >= %s AND created_at < %s AND entity = ANY(%s) AND well_formed
        GROUP BY 1 ORDER BY 1
        """,
        (start, end, known),
    ).fetchall()
    total, malformed, unknown, ahead = row
    return Activity(total, malformed, unknown, ahead, dict(by_entity))


def entities_of(collection: Collection) -> list[str]:
    """The entity types of a collection's operations."""
    return list(dict.fromkeys(o.entity for o in collection.operations))


# --- from operations to keys ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Named:
    """Entity types and ids that operations name and the look hasn't examined, and how many more there are."""

    entities: tuple[tuple[str, str], ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """The labels of the keys that a look has examined by now, and the paths of documents whose entries it has examined all."""

    labels: Container[str]
    last_ids: Container[str]
    """The last segment of each label."""
    paths: Container[str]


def seen_of(labels: Iterable[str], paths: Container[str]) -> Seen:
    known = frozenset(labels)
    return Seen(known, frozenset(label.rsplit("/", 1)[-1] for label in known), paths)


def named(
    connection: Connection, collection: Collection, window: Window, seen: Seen, *, most_bytes: int = MOST_BYTES
) -> Named:
    """The entities that the window's operations name and the look hasn't seen, the latest operation first: as many as
    `most_bytes` hold, and the number of the others. Operations without a time count in every window.

    Clients write the log: an operation with a future time is not looked at before that time.
    """
    entities = entities_of(collection)
    if not entities or not is_readable(connection):
        return Named(())
    entities_left: list[tuple[str, str]] = []
    left_out = 0
    for entity, entity_id in _read(connection, (window.start, window.end + AROUND, entities)):
        if _is_seen(collection, entity, entity_id, seen):
            continue
        most_bytes -= len(entity) + len(entity_id)
        if most_bytes >= 0:
            entities_left.append((entity, entity_id))
        else:
            left_out += 1
    return Named(tuple(entities_left), left_out)


_NAMED = f"""
SELECT entity, entity_id FROM ({_OPERATIONS}) o
WHERE ((created_at >= %s AND created_at < %s) OR created_at IS NULL) AND entity = ANY(%s) AND well_formed
GROUP BY 1, 2 ORDER BY max(created_at) DESC NULLS LAST
"""


def _read(connection: Connection, parameters: tuple[object, ...]) -> Iterator[tuple[str, str]]:
    """All named entities, holding AT_ONCE in memory. Usually there are fewer, and one statement is enough."""
    few = connection.execute(f"{_NAMED} LIMIT {AT_ONCE}", parameters).fetchall()
    if len(few) < AT_ONCE:
        yield from few
        return
    with connection.cursor(name="dualwrite_named") as cursor:
        cursor.itersize = AT_ONCE
        cursor.execute(_NAMED, parameters)
        yield from cursor


def _is_seen(collection: Collection, entity: str, entity_id: str, seen: Seen) -> bool:
    values = _values(collection, entity, entity_id)
    if values is None:
        return entity_id in seen.labels or entity_id in seen.last_ids
    path = _path(collection, values)
    if path is not None and collection.entries is not None:
        return path in seen.paths
    if all(c.name in values for c in collection.key):
        return label_of_key(collection, [values[c.name] for c in collection.key]) in seen.labels
    return False


@dataclass(frozen=True, slots=True)
class Located:
    """The keys that operations name: documents to examine whole, units to look at, and how many can't be located."""

    paths: tuple[str, ...]
    units: tuple[Unit, ...]
    unlocatable: int


def locate(target: Target, collection: Collection, entities: Sequence[tuple[str, str]], seen: Seen) -> Located:
    """The keys that operations name. `entities`: entity types and ids.

    An operation has an id and no path. If the path has no other variable, the id gives it; otherwise a row gives it, or a
    document that was seen already. The rest is unlocatable: a sweep sees it.
    """
    paths: dict[str, None] = {}
    keys: dict[tuple[str, ...], str] = {}
    units: dict[str, Unit] = {}
    by_column: dict[str, dict[str, None]] = {}
    unlocatable = 0
    for entity, entity_id in entities:
        values = _values(collection, entity, entity_id)
        if values is None:
            unlocatable += entity_id not in seen.labels and entity_id not in seen.last_ids
            continue
        path = _path(collection, values)
        if path is not None and collection.entries is not None:
            paths[path] = None
        elif all(c.name in values for c in collection.key):
            keys[tuple(values[c.name] for c in collection.key)] = path or ""
        else:
            column, value = next(iter(values.items()))
            by_column.setdefault(column, {})[value] = None
    for column, named_values in by_column.items():
        rows = target.dependents(collection, column, named_values)
        for unit in _units(target, collection, [key for _, key in rows]):
            units[unit.label] = unit
        told = {value for value, _ in rows}
        unlocatable += sum(v not in told and v not in seen.labels and v not in seen.last_ids for v in named_values)
    at = target.paths(collection, [key for key, path in keys.items() if not path])
    for key, path in keys.items():
        likeliest = path or next(iter(at.get(key, ())), None)
        label = label_of_key(collection, key)
        if likeliest:
            units[label] = unit_of(collection, key, likeliest)
        elif label not in seen.labels and label not in seen.last_ids:
            unlocatable += 1
    return Located(tuple(paths), tuple(units.values()), unlocatable)


def _units(target: Target, collection: Collection, keys: Sequence[tuple[object, ...]]) -> list[Unit]:
    texts = [tuple(str(part) for part in key) for key in keys]
    told = target.paths(collection, list(texts))
    return [unit_of(collection, k, told[k][0]) for k in texts if told.get(k)]


def _values(collection: Collection, entity: str, entity_id: str) -> dict[str, str] | None:
    """The columns' values that an entity id gives; None if no column holds it, or if it can be split in several ways."""
    operations = next((o for o in collection.operations if o.entity == entity), None)
    if operations is None or not operations.columns:
        return None
    parts = [entity_id] if len(operations.columns) == 1 else entity_id.split("_")
    if len(parts) != len(operations.columns):
        return None
    return dict(zip(operations.columns, parts, strict=True))


def _path(collection: Collection, values: dict[str, str]) -> str | None:
    """The document's path, if the columns that the operation gives determine it; else None."""
    template = collection.templates[0]
    if len(collection.templates) > 1:
        return None
    known: dict[str, str] = {}
    document_id = None
    for column in collection.columns:
        if column.name in values and isinstance(column.origin, Segment):
            known[column.origin.variable] = values[column.name]
        elif column.name in values and isinstance(column.origin, DocumentId):
            document_id = values[column.name]
    path = template.path_if_told(known, document_id)
    if path is None or not can_be_asked(path):
        return None
    there = {} if template.is_plain else template.match(path.split("/")) or {}
    # Joined parts may form the id of another document.
    return path if all(there.get(name, value) == value for name, value in known.items()) else None


# --- why ----------------------------------------------------------------------------------------------------------------


def causes(connection: Connection, collection: Collection, findings: Sequence[Finding]) -> dict[str, Cause]:
    """The cause of each missing, stale or extra finding by the op log, by label.

    It was attempted and failed, if the log has an operation that wrote a missing key, deleted an extra one, or wrote a stale
    one within AROUND of its document's last write. A stale key with only other writes is unknown, because counters move a
    document's time too.
    """
    wanted = {f.label: _entity_ids(collection, f) for f in findings if f.requires is None}
    ids = sorted({i for own in wanted.values() for i in own})
    if not is_readable(connection) or not ids:
        return {f.label: Cause(Why.UNKNOWN) for f in findings}
    # For each entity id, the last operation that deleted and the last one that didn't.
    rows = connection.execute(
        f"""
        SELECT DISTINCT ON (entity_id, kind = 'delete') entity_id, kind = 'delete', op_id, created_at
        FROM ({_OPERATIONS}) o
        WHERE entity = ANY(%(entities)s) AND entity_id = ANY(%(ids)s) AND well_formed
          AND (created_at IS NULL OR created_at BETWEEN %(first)s AND now() + %(around)s)
        ORDER BY entity_id, kind = 'delete', created_at DESC NULLS LAST, op_id COLLATE "C" DESC
        """,
        {"entities": entities_of(collection), "ids": ids, "first": _EARLIEST, "around": AROUND},
    )
    by_id: dict[str, list[Operation]] = {}
    for entity_id, deletes, op_id, at in rows:
        by_id.setdefault(entity_id, []).append(Operation(op_id, deletes, at))
    return {
        f.label: _cause(f, [o for i in wanted.get(f.label, ()) for o in by_id.get(i, [])], bool(wanted.get(f.label)))
        for f in findings
    }


def _cause(finding: Finding, operations: list[Operation], expressible: bool) -> Cause:
    if not expressible or finding.verdict not in (Verdict.MISSING, Verdict.STALE, Verdict.EXTRA):
        return Cause(Why.UNKNOWN)
    deletes = finding.verdict is Verdict.EXTRA
    fitting = [o for o in operations if o.deletes == deletes]
    if not fitting:
        return Cause(Why.NEVER_ATTEMPTED)
    last = max(fitting, key=lambda o: (o.at is not None, o.at or _EARLIEST, o.op_id))
    if finding.verdict is Verdict.STALE:
        moment = finding.document_time
        near = moment is not None and last.at is not None and abs(last.at - moment) <= AROUND
        return Cause(Why.ATTEMPTED_FAILED if near else Why.UNKNOWN, last.op_id, last.at)
    return Cause(Why.ATTEMPTED_FAILED, last.op_id, last.at)


def about(connection: Connection, collection: Collection, finding: Finding, limit: int = 20) -> list[str]:
    """A line for each of the latest operations on a key, the newest first; empty if write_ops can't be read."""
    ids = _entity_ids(collection, finding)
    if not ids or not is_readable(connection):
        return []
    rows = connection.execute(
        f"""
        SELECT created_at, op_id FROM ({_OPERATIONS}) o
        WHERE well_formed AND entity = ANY(%s) AND entity_id = ANY(%s) ORDER BY created_at DESC NULLS LAST LIMIT %s
        """,
        (entities_of(collection), ids, limit),
    ).fetchall()
    return [f"{at.isoformat(timespec='seconds') if at is not None else 'no time'}  {op_id}" for at, op_id in rows]


def _entity_ids(collection: Collection, finding: Finding) -> list[str]:
    """The entity ids that op ids of this key have."""
    ids = []
    for operations in collection.operations:
        if not operations.columns:
            if finding.path is not None:
                ids.append(finding.path.rsplit("/", 1)[-1])
            continue
        values = _columns_of(collection, finding)
        if all(name in values for name in operations.columns):
            ids.append("_".join(values[name] for name in operations.columns))
    return ids


def _columns_of(collection: Collection, finding: Finding) -> dict[str, str]:
    """The values of the key's columns; empty if the key doesn't come from the path."""
    if not collection.keyed_by_path or finding.key is None:
        return {}
    return dict(zip((c.name for c in collection.key), map(str, finding.key), strict=True))
