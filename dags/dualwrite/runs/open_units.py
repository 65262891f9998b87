"""The units to look at for open differences: keys, or documents that couldn't become rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dualwrite import settings
from dualwrite.engine.compare import Examiner
from dualwrite.engine.units import Unit, is_of_another_key, unit_of_finding, unit_of_row
from dualwrite.model.documents import Unasked
from dualwrite.model.keys import key_of_path
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.model.verdicts import Finding, Verdict, rejected
from dualwrite.postgres.remembered.differences import OpenDifference

log = logging.getLogger(__name__)


def units_of(examiner: Examiner, known: Sequence[OpenDifference]) -> tuple[list[Unit], list[Finding]]:
    """The units of open differences, each a document and its row by key; and the findings that need no further look.

    A difference without a key was a document, or a part of one, that couldn't become a row. It is mapped again: as long
    as it is rejected, there is nothing else to look at. Otherwise its row is looked at, even if the document is gone or
    has lost the part: an older row may be there. A difference whose key is of another kind than the catalog declares now
    ends, and its document's present key is looked at.
    """
    collection = examiner.job.collection
    units: dict[str, Unit] = {}
    keyless: list[Finding] = []
    for finding in (difference.finding for difference in known):
        if finding.key is None or is_of_another_key(collection, finding.key, finding.path):
            keyless.append(finding)
        else:
            units[finding.label] = unit_of_finding(collection, finding)
    if outdated := sum(finding.key is not None for finding in keyless):
        log.warning(
            "%s: %d open differences have another key than %s declares now. They end, and their documents are looked "
            "at by path; the next sweep compares every row",
            collection.name,
            outdated,
            settings.catalog_file(),
        )
    mapped = _mapped_again(examiner, keyless)
    units |= mapped.units
    for unit in [*mapped.parts, *_rows_left(examiner, mapped.ended)]:
        units.setdefault(unit.label, unit)
    done = [*mapped.done, *(Finding(Verdict.ABSENT, f.label, f.path) for f in mapped.ended if f.label not in units)]
    return list(units.values()), done


@dataclass(frozen=True, slots=True)
class _Mapped:
    """Findings that had no key, sorted by the rows to which their documents map now."""

    units: dict[str, Unit] = field(default_factory=dict)
    """Units of findings that can become a row now, by label."""
    parts: list[Unit] = field(default_factory=list)
    """Units of the entries of an array or a map that was refused as a whole."""
    done: list[Finding] = field(default_factory=list)
    """Findings that are still rejected, or whose path Firestore can't be asked for."""
    ended: list[Finding] = field(default_factory=list)
    """Findings whose document, or the part of it, is gone."""


def _mapped_again(examiner: Examiner, keyless: Sequence[Finding]) -> _Mapped:
    collection = examiner.job.collection
    mapped = _Mapped(ended=[f for f in keyless if not f.path])
    at: dict[str, list[Finding]] = {}
    for finding in keyless:
        if finding.path:
            at.setdefault(finding.path, []).append(finding)
    for documents in examiner.job.source.get_in_parts(at, collection.fields):
        for path, document in documents.items():
            if isinstance(document, Unasked):  # a scan delivered it, so it isn't gone
                mapped.done.extend(at[path])
                continue
            rows = map_document(collection, document) or [] if document is not None else []
            for finding in at[path]:
                now = next((m for m in rows if m.label == finding.label), None)
                if isinstance(now, Rejection):
                    mapped.done.append(rejected(now))
                elif isinstance(now, Row):
                    mapped.units[now.label] = unit_of_row(now)
                else:
                    mapped.ended.append(finding)
                    mapped.parts.extend(unit_of_row(row) for row in rows if isinstance(row, Row))
    return mapped


def _rows_left(examiner: Examiner, ended: Sequence[Finding]) -> list[Unit]:
    """Units of the rows that findings whose document or part is gone may have left. If the key comes from fields, it can no
    longer be known: the next sweep looks at every row."""
    collection = examiner.job.collection
    if not collection.keyed_by_path:
        return []
    if collection.entries is not None:
        return examiner.rows_of(dict.fromkeys(f.path for f in ended if f.path and "\x00" not in f.path))
    # No row's key can hold U+0000.
    keyed = ((f, key_of_path(collection, f.path)) for f in ended if f.path and "\x00" not in f.path)
    return [unit_of_finding(collection, replace(f, key=key)) for f, key in keyed if key is not None]
