"""One difference: its document and its row side by side, with the key's operations and journal. For the terminal of an
operator who may read both databases: nothing of it is kept, logged or sent anywhere."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from dualwrite.engine import op_log
from dualwrite.firestore.source import Source
from dualwrite.model.cell_types import Cell, Json, truncate_to_milliseconds
from dualwrite.model.declaration import Catalog, Collection
from dualwrite.model.documents import Document, Unasked
from dualwrite.model.errors import ParameterError
from dualwrite.model.history import Written
from dualwrite.model.keys import Key
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.model.parameters import pairs
from dualwrite.model.verdicts import Finding, Verdict, printable
from dualwrite.postgres.remembered import journal
from dualwrite.postgres.remembered.differences import OpenDifference, differences_at
from dualwrite.postgres.target import Target

NARROWEST = 60


def shown(source: Source, target: Target, catalog: Catalog, difference: str, width: int) -> Iterator[str]:
    """The lines that show one difference, named as collection:key. `width`: characters of a line. Raises ParameterError if
    nothing is known of such a key. Bills at most one read."""
    [(name, label)] = pairs([difference])
    collection = target.catalog[name] if name in catalog.names else catalog[name]
    with target.transaction() as connection:
        known = differences_at(connection, name, [label]).get(label)
        lines = [_written(write) for write in journal.of_key(connection, name, label)]
    key = _key_of(collection, label, known)
    path = known.finding.path if known is not None else None
    path = path or (next(iter(target.paths(collection, [key]).get(key, ())), None) if key else None)
    answer = source.get([path], collection.fields)[path] if path else None
    mapped = _mapped(collection, answer, label, key)
    row = target.whole(collection, mapped.key if isinstance(mapped, Row) else key) if mapped or key else None
    if known is None and row is None and mapped is None and not lines:
        raise ParameterError(
            f"{difference} is not open, and neither a row nor the journal has such a key. Copy it from the page.",
            code="difference-unknown",
        )
    yield from _head(difference, path, known, answer, mapped, row)
    yield ""
    yield from _table(
        collection, mapped if isinstance(mapped, Row) else None, row, _differing(target, collection, mapped), width
    )
    finding = known.finding if known is not None else Finding(Verdict.MATCHING, label, path, key=key)
    with target.transaction() as connection:
        operations = op_log.about(connection, collection, finding)
    yield from _listed("Operations (write_ops)", operations)
    yield from _listed("Written by this bundle (journal)", lines)


def _key_of(collection: Collection, label: str, known: OpenDifference | None) -> Key | None:
    if known is not None and known.finding.key is not None:
        return known.finding.key
    parts = tuple(label.split("/"))
    return parts if len(parts) == len(collection.key) and "…" not in label and "~" not in label else None


def _mapped(collection: Collection, answer: Any, label: str, key: Key | None) -> Row | Rejection | None:
    """The document, or its entry with this label, mapped; None if there is none."""
    if not isinstance(answer, Document):
        return None
    mapped = map_document(collection, answer) or []
    by_label = [m for m in mapped if m.label == label or (isinstance(m, Row) and m.key == key)]
    return next(iter(by_label), None) or next((m for m in mapped if isinstance(m, Rejection) and m.entire), None)


def _differing(target: Target, collection: Collection, mapped: Row | Rejection | None) -> frozenset[str]:
    """The columns that a look would call different."""
    if not isinstance(mapped, Row):
        return frozenset()
    with target.transaction() as connection:
        compared = target.compare(connection, collection, [mapped])
    return frozenset(name for difference in compared.differences for name in difference.columns)


def _head(
    difference: str,
    path: str | None,
    known: OpenDifference | None,
    answer: Any,
    mapped: Row | Rejection | None,
    row: Any,
) -> Iterator[str]:
    yield printable(difference)
    if path is not None:
        yield f"  document  {printable(path)}"
    there = "can't be asked for" if isinstance(answer, Unasked) else "there" if answer is not None else "not there"
    if isinstance(answer, Document):
        there += f", created {answer.create_time.isoformat()}, updated {answer.update_time.isoformat()}"
    yield f"            {there}"
    yield f"  row       {'there' if row is not None else 'not there'}"
    if isinstance(mapped, Rejection):
        yield f"  can't become a row: {printable(mapped.reason)}"
    if known is None:
        yield "  not open"
        return
    finding = known.finding
    yield f"  open as   {finding.verdict}{f' ({printable(finding.reason)})' if finding.reason else ''} since {known.first_seen.isoformat()}"
    if known.excuse is not None:
        yield "  excused"


def _table(
    collection: Collection, mapped: Row | None, row: dict[str, Any] | None, differing: frozenset[str], width: int
) -> Iterator[str]:
    """Column, the document's value, the row's value; ≠ if a look calls them different."""
    says = {c.name: _text(cell) for c, cell in zip(collection.columns, mapped.cells, strict=True)} if mapped else {}
    has = {name: _text(value) for name, value in row.items()} if row else {}
    names = list(dict.fromkeys([c.name for c in collection.columns] + list(has)))
    first = min(max(map(len, names)), 30)
    each = max(NARROWEST, width - first - 8) // 2
    yield from _lines("", "column", "the document says", "the row has", first, each)
    yield "-" * (first + 2 * each + 6)
    for name in names:
        mark = "≠" if name in differing else ""
        yield from _lines(mark, printable(name), says.get(name, ""), has.get(name, ""), first, each)


def _lines(mark: str, name: str, left: str, right: str, first: int, each: int) -> Iterator[str]:
    a, b = (textwrap.wrap(text, each, drop_whitespace=False) or [""] for text in (left, right))
    for n in range(max(len(a), len(b))):
        cells = [mark if n == 0 else "", name if n == 0 else "", a[n] if n < len(a) else "", b[n] if n < len(b) else ""]
        yield f"{cells[0]:1} {cells[1]:{first}}  {cells[2]:{each}}  {cells[3]}".rstrip()


def _text(value: Cell | Any) -> str:
    """A value in one line, with characters escaped that a terminal would run as commands."""
    if value is None:
        return "null"
    if isinstance(value, Json):
        value = value.text
    if isinstance(value, datetime):
        return truncate_to_milliseconds(value).isoformat()
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return printable(str(value))


def _written(write: Written) -> str:
    undo = " (undo)" if write["undo"] else ""
    return f"{write['at']}  {write['action']}{undo} by {write['run_id']}{'' if write['confirmed'] else ', unconfirmed'}"


def _listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    yield ""
    yield f"{title}: none" if not lines else title
    yield from (f"  {printable(line)}" for line in lines)
