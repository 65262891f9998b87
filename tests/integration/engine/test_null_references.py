"""What becomes of a row whose nullable reference is to a document that is gone: ON DELETE SET NULL."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.model.declaration import Catalog
from dualwrite.postgres import privileges
from dualwrite.postgres.references import columns_set_null
from tests.support import apply, one, reconciled, verify_all
from tests.support import gap_run as gap_run_of
from tests.worlds import club, examined_until_now, like, post, put, user


def _catalog(**likes) -> Catalog:
    """The catalog, with likes whose person may be missing."""
    return Catalog(
        tuple(
            replace(
                c,
                columns=tuple(
                    replace(column, required=False, **likes) if column.name == "user_id" else column
                    for column in c.columns
                ),
            )
            if c.name == "likes"
            else c
            for c in CATALOG.collections
        )
    )


NULLABLE = _catalog()
SET_NULL = (
    "ALTER TABLE likes ALTER user_id DROP NOT NULL, DROP CONSTRAINT likes_user_id_fkey, "
    "ADD CONSTRAINT likes_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE SET NULL"
)


def _execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def liked(firestore, emulator, target_dsn):
    """A post that two people like; the likes outlive their people."""
    club(firestore, emulator, target_dsn, {
        "boards/b1/posts/p1": post(), "users/u9": user("u9"),
        "boards/b1/posts/p1/likes/l1": like(), "boards/b1/posts/p1/likes/l9": like(userId="u9"),
    })  # fmt: skip
    _execute(target_dsn, SET_NULL)
    examined_until_now(target_dsn)
    return firestore


@pytest.fixture
def run(liked, emulator, target_dsn):
    def run(catalog=NULLABLE, **changes):
        return reconciled(liked.project, emulator, target_dsn, catalog=catalog, max_share=100, **changes)

    return run


def _person_gone(liked, dsn: str) -> None:
    """The app deletes a person on both sides; Postgres sets the reference to null, the document keeps it."""
    liked.document("users/u9").delete()
    _execute(dsn, "DELETE FROM users WHERE id = 'u9'")


def test_a_row_whose_person_is_gone_matches_with_null(liked, target_dsn, run):
    _person_gone(liked, target_dsn)
    found = run(scope="sweep")
    assert found.alerts == []
    assert found.counts("likes") == {}


def test_other_columns_of_such_a_row_are_compared_and_mended(liked, target_dsn, run):
    _person_gone(liked, target_dsn)
    liked.document("boards/b1/posts/p1/likes/l9").update({"userName": "edited"})
    assert run(scope="sweep").counts("likes") == {"stale": 1}
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT user_name, user_id FROM likes WHERE id = 'l9'") == ("edited", None)


def test_a_new_document_of_such_a_person_arrives_with_null(liked, emulator, target_dsn, run):
    _person_gone(liked, target_dsn)
    put(liked, {"boards/b1/posts/p1/likes/new": like(userId="u9")})
    assert run(scope="sweep").counts("likes") == {"missing": 1}
    assert apply(liked.project, emulator, target_dsn, catalog=NULLABLE, scope="all")["likes"]["inserted"] == 1
    assert one(target_dsn, "SELECT count(*) FROM likes WHERE user_id IS NULL") == 2
    with gap_run_of(liked.project, emulator, target_dsn, catalog=NULLABLE) as gap:
        assert verify_all(gap, ["likes"])["likes"]["counts"]["matching"] == 3


def test_a_person_who_comes_back_is_named_again(liked, target_dsn, run):
    _person_gone(liked, target_dsn)
    assert run(scope="sweep").alerts == []
    put(liked, {"users/u9": user("u9")})
    assert run(scope="sweep", repair="all").alerts == []
    assert one(target_dsn, "SELECT user_id FROM likes WHERE id = 'l9'") == "u9"


def test_a_gone_persons_references_are_null_before_its_row_goes(liked, target_dsn, run):
    """Only the document was deleted: the person's row is extra, and what names it stays, without the name."""
    liked.document("users/u9").delete()
    found = run(scope="sweep")
    assert found.counts("users") == {"extra": 1}
    assert found.counts("likes") == {"stale": 1}
    run(repair="all")
    assert one(target_dsn, "SELECT user_id FROM likes WHERE id = 'l9'") is None
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT count(*) FROM users WHERE id = 'u9'") == 0
    assert one(target_dsn, "SELECT count(*) FROM likes") == 2
    actions = one(
        target_dsn,
        "SELECT array_agg(collection || ' ' || action ORDER BY id) FROM dualwrite.repair_journal WHERE run_id LIKE 'run-%%'",
    )
    assert actions == ["likes update", "users delete"]


def test_what_a_gone_person_means_may_be_declared(liked, target_dsn, run):
    """The live foreign key says one thing, the catalog another: what is declared holds."""
    _person_gone(liked, target_dsn)
    found = run(_catalog(when_gone="row_goes"), scope="sweep")
    assert found.sample("likes", "extra")["reason"] == "parent_gone"
    _execute(target_dsn, "ALTER TABLE likes DROP CONSTRAINT likes_user_id_fkey")
    assert run(_catalog(when_gone="null"), scope="sweep").alerts == []
    assert run(NULLABLE, scope="sweep").counts("likes") == {"extra": 1}, "no foreign key, and nothing declared"


@pytest.mark.parametrize(
    ("foreign_key", "columns"),
    [("FOREIGN KEY (x) REFERENCES users (id) ON DELETE SET NULL", {"x"}),
     ("FOREIGN KEY (x) REFERENCES users (id) ON DELETE CASCADE", set()),
     ("FOREIGN KEY (x) REFERENCES users (id) ON DELETE SET DEFAULT", set()),
     ("FOREIGN KEY (z) REFERENCES users (id) ON DELETE SET NULL", set()),
     ("FOREIGN KEY (x, y) REFERENCES users (id, nickname) ON DELETE SET NULL", {"x", "y"}),
     ("FOREIGN KEY (x, y) REFERENCES users (id, nickname) ON DELETE SET NULL (y)", {"y"}),
     ("CHECK (true)", set())],
)  # fmt: skip
def test_which_columns_a_foreign_key_sets_to_null(target_dsn, foreign_key, columns):
    with postgres.connect(target_dsn) as connection:
        connection.execute("CREATE UNIQUE INDEX u ON users (id, nickname)")
        connection.execute(f"CREATE TABLE refers (x text, y text, z text NOT NULL, {foreign_key})")
        assert columns_set_null(connection, privileges.relation(connection, "refers")) == columns
