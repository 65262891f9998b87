"""Tables that reference themselves, or each other: trees, chains, circles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from dualwrite.engine.compare_and_set import WritingProtocol
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Field, Parent, Segment
from dualwrite.model.errors import CatalogError, PreflightError
from dualwrite.runs import backfill
from tests.refusals import coded
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled, verify_all

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=300)


def tree(*, held: bool) -> Catalog:
    return Catalog(
        (
            Collection(
                name="categories", table="categories", paths=("categories/{category}",), check_fields=("at",), selected=True,
                columns=(
                    Column("slug", "key", DocumentId()),
                    Column("parent_id", "compared", Field("parent"), references=Parent("categories", "id") if held else "categories"),
                    Column("name", "compared", Field("name")),
                ),
            ),
        )
    )  # fmt: skip


CREATE = {
    False: "CREATE TABLE categories (slug text PRIMARY KEY, parent_id text REFERENCES categories {}, name text)",
    True: "CREATE TABLE categories (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, slug text NOT NULL UNIQUE, "
    "parent_id int REFERENCES categories {}, name text)",
}
PARENTS = {
    False: "SELECT jsonb_object_agg(slug, parent_id) FROM categories",
    True: "SELECT jsonb_object_agg(c.slug, p.slug) FROM categories c LEFT JOIN categories p ON p.id = c.parent_id",
}


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture(params=[False, True], ids=["by key", "held"])
def held(request) -> bool:
    return request.param


@pytest.fixture
def put(firestore):
    def put(parents: dict[str, str | None], **fields: Any) -> None:
        batch = firestore.batch()
        for name, parent in parents.items():
            batch.set(firestore.document(f"categories/{name}"), {"parent": parent, "name": name, "at": NOW, **fields})
        batch.commit()

    return put


def chain(length: int) -> dict[str, str | None]:
    """Each names the one that comes after it, so that children are read before their parents."""
    names = [f"c{n:03}" for n in range(length)]
    return dict(zip(names, [*names[1:], None], strict=True))


def _everything(catalog: Catalog, **changes: Any) -> dict[str, Any]:
    return {"collections": list(catalog.names), "scope": "all", "catalog": catalog, **changes}


def _run(client, emulator: str, dsn: str, catalog: Catalog, **changes: Any):
    return reconciled(
        client.project, emulator, dsn, catalog=catalog, collections=list(catalog.names), max_share=100, **changes
    )


@pytest.mark.parametrize("page_size", [1000, 5], ids=["one page", "many pages"])
def test_a_tree_is_written_whole_whatever_comes_first(firestore, emulator, target_dsn, put, held, page_size):
    """A dry run, an apply and the look after it agree; a circle of two rows is one too."""
    _execute(target_dsn, CREATE[held].format("ON DELETE CASCADE"))
    wanted = {**chain(12), "z1": "c011", "a1": "c011", "round1": "round2", "round2": "round1", "itself": "itself"}
    put(wanted)
    catalog = tree(held=held)
    given = _everything(catalog, page_size=page_size)
    assert nonzero(dry_run(firestore.project, emulator, target_dsn, **given)["categories"]["counts"]) == {"missing": 17}
    found = apply(firestore.project, emulator, target_dsn, **given)["categories"]
    assert nonzero(found["counts"]) == {"missing": 17}
    assert found["inserted"] == 17
    assert one(target_dsn, PARENTS[held]) == wanted
    assert nonzero(apply(firestore.project, emulator, target_dsn, **given)["categories"]["counts"]) == {"matching": 17}
    with gap_run(firestore.project, emulator, target_dsn, **given) as run:
        assert verify_all(run)["categories"]["verification"] == "verified"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0
    if page_size == 1000:  # filled in by the transaction that inserted them, so the journal knows this version
        ours = "SELECT count(*) FROM categories c JOIN dualwrite.repair_journal j ON j.key = c.slug AND j.row_xmin = c.xmin::text"
        assert one(target_dsn, ours) == 17


def test_a_chain_outside_the_window_is_brought_to_its_root(firestore, emulator, target_dsn, put, held):
    """One document lies in the window; those above it, which have no rows either, are inserted without a recursion's end."""
    _execute(target_dsn, CREATE[held].format("ON DELETE CASCADE"))
    wanted = chain(60)
    put(wanted, at=LONG_AGO)
    put({"c000": "c001"})
    given = {"collections": ["categories"], "catalog": tree(held=held), "since": (NOW - timedelta(days=1)).isoformat()}
    found = apply(firestore.project, emulator, target_dsn, **given)["categories"]
    assert (found["inserted"], found["parents_inserted"]) == (1, 59)
    assert one(target_dsn, PARENTS[held]) == wanted


