"""Ids of parts: whatever is split is joined to the same id, and no id is split by guessing."""

from __future__ import annotations

import itertools
import random
import time
from datetime import UTC, datetime

import pytest

from dualwrite.model import id_patterns
from dualwrite.model.conversions import part
from dualwrite.model.declaration import Collection, Column, Segment
from dualwrite.model.documents import Document
from dualwrite.model.id_patterns import Part, Unsplit, are_disjoint, parsed
from dualwrite.model.mapping import Rejection, map_document
from dualwrite.model.templates import Template, fault, overlapping

PATTERNS = [
    "{a}",
    "profile",
    "o-{a}",
    "{a}.json",
    "{a}_{b}",
    "{a}__{b}",
    "{a}_{b}-{c}",
    "{a}_{b}_{c}",
    "x{a}_{b}y",
    "{a:2}{b}",
    "{a}{b:2}",
    "{a:3}_{b}",
    "{a}_{b:2}",
    "{a}_{b:1}_{c}",
    "{a}-{b:1}{c:1}_{d}",
    "{a:1}{b:2}",
    "__id{a}__",
]


def _ways(pattern: id_patterns.IdPattern, text: str) -> list[tuple[str, ...]]:
    """All splits of an id, by trying each: the definition that `split` must equal."""

    def rest(parts: tuple[str | Part, ...], text: str) -> list[tuple[str, ...]]:
        if not parts:
            return [()] if not text else []
        first, *others = parts
        if isinstance(first, str):
            return rest(tuple(others), text[len(first) :]) if text.startswith(first) else []
        lengths = [first.length] if first.length else range(1, len(text) + 1)
        return [
            (text[:n], *more)
            for n in lengths
            if n is not None and n <= len(text)
            for more in rest(tuple(others), text[n:])
        ]

    return rest(pattern.parts, text)


def _texts(rng: random.Random) -> list[str]:
    short = ["".join(t) for n in range(1, 5) for t in itertools.product("a_-", repeat=n)]
    return short + ["".join(rng.choices("ab_-.xyz", k=rng.randint(3, 14))) for _ in range(150)]


@pytest.mark.parametrize("text", PATTERNS)
def test_an_id_is_split_if_there_is_just_one_way(text):
    pattern, rng = parsed(text), random.Random(text)
    joined = [pattern.join(dict.fromkeys(pattern.variables, t)) for t in _texts(rng)]
    ids = [i for i in [*_texts(rng), *joined] if pattern.fits(i)]
    assert ids
    for each in ids:
        ways, found = _ways(pattern, each), pattern.split(each)
        assert found == (ways[0] if len(ways) == 1 else Unsplit.AMBIGUOUS if ways else Unsplit.NOT_OF_FORM), each
        if isinstance(found, tuple):
            values = dict(zip(pattern.variables, found, strict=True))
            assert pattern.join(values) == each
            assert pattern.could_be(each, values)
        for way in ways:
            known = dict(zip(pattern.variables, way, strict=True))
            assert all(pattern.could_be(each, {name: value}) for name, value in known.items())
        for value in ("a", "_", "zz"):
            for n, name in enumerate(pattern.variables):
                assert pattern.could_be(each, {name: value}) >= any(way[n] == value for way in ways)


@pytest.mark.parametrize("text", PATTERNS)
def test_no_two_values_that_are_split_are_joined_to_one_id(text):
    pattern = parsed(text)
    joined: dict[str, tuple[str, ...]] = {}
    for values in itertools.product(["a", "b", "_", "a_", "_a", "a-b", "", "ab", "a_b"], repeat=len(pattern.variables)):
        told = pattern.join(dict(zip(pattern.variables, values, strict=True)))
        if pattern.fits(told) and pattern.split(told) == values:
            assert joined.setdefault(told, values) == values


