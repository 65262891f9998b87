"""What to look at for differences that are open: keys, or documents where no row could be made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dualwrite import settings
from dualwrite.engine.compare import Examiner
from dualwrite.engine.units import Unit, is_of_another_key, unit_of_finding, unit_of_row
from dualwrite.model.documents import Unasked
from dualwrite.model.mapping import Rejection, Row, key_of_path, map_document
from dualwrite.model.verdicts import Finding, Verdict, rejected
from dualwrite.postgres.remembered.differences import OpenDifference

log = logging.getLogger(__name__)


def units_of(examiner: Examiner, known: Sequence[OpenDifference]) -> tuple[list[Unit], list[Finding]]:
    """What to look at for each open difference: its document and its row, by key.

    A difference without a key was a document, or a part of one, that couldn't become a row. It is mapped again: as long
    as it is rejected, there is nothing else to look at. Otherwise its row is asked for even where the document is gone
    or has lost the part: it may stand there from before. So is a difference whose key is of another kind than the catalog
    declares now: it ends, and what its document's key is now is looked at.
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
            "%s: %d open differences are of another key than %s declares now. They end, and their documents are looked "
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
    """What documents say now of findings that had no key."""

    units: dict[str, Unit] = field(default_factory=dict)
    """They have a row now, by label."""
    parts: list[Unit] = field(default_factory=list)
    """The rows of an array or a map that was refused whole, each part by itself."""
    done: list[Finding] = field(default_factory=list)
    """They are still rejected, or can't be asked for."""
    ended: list[Finding] = field(default_factory=list)
    """Their document, or the part of it, is gone."""


def _mapped_again(examiner: Examiner, keyless: Sequence[Finding]) -> _Mapped:
    collection = examiner.job.collection
    found = _Mapped(ended=[f for f in keyless if not f.path])
    at: dict[str, list[Finding]] = {}
    for finding in keyless:
        if finding.path:
            at.setdefault(finding.path, []).append(finding)
    for documents in examiner.job.source.get_in_parts(at, collection.fields):
        for path, document in documents.items():
            if isinstance(document, Unasked):  # a scan delivered it, so it isn't gone
                found.done.extend(at[path])
                continue
            rows = map_document(collection, document) or [] if document is not None else []
            for finding in at[path]:
                now = next((m for m in rows if m.label == finding.label), None)
                if isinstance(now, Rejection):
                    found.done.append(rejected(now))
                elif isinstance(now, Row):
                    found.units[now.label] = unit_of_row(now)
                else:
                    found.ended.append(finding)
                    found.parts.extend(unit_of_row(row) for row in rows if isinstance(row, Row))
    return found


def _rows_left(examiner: Examiner, ended: Sequence[Finding]) -> list[Unit]:
    """The rows that documents which are gone, or no longer say so, may have left. Where the key is made of fields, nobody
    can tell any more which row that is: the sweep looks at every row."""
    collection = examiner.job.collection
    if not collection.keyed_by_path:
        return []
    if collection.entries is not None:
        return examiner.rows_of(dict.fromkeys(f.path for f in ended if f.path and "\x00" not in f.path))
    # No row's key can hold U+0000.
    keyed = ((f, key_of_path(collection, f.path)) for f in ended if f.path and "\x00" not in f.path)
    return [unit_of_finding(collection, replace(f, key=key)) for f, key in keyed if key is not None]