def test_a_tree_that_is_gone_goes_leaves_first(firestore, emulator, target_dsn, put, held):
    _execute(target_dsn, CREATE[held].format(""))
    put({**chain(9), "other": None})
    catalog = tree(held=held)
    apply(firestore.project, emulator, target_dsn, **_everything(catalog))
    for name in chain(9):
        firestore.document(f"categories/{name}").delete()
    assert _run(firestore, emulator, target_dsn, catalog, scope="sweep").counts("categories") == {"extra": 9}
    assert _run(firestore, emulator, target_dsn, catalog, repair="all").alerts == []
    assert one(target_dsn, PARENTS[held]) == {"other": None}


@pytest.mark.parametrize(
    ("action", "left"), [("ON DELETE CASCADE", {"d": None}), ("ON DELETE SET NULL", {"b": None, "c": "b", "d": None})]
)
def test_what_hangs_on_a_gone_root_goes_or_becomes_null(firestore, emulator, target_dsn, put, held, action, left):
    """The documents below it are there; what the live foreign key says of them is done, in one look."""
    _execute(target_dsn, CREATE[held].format(action))
    put({"a": None, "b": "a", "c": "b", "d": None})
    catalog = tree(held=held)
    apply(firestore.project, emulator, target_dsn, **_everything(catalog))
    firestore.document("categories/a").delete()
    found = _run(firestore, emulator, target_dsn, catalog, scope="sweep")
    assert found.counts("categories") == ({"extra": 3} if "CASCADE" in action else {"extra": 1, "stale": 1})
    for _ in range(2):
        found = _run(firestore, emulator, target_dsn, catalog, scope="sweep", repair="all")
    assert found.alerts == []
    assert one(target_dsn, PARENTS[held]) == left


def test_a_run_that_died_before_it_filled_in_is_finished(firestore, emulator, target_dsn, put, held, monkeypatch):
    """The row stands there with a null and isn't confirmed: the next run's first step fills it in."""
    _execute(target_dsn, CREATE[held].format(""))
    wanted = chain(4)
    put(wanted, at=LONG_AGO)
    put({"c000": "c001"})
    given = {"collections": ["categories"], "catalog": tree(held=held), "since": (NOW - timedelta(days=1)).isoformat()}

    def dies(self) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(WritingProtocol, "finish_late", dies)
        with pytest.raises(KeyboardInterrupt):
            apply(firestore.project, emulator, target_dsn, **given)
    assert one(target_dsn, PARENTS[held]) == {"c000": None}
    apply(firestore.project, emulator, target_dsn, **given)
    assert one(target_dsn, PARENTS[held]) == wanted
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_a_reconciliation_repairs_a_tree_by_key(firestore, emulator, target_dsn, put, held):
    """Rows lost and edits lost; what was inserted with a null is filled in by the same repair."""
    _execute(target_dsn, CREATE[held].format("ON DELETE SET NULL"))
    wanted = {**chain(6), "moved": "c000"}
    put(wanted)
    catalog = tree(held=held)
    apply(firestore.project, emulator, target_dsn, **_everything(catalog))
    _execute(target_dsn, "DELETE FROM categories WHERE slug IN ('c002', 'c003')")
    firestore.document("categories/moved").update({"parent": "c002"})
    wanted["moved"] = "c002"
    found = _run(firestore, emulator, target_dsn, catalog, scope="sweep")
    assert found.counts("categories") == {"missing": 2, "stale": 2}
    assert _run(firestore, emulator, target_dsn, catalog, repair="all").alerts == []
    assert one(target_dsn, PARENTS[held]) == wanted


