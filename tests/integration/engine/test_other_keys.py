"""A key that was corrected in the catalog: what is remembered of the old one is told, and ends."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from dualwrite.catalog import CATALOG
from dualwrite.engine.units import is_of_another_key
from dualwrite.model.declaration import Catalog, DocumentId, Segment
from tests.support import one, reconciled
from tests.worlds import club, examined_until_now, like, post

KEYS = {"id": ("id",), "id and post_id": ("id", "post_id")}


def _keyed_by(*names: str) -> Catalog:
    """The catalog, with likes keyed by these columns."""

    def role(column) -> str:
        return "key" if column.name in names else "compared" if column.role == "key" else column.role

    return Catalog(
        tuple(
            replace(c, columns=tuple(replace(column, role=role(column)) for column in c.columns), unique=())
            if c.name == "likes"
            else c
            for c in CATALOG.collections
        )
    )


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def liked(firestore, emulator, target_dsn):
    """Likes of three kinds of drift: a lost row, a row too many, a lost edit."""
    club(firestore, emulator, target_dsn, {
        "boards/b1/posts/p1": post(), "boards/b1/posts/p1/likes/l1": like(),
        "boards/b1/posts/p1/likes/l2": like(userId="u2"), "boards/b1/posts/p1/likes/l3": like(userId="u3"),
    })  # fmt: skip
    _execute(
        target_dsn, "CREATE UNIQUE INDEX ON likes (id, post_id)", "DELETE FROM likes WHERE id = 'l1'",
        "UPDATE likes SET user_name = 'other' WHERE id = 'l2'",
    )  # fmt: skip
    firestore.document("boards/b1/posts/p1/likes/l3").delete()
    examined_until_now(target_dsn)
    return firestore


@pytest.mark.parametrize(
    ("old", "new"), [(a, b) for a in KEYS for b in KEYS if a != b], ids=lambda key: key.replace(" ", "_")
)
def test_differences_of_a_corrected_key_are_told_and_end(liked, emulator, target_dsn, caplog, old, new):
    """Each second look ended in a ValueError, for ever."""

    def run(key, **changes):
        return reconciled(liked.project, emulator, target_dsn, catalog=_keyed_by(*KEYS[key]), max_share=100, **changes)

    assert sum(run(old, scope="sweep").counts("likes").values()) == 3
    assert "another key" not in caplog.text
    found = run(new)
    assert not [alert for alert in found.alerts if "not examined" in alert]
    assert "likes: 3 open differences have another key than shipped_catalog.py declares now" in caplog.text
    run(new, scope="sweep")
    assert run(new, repair="all").alerts == []
    assert run(new, scope="sweep").alerts == []
    assert one(target_dsn, "SELECT array_agg(id || user_name ORDER BY id) FROM likes") == ["l1n", "l2n"]
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences") == 0


def test_unconfirmed_writes_of_a_corrected_key_are_finished(liked, emulator, target_dsn, caplog):
    """A killed run left them; the document was edited since."""
    reconciled(liked.project, emulator, target_dsn, scope="sweep", repair="all", max_share=100)
    _execute(target_dsn, "UPDATE dualwrite.repair_journal SET confirmed_at = NULL")
    liked.document("boards/b1/posts/p1/likes/l1").update({"userName": "edited"})
    catalog = _keyed_by(*KEYS["id and post_id"])
    found = reconciled(liked.project, emulator, target_dsn, catalog=catalog, repair="all", max_share=100)
    assert found.alerts == []
    assert one(target_dsn, "SELECT user_name FROM likes WHERE id = 'l1'") == "edited"
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0
    assert "6 writes that an earlier run left unconfirmed have another key" in caplog.text


def test_a_renamed_table_and_a_renamed_key_column_block_nothing(liked, emulator, target_dsn):
    reconciled(liked.project, emulator, target_dsn, scope="sweep")
    _execute(target_dsn, "ALTER TABLE likes RENAME TO hearts", "ALTER TABLE hearts RENAME id TO heart_id")
    renamed = Catalog(
        tuple(
            replace(
                c,
                table="hearts",
                operations=(),
                columns=tuple(replace(n, name="heart_id") if n.name == "id" else n for n in c.columns),
            )
            if c.name == "likes"
            else c
            for c in CATALOG.collections
        )
    )
    found = reconciled(liked.project, emulator, target_dsn, catalog=renamed, repair="all", max_share=100)
    assert found.alerts == []
    assert one(target_dsn, "SELECT array_agg(heart_id ORDER BY heart_id) FROM hearts") == ["l1", "l2"]


@pytest.mark.parametrize(
    ("name", "key", "path", "other"),
    [
        ("posts", ("p1",), "boards/b1/posts/p1", False),
        ("posts", ("p1",), None, False),
        ("posts", ("p1", "b1"), "boards/b1/posts/p1", True),
        ("posts", ("b1",), "boards/b1/posts/p1", True),
        ("posts", ("p1",), "elsewhere/b1/posts/p2", False),
        ("blocks", ("u1", "u2"), "users/u1/blockedUsers/u2", False),
        ("blocks", ("u2", "u1"), "users/u1/blockedUsers/u2", True),
        ("blocks", ("u2",), None, True),
        ("user_board_permissions", ("u1", "b1"), "users/u1", False),
        ("notifications", ("n1",), "users/u1/notifications/n1", True),
    ],
)
def test_which_keys_are_of_another_kind(name, key, path, other):
    """The path tells, where it gives the key; a stray's path tells nothing."""
    assert is_of_another_key(CATALOG[name], key, path) is other
    kinds = {type(c.origin) for c in CATALOG["blocks"].key}
    assert kinds == {Segment, DocumentId}
