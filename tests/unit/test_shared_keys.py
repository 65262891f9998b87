"""Entries of two documents on one key are told before a run examines them; a property over keys that a catalog may declare."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from dualwrite.engine.sampled import _judged, _may_share_keys
from dualwrite.model.conversions import lower
from dualwrite.model.declaration import (
    ArrayElements,
    Collection,
    Column,
    Constant,
    DocumentId,
    DocumentPath,
    EntryField,
    Field,
    Origin,
    ParentId,
    Segment,
)
from dualwrite.model.documents import Document
from dualwrite.model.errors import CatalogError
from dualwrite.model.mapping import Row, map_document
from dualwrite.model.templates import Template
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
        "Of 3 documents of pieces that were looked at, 1 have an entry with the key of another document's, users/u/orders/o1 and "
        "users/u/orders/o2 for example" in told.text
    )
    assert not told.stops
    assert _judged(collection, [alike[0], alike[2]]) == []


def orders(*key: Origin) -> Collection:
    return Collection("orders", "orders", (ORDER,), tuple(Column(f"k{n}", "key", o) for n, o in enumerate(key)))


@pytest.mark.parametrize(
    "key", [DocumentId(), Segment("order"), DocumentId() >> lower], ids=("id", "segment", "converted")
)
def test_documents_on_the_key_of_another_one_are_told(key):
    """The key is the order's id alone, and two users have an order of one id."""
    collection = orders(key)
    assert _may_share_keys(collection)
    alike = [document("users/u/orders/o1"), document("users/u/orders/o2"), document("users/v/orders/o1")]
    [told] = _judged(collection, alike)
    assert "1 have the key of another one, users/u/orders/o1 and users/v/orders/o1 for example" in told.text
    assert not told.stops
    assert _judged(collection, alike[:2]) == []


def test_a_key_that_holds_the_document_costs_no_read():
    assert not _may_share_keys(pieces("key"))
    assert not _may_share_keys(orders(Segment("user"), DocumentId()))
    assert not _may_share_keys(orders(Segment("user"), Field("name"))), "documents of a natural key are duplicates"


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
def test_each_document_has_a_row_of_its_own_or_is_refused(path):
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


BESIDE = [
    ("users/{u}/private/profile", "users/{u}/private/settings"),
    ("users/{u}/private/profile", "orgs/{u}/private/profile"),
    ("users/{u}/private/profile", "orgs/{u}/private/{v}"),
    ("users/{u}/private/profile", "orgs/{o}/teams/{u}/private/profile"),
    ("a/x/private/profile", "b/x/private/profile"),
    ("private/profile", "private/settings"),
    ("t/r-{n}", "t/q-{n}"),
    ("u/{u}/t/r-{n}", "v/{v}/t/r-{n}"),
    ("t/{n}", "u/{u}/t/{n}"),
    ("t/{n}_{m}", "u/{u}/t/{m}_{n}"),
    ("t/{n}_{m}", "u/{u}/t/{n}-{m}"),
    ("t/{n:1}_{m}", "u/{u}/t/{n}_{m}"),
]
KEYS = [
    DocumentId(),
    DocumentPath(),
    *(Segment(name) for name in "uvonm"),
    DocumentId() >> lower,
    Segment("n") >> lower,
    Field("name"),
]


def _documents(made: Collection) -> list[tuple[Template, str]]:
    """Documents with every combination of two values of the variables."""
    return [
        (template, template.path(dict(zip(template.variables, values, strict=True))))
        for template in made.templates
        for values in product("pq", repeat=len(template.variables))
    ]


@pytest.mark.parametrize("paths", BESIDE, ids=" + ".join)
def test_documents_of_several_paths_share_a_row_only_by_one_id(paths):
    """As documents of one id below several parents do: those are seen by the run that meets them, and no key of ids is refused for
    them. The id of a path that ends in a text is what tells its documents apart, with that text."""
    accepted = []
    for origins in [o for n in (1, 2, 3) for o in combinations(KEYS, n)]:
        try:
            made = Collection("x", "x", paths, tuple(Column(f"k{n}", "key", o) for n, o in enumerate(origins)))
        except CatalogError:
            continue
        accepted.append(origins)
        ids: dict[object, set[tuple[str, ...]]] = {}
        for template, path in _documents(made):
            [unit] = map_document(made, document(path)) or []
            assert isinstance(unit, Row)
            fixed = template.ids[-1].is_literal and len(template.segments) > 2
            ids.setdefault(unit.key, set()).add(tuple(path.split("/")[-3:] if fixed else path.split("/")[-1:]))
        for shared in ids.values():
            assert len({one[-1] for one in shared}) == 1, (origins, shared)
            assert len({one[0] for one in shared if len(one) > 1}) <= 1, (origins, shared)
    assert (DocumentPath(),) in accepted
    if not any(template.ids[-1].is_literal for template in map(Template, paths)):
        assert (DocumentId(),) in accepted


@pytest.mark.parametrize("paths", BESIDE, ids=" + ".join)
def test_the_document_column_tells_documents_of_two_paths_apart(paths):
    """Unless they have one id."""
    for origin in KEYS:
        columns = (Column("d", "key", origin), Column("e", "key", EntryField("id")))
        try:
            made = Collection("x", "x", paths, columns, entries=ArrayElements("pieces"))
        except CatalogError:
            continue
        told: dict[str | None, set[str]] = {}
        for _, path in _documents(made):
            if made.document_column is not None:
                told.setdefault(made.document_value(path), set()).add(path.rsplit("/", 1)[-1])
        assert all(len(ids) == 1 for ids in told.values()), (origin, told)
