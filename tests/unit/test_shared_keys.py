"""Entries of two documents on one key are told before a run examines them; a property over keys that a catalog may declare."""

from __future__ import annotations

from itertools import combinations

import pytest

from dualwrite.engine.sampled import _judged, _may_share_keys
from dualwrite.model.declaration import (
    ArrayElements,
    Collection,
    Column,
    Constant,
    DocumentId,
    DocumentPath,
    EntryField,
    Field,
    ParentId,
    Segment,
)
from dualwrite.model.documents import Document
from dualwrite.model.errors import CatalogError
from dualwrite.model.mapping import Row, map_document
from tests.arbitrary import CREATED


def document(path: str, *ids: str) -> Document:
    return Document(path, {"pieces": [{"id": id_} for id_ in ids], "name": "n"}, CREATED, CREATED)


ORDER = "users/{user}/orders/{order}"


def pieces(role: str) -> Collection:
    columns = (Column("id", "key", EntryField("id")), Column("order_id", role, Segment("order")))
    return Collection("pieces", "pieces", (ORDER,), columns, entries=ArrayElements("pieces"))


def test_entries_on_the_key_of_another_documents_are_told():
    """The key is the entry's id alone, and two orders have the same one."""
    collection = pieces("compared")
    assert _may_share_keys(collection)
    alike = [
        document("users/u/orders/o1", "a", "b"),
        document("users/u/orders/o2", "b"),
        document("users/v/orders/o3", "c"),
    ]
    [told] = _judged(collection, alike)
    assert (
        "Of 3 documents of pieces that were looked at, 1 have an entry with the key of another document's, users/u/orders/o2"
        in told.text
    )
    assert not told.impure
    assert _judged(collection, [alike[0], alike[2]]) == []


def test_a_key_that_holds_the_document_costs_no_read():
    assert not _may_share_keys(pieces("key"))


PATHS = [
    "things/{thing}",
    ORDER,
    "things/{a}_{b}",
    "users/{user}/private/profile",
    "config/site",
    "users/{user}/orders/{a}-{b}",
]
ORIGINS = [DocumentId(), DocumentPath(), Field("name"), Constant("x"), ParentId("users"),
           *(Segment(name) for name in ("thing", "user", "order", "a", "b"))]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_documents_of_one_collection_have_one_row_each_or_are_refused(path):
    """Whatever the key is made of, unless it is of a field: then each document above has rows of its own."""
    accepted = 0
    for origins in [o for n in (1, 2) for o in combinations(ORIGINS, n)]:
        try:
            made = Collection("x", "x", (path,), tuple(Column(f"k{n}", "key", o) for n, o in enumerate(origins)))
        except CatalogError:
            continue
        template = made.templates[0]
        natural = not made.keyed_by_path
        names = (
            [v for p in template.ids[:-1] for v in p.variables]
            if natural
            else list(template.ids[-1].variables) or template.variables
        )
        if made.is_one_document or not names:
            continue
        accepted += 1
        found = [
            template.path({v: other if v == name else "same" for v in template.variables})
            for name in names
            for other in ("p", "q")
        ]
        units = [unit for at in dict.fromkeys(found) for unit in map_document(made, document(at)) or []]
        assert all(isinstance(unit, Row) for unit in units)
        assert len({unit.key for unit in units}) == len(units), origins
    assert accepted or path == "config/site"
