"""What is known of the documents that a row requires, asked of real ones: there, gone, or such that they can't have a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine import parents as parents_module
from dualwrite.engine.job import Job
from dualwrite.engine.parents import Parents, References, Required
from dualwrite.firestore.source import Source
from dualwrite.model.conditions import Is
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Field
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Row, map_document
from dualwrite.model.report import CollectionReport
from dualwrite.postgres.remembered import gone
from dualwrite.postgres.target import Difference, Target
from tests.worlds import comment, post, put

T = datetime(2026, 2, 1, tzinfo=UTC)
SHOWN = Catalog(tuple(replace(c, where=Is("title", "t")) if c.name == "posts" else c for c in CATALOG.collections))
"""Posts have a row only if they are called t."""

TREE = Catalog((
    Collection(
        name="categories", table="categories", paths=("categories/{category}",), selected=True, where=Is("shown", True),
        columns=(
            Column("slug", "key", DocumentId()),
            Column("parent_id", "compared", Field("parent"), references="categories"),
            Column("name", "compared", Field("name")),
        ),
    ),
))  # fmt: skip


@pytest.fixture
def parents_of(firestore, emulator, target_dsn):
    """What one run of a collection knows of required documents, over real parts."""

    @contextmanager
    def parents_of(
        name: str = "comments", catalog: Catalog = CATALOG, trusted: timedelta | None = None
    ) -> Iterator[tuple[Parents, Source]]:
        with (
            Source(firestore.project, emulator_host=emulator) as source,
            Target(lambda: postgres.connect(target_dsn), catalog) as target,
        ):
            job = Job(source, target, catalog, catalog[name], "run", CollectionReport(name, "compare"))
            yield Parents(job, trusted), source

    return parents_of


def posts(*ids: str) -> list[Required]:
    return [("posts", f"boards/b1/posts/{post_id}") for post_id in ids]


def read(parents: Parents, required: Iterable[Required], rowless: Iterable[Required] = ()) -> list[str]:
    """The paths of the rows that are to be judged."""
    return [row.path for _, rows in parents.read(required, frozenset(rowless)) for row in rows]


def states(parents: Parents, required: Iterable[Required]) -> dict[str, str | None]:
    return {path.rpartition("/")[2]: parents.state(name, path) for name, path in required}


# --- documents that are required ------------------------------------------------------------------------------------------


def test_a_required_document_is_there_gone_or_cannot_have_a_row(firestore, parents_of):
    """One that doesn't meet its collection's condition has no row either; one that can't be asked for isn't gone."""
    put(firestore, {
        "boards/b1/posts/there": post(), "boards/b1/posts/unfit": post(authorId=7), "boards/b1/posts/hidden": post(title="x"),
        "users/u1": {"nickname": "n", "createdAt": T},
    })  # fmt: skip
    required = [*posts("there", "gone", "unfit", "hidden", "__x__"), ("users", "users/u1"), ("users", "users/gone")]
    with parents_of(catalog=SHOWN) as (parents, _):
        assert set(states(parents, required).values()) == {None}
        found = read(parents, [*required, *required], required)
        assert sorted(found) == ["boards/b1/posts/there", "users/u1"]
        expected = {"there": "present", "gone": "gone", "unfit": "unfit", "hidden": "gone", "__x__": "unfit"}
        assert states(parents, required[:5]) == expected
        assert states(parents, required[5:]) == {"u1": "present", "gone": "gone"}
        assert parents.gone == {*posts("gone"), ("users", "users/gone")}, "an edit may bring back what is only hidden"
        assert parents.insertable() == []
        parents.learn("posts", {"boards/b1/posts/there": "insertable"}, ())
        assert parents.insertable() == posts("there")


def test_only_what_has_no_row_is_remembered_as_gone(firestore, parents_of):
    """A document that is gone and whose row is still there is asked for again: its row is extra."""
    with parents_of() as (parents, _):
        read(parents, posts("rowless", "with-row"), posts("rowless"))
        assert states(parents, posts("rowless", "with-row")) == {"rowless": "gone", "with-row": "gone"}
        assert parents.gone == set(posts("rowless"))
        parents.learn("posts", {"boards/b1/posts/a": "unfit", "boards/b1/posts/b": "gone"}, posts("a", "b"))
        assert parents.gone == set(posts("rowless", "b"))


@pytest.mark.parametrize(
    ("trusted", "has_row", "reads"),
    [(timedelta(hours=1), False, 0), (timedelta(hours=1), True, 1), (None, False, 1), (timedelta(0), False, 1)],
    ids=["lately", "a row is there", "not trusted", "too long ago"],
)
def test_what_was_gone_lately_without_a_row_is_not_asked_again(target_dsn, parents_of, trusted, has_row, reads):
    """One that came back has a row, or is missing itself."""
    with psycopg.connect(target_dsn) as connection:
        gone.remember(connection, posts("gone"))
    with parents_of(trusted=trusted) as (parents, source):
        before = source.billed_reads
        read(parents, posts("gone"), () if has_row else posts("gone"))
        assert source.billed_reads - before == reads
        assert states(parents, posts("gone")) == {"gone": "gone"}
        read(parents, posts("other"), posts("other"))
        assert source.billed_reads - before == reads + 1, "of others nothing is known"


def test_what_is_remembered_of_parents_stays_within_bounds(parents_of, monkeypatch):
    """Each kind for itself; what is known is kept as long as there is room."""
    monkeypatch.setattr(parents_module, "REMEMBERED", 2)
    with parents_of() as (parents, _):
        for number, left in ((2, {"p0": "gone", "p1": "gone"}), (3, {"p0": None, "p1": None})):
            read(parents, posts(*(f"p{n}" for n in range(number))))
            parents.look([("boards", f"boards/b{n}") for n in range(number)], {})
            parents.forget()
            assert states(parents, posts("p0", "p1")) == left
            assert [parents.document("boards", f"boards/b{n}") for n in range(2)] == list(left.values())
        parents.look([("boards", f"boards/b{n}") for n in range(3)], {})
        read(parents, posts("p0"))
        parents.forget()
        assert states(parents, posts("p0")) == {"p0": "gone"}
        assert parents.document("boards", "boards/b0") is None


def test_what_was_hidden_is_asked_again_after_all_is_forgotten(firestore, parents_of, monkeypatch):
    """It is deleted meanwhile, so now it is gone for good."""
    monkeypatch.setattr(parents_module, "REMEMBERED", 0)
    put(firestore, {"boards/b1/posts/hidden": post(title="x")})
    with parents_of(catalog=SHOWN) as (parents, _):
        read(parents, posts("hidden"), posts("hidden"))
        assert parents.gone == set()
        parents.forget()
        firestore.document("boards/b1/posts/hidden").delete()
        read(parents, posts("hidden"), posts("hidden"))
        assert parents.gone == set(posts("hidden"))


# --- documents whose rows may come later ----------------------------------------------------------------------------------


@pytest.fixture(params=["ON DELETE CASCADE", "ON DELETE SET NULL"])
def nulling(request, target_dsn) -> bool:
    """A table of a tree; whether its rows stay, with a null, when the row above them goes."""
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE categories (slug text PRIMARY KEY, parent_id text REFERENCES categories {request.param}, name text)"
        )
    return request.param.endswith("NULL")


def category(parent: str | None, **changes: Any) -> dict[str, Any]:
    return {"parent": parent, "name": "n", "shown": True, **changes}


def categories(*names: str) -> list[Required]:
    return [("categories", f"categories/{name}") for name in names]


def test_a_document_that_hangs_on_a_gone_one_is_gone_too(firestore, parents_of, nulling):
    """Up to the root, whatever the order; unless it becomes null there. A circle is whole."""
    put(firestore, {f"categories/{name}": fields for name, fields in {
        "root": category(None), "a": category("root"), "b": category("a"),
        "of-gone": category("gone"), "below-gone": category("of-gone"), "deep-gone": category("below-gone"),
        "unfit": category(None, name=7), "of-unfit": category("unfit"), "below-unfit": category("of-unfit"),
        "hidden": category(None, shown=False), "of-hidden": category("hidden"),
        "round1": category("round2"), "round2": category("round1"), "itself": category("itself"),
    }.items()})  # fmt: skip
    there = ("root", "a", "b", "round1", "round2", "itself")
    hanging = {"of-gone": "gone", "below-gone": "gone", "deep-gone": "gone", "of-unfit": "unfit", "below-unfit": "unfit",
               "of-hidden": "gone"}  # fmt: skip
    by_itself = {"gone": "gone", "unfit": "unfit", "hidden": "gone", "__x__": "unfit"}
    with parents_of("categories", TREE) as (parents, _):
        asked = categories(*there, *hanging, *by_itself)
        parents.look(asked[::-1], {})
        found = {path.rpartition("/")[2]: parents.document(name, path) for name, path in asked}
        expected = {**dict.fromkeys(there, "insertable"), **hanging, **by_itself}
        assert found == (expected if not nulling else {**expected, **dict.fromkeys(hanging, "insertable")})
        assert parents.gone == set(categories("gone")), "of what is hidden an edit may bring back the row"
        assert set(parents.insertable()) == {r for r in asked if parents.document(*r) == "insertable"}
    for name in ("deep-gone", "b"):
        with parents_of("categories", TREE) as (parents, _):
            parents.look(categories(name), {})
            assert parents.document(*categories(name)[0]) == found[name], "asked for by itself, too"


def test_what_is_known_or_at_hand_is_not_read_again(firestore, parents_of, nulling):
    """The row that is judged, and what an earlier look asked for; a document that came meanwhile is asked for in the next run."""
    put(firestore, {"categories/root": category(None), "categories/a": category("root")})
    [row] = map_document(TREE["categories"], Document("categories/b", category("a"), T, T)) or []
    assert isinstance(row, Row)
    with parents_of("categories", TREE) as (parents, source):
        before = source.billed_reads
        parents.look(categories("b"), {categories("b")[0]: row})
        assert source.billed_reads - before == (0 if nulling else 2), "what it hangs on is read, not itself"
        assert parents.document(*categories("b")[0]) == "insertable"
        parents.look(categories("b", "a", "root"), {})
        assert source.billed_reads - before == 2
        parents.look(categories("b", "a", "root"), {})
        assert source.billed_reads - before == 2
        put(firestore, {"categories/c": category("b")})
        parents.look(categories("c"), {})
        assert source.billed_reads - before == 3
        assert parents.document(*categories("c")[0]) == "insertable"


def test_what_hangs_on_one_that_was_known_to_be_gone_is_gone(firestore, parents_of, nulling):
    """A later page's document hangs on one that an earlier page has asked for."""
    put(firestore, {"categories/late": category("gone"), "categories/later": category("late")})
    with parents_of("categories", TREE) as (parents, source):
        parents.look(categories("gone"), {})
        parents.look(categories("later"), {})
        assert parents.document(*categories("later")[0]) == ("insertable" if nulling else "gone")
        assert source.billed_reads == (2 if nulling else 3)