BOARDS = Collection(
    name="boards", table="boards", paths=("boards/{board}",), selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("last_post_id", "compared", Field("lastPost"), references="posts"),
    ),
)  # fmt: skip
POSTS = Collection(
    name="posts", table="posts", paths=("boards/{board}/posts/{post}",), selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("board_id", "compared", Segment("board"), required=True, references="boards"),
    ),
)  # fmt: skip
CIRCLE = Catalog((POSTS, BOARDS))
CIRCLE_SCHEMA = """
CREATE TABLE boards (id text PRIMARY KEY, last_post_id text);
CREATE TABLE posts (id text PRIMARY KEY, board_id text NOT NULL REFERENCES boards);
ALTER TABLE boards ADD CONSTRAINT last FOREIGN KEY (last_post_id) REFERENCES posts;
"""


@pytest.fixture
def circle(firestore, target_dsn):
    _execute(target_dsn, "DROP TABLE boards, posts, comments, replies, likes, reactions CASCADE", CIRCLE_SCHEMA)
    firestore.document("boards/b1").set({"lastPost": "p1"})
    firestore.document("boards/b2").set({})
    firestore.document("boards/b1/posts/p1").set({})
    return firestore


@pytest.mark.parametrize("names", [["boards", "posts"], ["boards"], ["posts"]])
def test_two_tables_that_reference_each_other_converge(circle, emulator, target_dsn, names):
    """A board names its last post, which lies below it: the board first, with a null."""
    given = {"collections": names, "scope": "all", "catalog": CIRCLE}
    with gap_run(circle.project, emulator, target_dsn, mode="dry_run", **given) as run:
        dry = {n: nonzero(backfill.examine(run, n, dry=True)["counts"]) for n in run.params.names}
    with gap_run(circle.project, emulator, target_dsn, **given) as run:
        backfill.preflight(run, by="a test")
        for name in run.params.names:
            backfill.examine(run, name, dry=False)
        assert all(v["verification"] == "verified" for v in verify_all(run).values())
    assert dry == {"boards": {"missing": 2}, "posts": {"missing": 1}}
    assert one(target_dsn, "SELECT last_post_id FROM boards WHERE id = 'b1'") == "p1"
    assert _run(circle, emulator, target_dsn, CIRCLE, scope="sweep").alerts == []


def test_a_not_null_column_that_must_wait_is_refused(circle, emulator, target_dsn):
    _execute(target_dsn, "ALTER TABLE boards ALTER last_post_id SET NOT NULL")
    with (
        gap_run(circle.project, emulator, target_dsn, **_everything(CIRCLE)) as run,
        pytest.raises(PreflightError, match=r"Column boards.last_post_id is NOT NULL, and refers to posts"),
    ):
        backfill.preflight(run, by="a test")


def test_rows_that_all_need_others_first_are_refused_at_import():
    def pair(**required: bool) -> Catalog:
        return Catalog(
            tuple(
                Collection(
                    name=name, table=name, paths=(f"{name}/{{{name}}}",),
                    columns=(
                        Column("id", "key", DocumentId()),
                        Column("other", "compared", Field("other"), required=required[name], references=other),
                    ),
                )
                for name, other in (("a", "b"), ("b", "a"))
            )
        )  # fmt: skip

    with pytest.raises(CatalogError, match="a, b", check=coded("references-in-a-circle")):
        pair(a=True, b=True)
    assert [c.name for c in pair(a=True, b=False).order] == ["b", "a"]
    assert [[c.late for c in pair(a=False, b=False)[n].references] for n in "ab"] == [[True], [False]]