def test_a_hostile_id_is_split_in_no_time():
    """1,500 separators: each way of a naive search would be tried."""
    began = time.monotonic()
    for text in ("{a}_{b}_{c}_{d}-{e}", "{a}_{b:3}_{c}_{d}_{e}"):
        assert not isinstance(parsed(text).split("_" * 1500), tuple)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("x/{a}{b}", "two variables have a text between them"),
        ("x/{a}{b:2}{c}", "two variables have a text between them"),
        ("x/{a}_{a}", "a variable occurs once"),
        ("x/{a}/y/o-{a}", "each variable once"),
        ("x/", "an id isn't empty"),
        ("x/..", "Firestore allows no document"),
        ("x/__all__", "Firestore allows no document"),
        ("x/__{a}__", "are reserved"),
        ("x/" + "a" * 1501, "Firestore allows no document"),
        ("x/{a}" + "é" * 750, "at most 1,500 bytes"),
        ("x/{a:0}", "a variable is written"),
        ("x/{a-b}", "a variable is written"),
        ("x/a}", "a variable is written"),
        ("x/a\n", "no line breaks"),
        ("x", "A path template alternates"),
        ("x/{a}/{y}", "A path template alternates"),
    ],
)
def test_what_is_no_form_of_an_id_is_refused_with_its_rule(path, rule):
    assert rule in (fault(path) or "")


@pytest.mark.parametrize(
    "path", ["x/__id7__", "x/__id{n}__", "x/{uid:28}_{slug}", "x/a/y/{b}", "x/{a:1}{b}", "config/site"]
)
def test_a_form_of_an_id_can_be_declared(path):
    assert fault(path) is None


def test_a_template_gives_variables_and_their_places():
    template = Template("users/{user}/private/profile/votes/{day}-{number}")
    segments = ["users", "u1", "private", "profile", "votes", "mon-7"]
    assert template.match(segments) == {"user": "u1", "day": "mon", "number": "7"}
    extended = template.extended(segments)
    assert [extended[template.place(v)] for v in template.variables] == ["u1", "mon", "7"]
    assert template.path({"user": "u1", "day": "mon", "number": "7"}) == "/".join(segments)
    assert template.path({"user": "u1"}, "mon-7") == "/".join(segments)
    assert template.path_if_told({"user": "u1", "day": "mon"}) is None
    assert not template.fits(["users", "u1", "private", "settings", "votes", "mon-7"])
    assert template.match(["users", "u1", "private", "profile", "votes", "mon-7-8"]) is None


@pytest.mark.parametrize(
    ("path", "root", "first"),
    [
        ("boards/{board}/posts/{post}", "boards", "boards/!"),
        ("orders/o-{number}/lines/{line}", "orders", "orders/o-"),
        ("products/tax_rates/tax_rates/{rate}", "products/tax_rates/tax_rates", "products/tax_rates/tax_rates/!"),
        ("config/site", "config", "config/site"),
    ],
)
def test_a_template_knows_where_its_documents_begin(path, root, first):
    assert (Template(path).root, Template(path).first) == (root, first)


def test_two_templates_of_one_document_are_found():
    def pair(*paths: str) -> bool:
        return overlapping([Template(p) for p in paths]) is not None

    assert pair("x/{a}_{b}", "x/{c}-{d}")
    assert pair("x/{a}", "x/settings")
    assert not pair("x/o-{a}", "x/q-{a}")
    assert not pair("x/{a}/y/one", "x/{a}/y/two")
    assert not pair("x/o-{a}", "y/o-{a}")
    assert are_disjoint(parsed("{a}.jpg"), parsed("{a}.png"))


def test_a_part_of_an_id_in_a_field_is_a_conversion():
    of = part("{user:2}_{product}", "product")
    assert of.convert("u1_a_b") == "a_b"
    for wrong in ("u1-a", 7):
        with pytest.raises((ValueError, TypeError)):
            of.convert(wrong)
    with pytest.raises(ValueError, match="names user2"):
        part("{user}_{product}", "user2")


def test_a_document_of_an_unsplit_id_is_no_other_keys_label():
    """The row of `orders/o-o-` is called `o-`, which is the id of a document that has no number."""
    collection = Collection("orders", "orders", ("orders/o-{number}",), (Column("number", "key", Segment("number")),))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    [row], [rejection] = (map_document(collection, Document(f"orders/{i}", {}, now, now)) for i in ("o-o-", "o-"))
    assert (row.label, rejection.label) == ("o-", "orders/o-")
    assert isinstance(rejection, Rejection)
    assert (
        rejection.reason
        == "id_not_split: an id has the form o-{number} in the catalog, and it has no part for each variable"
    )
    assert map_document(collection, Document("orders/q-1", {}, now, now)) is None