# --- which documents a row names ------------------------------------------------------------------------------------------


def difference(
    row: Row, *, exists: bool = False, columns: tuple[str, ...] = (), lacks: tuple[str, ...] = ()
) -> Difference:
    return Difference(0, row, exists, "1" if exists else None, columns, lacks, (), None)


def test_a_new_row_requires_all_and_an_old_one_what_it_lacks():
    """Of one that differs, also what a column names that may have become null."""
    [row] = map_document(CATALOG["comments"], Document("boards/b1/posts/p1/comments/c1", comment(), T, T)) or []
    assert isinstance(row, Row)
    both = [("posts", "boards/b1/posts/p1"), ("users", "users/u1")]
    references = References(CATALOG, CATALOG["comments"])
    every = frozenset({"post_id", "user_id"})
    assert references.required(difference(row), frozenset()) == both
    assert references.required(difference(row, exists=True), every) == []
    assert references.required(difference(row, exists=True, lacks=("user_id",)), frozenset()) == both[1:]
    assert references.required(difference(row, exists=True, columns=("post_id", "content")), every) == both[:1]
    assert references.required(difference(row, exists=True, columns=("post_id",)), frozenset({"user_id"})) == []
    assert references.rowless(difference(row, lacks=("user_id",))) == both[1:]
    assert references.rowless(difference(row, exists=True, lacks=("user_id",))) == []
    assert list(references.awaited(row)) == []
    indexes = [c.name for c in CATALOG["comments"].columns]
    assert list(references.nullable(row, frozenset({"user_id"}))) == [(indexes.index("user_id"), both[1])]
    assert list(references.nullable(row, frozenset())) == []
    without = References(CATALOG, CATALOG["comments"], but=frozenset({"post_id"}))
    assert without.required(difference(row), frozenset()) == both[1:]


def test_a_trees_row_awaits_what_is_above_and_requires_nothing():
    """Its reference is null until the other row is there."""
    collection = TREE["categories"]
    references = References(TREE, collection)
    assert references.late == {"parent_id"}
    [row] = map_document(collection, Document("categories/a", category("root"), T, T)) or []
    [root] = map_document(collection, Document("categories/root", category(None), T, T)) or []
    assert isinstance(row, Row)
    assert isinstance(root, Row)
    assert list(references.awaited(row)) == categories("root")
    assert list(references.awaited(root)) == []
    assert references.required(difference(row), frozenset()) == []
    assert references.rowless(difference(row, lacks=("parent_id",))) == []
    assert references.required(difference(row, exists=True, lacks=("parent_id",)), frozenset()) == categories("root")
