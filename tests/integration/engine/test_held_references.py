"""A column that holds another column of the row that its document names: generated ids, uuids."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    DocumentId,
    EntryKey,
    Field,
    Parent,
    Segment,
)
from dualwrite.model.errors import PreflightError
from dualwrite.postgres import rows
from dualwrite.postgres.sample import sample_keys
from dualwrite.postgres.target import Target
from dualwrite.runs import backfill
from dualwrite.runs.slices import seen_keys
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled, verify_all

PROFILES = Collection(
    name="profiles", table="profiles", paths=("users/{user}",), selected=True,
    columns=(Column("firestore_id", "key", DocumentId()), Column("name", "compared", Field("name"))),
)  # fmt: skip
SETTINGS = Collection(
    name="settings", table="settings", paths=("settings/{user}",), selected=True,
    columns=(
        Column("profile_id", "key", DocumentId(), references=Parent("profiles", holds="id")),
        Column("theme", "compared", Field("theme")),
    ),
)  # fmt: skip
POSTS = Collection(
    name="posts", table="posts", paths=("posts/{post}",), selected=True,
    columns=(
        Column("legacy_id", "key", DocumentId()),
        Column("author_id", "compared", Field("author"), required=True, references=Parent("profiles", holds="id")),
        Column("editor_id", "compared", Field("editor"), references=Parent("profiles", holds="id")),
        Column("title", "compared", Field("title")),
    ),
)  # fmt: skip
COMMENTS = Collection(
    name="comments", table="comments", paths=("posts/{post}/comments/{comment}",), selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("post_id", "compared", Segment("post"), required=True, references=Parent("posts", holds="id")),
        Column("text", "compared", Field("text")),
    ),
)  # fmt: skip
TAGS = Collection(
    name="post_tags", table="post_tags", paths=("posts/{post}",), entries=ArrayElements("tags"), selected=True,
    columns=(
        Column("post_id", "key", DocumentId(), references=Parent("posts", holds="id")),
        Column("tag", "key", EntryKey()),
    ),
)  # fmt: skip
MEMBERS = Collection(
    name="members", table="members", paths=("posts/{post}",), entries=ArrayElements("members"), selected=True,
    columns=(
        Column("post_id", "key", DocumentId(), references=Parent("posts", holds="id")),
        Column("profile_id", "key", EntryKey(), references=Parent("profiles", holds="id")),
    ),
)  # fmt: skip
HELD = Catalog((PROFILES, SETTINGS, POSTS, COMMENTS, TAGS, MEMBERS))
SCHEMA = """
CREATE TABLE profiles (id bigint GENERATED ALWAYS AS IDENTITY (START 100) PRIMARY KEY, firestore_id text NOT NULL UNIQUE, name text);
CREATE TABLE settings (profile_id bigint PRIMARY KEY REFERENCES profiles ON DELETE CASCADE, theme text);
CREATE TABLE posts (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), legacy_id varchar(40) NOT NULL UNIQUE,
  author_id bigint NOT NULL REFERENCES profiles ON DELETE CASCADE, editor_id bigint REFERENCES profiles ON DELETE SET NULL, title text
);
CREATE TABLE comments (id text PRIMARY KEY, post_id uuid NOT NULL REFERENCES posts ON DELETE CASCADE, text text);
CREATE TABLE post_tags (post_id uuid REFERENCES posts ON DELETE CASCADE, tag text, PRIMARY KEY (post_id, tag));
CREATE TABLE members (
  post_id uuid REFERENCES posts ON DELETE CASCADE, profile_id bigint REFERENCES profiles ON DELETE CASCADE,
  PRIMARY KEY (profile_id, post_id)
);
"""
NUMBERS = {"profiles": 3, "settings": 2, "posts": 2, "comments": 2, "post_tags": 3, "members": 3}
EVERYTHING: dict[str, Any] = {"collections": list(HELD.names), "scope": "all", "catalog": HELD}


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def app(firestore, target_dsn):
    _execute(target_dsn, "DROP TABLE IF EXISTS comments, posts, replies, likes, reactions CASCADE", SCHEMA)
    documents = {
        "users/u1": {"name": "a"}, "users/u2": {"name": "b"}, "users/u3": {"name": "c"},
        "settings/u1": {"theme": "dark"}, "settings/u2": {"theme": "light"},
        "posts/p1": {"author": "u1", "editor": "u2", "title": "x", "tags": ["t1", "t2"], "members": ["u1", "u2"]},
        "posts/p2": {"author": "u2", "title": "y", "tags": ["t1"], "members": ["u3"]},
        "posts/p1/comments/c1": {"text": "x"}, "posts/p2/comments/c2": {"text": "y"},
    }  # fmt: skip
    for path, fields in documents.items():
        firestore.document(path).set(fields)
    return firestore


@pytest.fixture
def filled(app, emulator, target_dsn):
    apply(app.project, emulator, target_dsn, **EVERYTHING)
    return app


def _counts(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    return {name: nonzero(part["counts"]) for name, part in found.items()}


def _run(client, emulator: str, dsn: str, **changes: Any):
    return reconciled(
        client.project, emulator, dsn, catalog=HELD, collections=list(HELD.names), max_share=100, **changes
    )


def test_generated_ids_are_looked_up_and_written(app, emulator, target_dsn):
    """A dry run, an apply and the look after it agree, for columns and for parts of keys."""
    missing = {name: {"missing": number} for name, number in NUMBERS.items()}
    assert _counts(dry_run(app.project, emulator, target_dsn, **EVERYTHING)) == missing
    assert one(target_dsn, "SELECT count(*) FROM profiles") == 0
    assert _counts(apply(app.project, emulator, target_dsn, **EVERYTHING)) == missing
    assert one(
        target_dsn,
        "SELECT array_agg(concat_ws(' ', p.legacy_id, a.firestore_id, e.firestore_id) ORDER BY p.legacy_id) "
        "FROM posts p JOIN profiles a ON a.id = p.author_id LEFT JOIN profiles e ON e.id = p.editor_id",
    ) == ["p1 u1 u2", "p2 u2"]
    assert one(
        target_dsn,
        "SELECT array_agg(concat_ws(' ', p.legacy_id, u.firestore_id) ORDER BY p.legacy_id, u.firestore_id) "
        "FROM members m JOIN posts p ON p.id = m.post_id JOIN profiles u ON u.id = m.profile_id",
    ) == ["p1 u1", "p1 u2", "p2 u3"]
    matching = {name: {"matching": number} for name, number in NUMBERS.items()}
    assert _counts(apply(app.project, emulator, target_dsn, **EVERYTHING)) == matching
    with gap_run(app.project, emulator, target_dsn, **EVERYTHING) as run:
        assert _counts(verify_all(run)) == matching


def test_a_child_read_first_brings_its_parent(app, emulator, target_dsn):
    """A dry run says missing of a NOT NULL column whose parent an apply would insert first."""
    changes = {**EVERYTHING, "collections": ["comments"]}
    for run in (dry_run, apply):
        with gap_run(
            app.project, emulator, target_dsn, **changes, **({"mode": "dry_run"} if run is dry_run else {})
        ) as gap:
            found = backfill.examine(gap, "comments", dry=run is dry_run)
        assert nonzero(found["counts"]) == {"missing": 2}
    assert found["parents_inserted"] == 4
    assert (
        one(
            target_dsn,
            "SELECT count(*) FROM comments JOIN posts p ON p.id = post_id JOIN profiles a ON a.id = author_id",
        )
        == 2
    )


def test_another_parent_is_stale_and_mended(filled, emulator, target_dsn):
    """Both directions: the document names another person, or the row does."""
    filled.document("posts/p1").update({"editor": "u3"})
    _execute(
        target_dsn,
        "UPDATE posts SET author_id = (SELECT id FROM profiles WHERE firestore_id = 'u3') WHERE legacy_id = 'p2'",
    )
    found = _run(filled, emulator, target_dsn, scope="sweep")
    assert found.counts("posts") == {"stale": 2}
    assert _run(filled, emulator, target_dsn, scope="sweep", repair="all").alerts == []
    names = "SELECT array_agg(a.firestore_id ORDER BY legacy_id) FROM posts JOIN profiles a ON a.id = {}"
    assert one(target_dsn, names.format("author_id")) == ["u1", "u2"]
    assert one(target_dsn, names.format("editor_id")) == ["u3"]


def test_rows_too_many_are_found_by_what_they_name(filled, emulator, target_dsn):
    """Keys of generated ids lead back to documents, and children go before their parents."""
    _execute(
        target_dsn,
        "INSERT INTO members SELECT p.id, u.id FROM posts p, profiles u WHERE legacy_id = 'p2' AND firestore_id = 'u1'",
        "INSERT INTO profiles (firestore_id) VALUES ('gone')",
        "INSERT INTO settings SELECT id, 'x' FROM profiles WHERE firestore_id = 'gone'",
    )
    filled.document("posts/p1").delete()
    filled.document("posts/p1/comments/c1").delete()
    found = _run(filled, emulator, target_dsn, scope="sweep")
    expected = {
        "profiles": {"extra": 1}, "settings": {"extra": 1}, "posts": {"extra": 1}, "comments": {"extra": 1},
        "post_tags": {"extra": 2}, "members": {"extra": 3},
    }  # fmt: skip
    assert {name: found.counts(name) for name in HELD.names} == expected
    assert found.sample("settings", "extra")["path"] == "settings/gone"
    assert _run(filled, emulator, target_dsn, repair="all").alerts == []
    left = [one(target_dsn, f"SELECT count(*) FROM {name}") for name in NUMBERS]
    assert left == [3, 2, 1, 1, 1, 1]
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_a_parent_that_is_gone_leaves_null_or_takes_the_row(filled, emulator, target_dsn):
    """ON DELETE SET NULL for the editor, CASCADE for the rest: as for references by the key itself."""
    filled.document("users/u2").delete()
    filled.document("settings/u2").delete()
    filled.document("posts/p2").delete()
    filled.document("posts/p2/comments/c2").delete()
    filled.document("posts/p1").update({"members": ["u1"]})
    found = _run(filled, emulator, target_dsn, scope="sweep", repair="all")
    assert found.counts("profiles") == {"extra": 1}
    for _ in range(2):
        found = _run(filled, emulator, target_dsn, scope="sweep", repair="all")
    assert found.alerts == []
    assert one(target_dsn, "SELECT editor_id FROM posts WHERE legacy_id = 'p1'") is None
    assert one(target_dsn, "SELECT count(*) FROM profiles") == 2


def test_a_parent_with_another_generated_id_is_followed(filled, emulator, target_dsn):
    """Deleted and inserted again by a client: cascaded rows are missing, others stale, and all are mended."""
    _execute(
        target_dsn,
        "ALTER TABLE posts DROP CONSTRAINT posts_author_id_fkey",
        "DELETE FROM profiles WHERE firestore_id = 'u2'",
        "INSERT INTO profiles (firestore_id, name) VALUES ('u2', 'b')",
    )
    found = _run(filled, emulator, target_dsn, scope="sweep")
    assert {name: found.counts(name) for name in ("settings", "posts", "members")} == {
        "settings": {"missing": 1}, "posts": {"stale": 2}, "members": {"missing": 1},
    }  # fmt: skip
    assert _run(filled, emulator, target_dsn, repair="all").alerts == []
    assert _run(filled, emulator, target_dsn, scope="sweep").alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts JOIN profiles a ON a.id = author_id") == 2


def test_a_missing_parent_row_is_no_null_that_matches(app, emulator, target_dsn):
    """The row says null where the document names somebody: stale, although neither side has an id."""
    _execute(
        target_dsn, "INSERT INTO profiles (firestore_id, name) VALUES ('u1', 'a')",
        "INSERT INTO posts (legacy_id, author_id, title) SELECT 'p1', id, 'x' FROM profiles",
    )  # fmt: skip
    changes = {**EVERYTHING, "collections": ["posts"]}
    with gap_run(app.project, emulator, target_dsn, **changes) as run:
        assert nonzero(backfill.examine(run, "posts", dry=False)["counts"]) == {"missing": 1, "stale": 1}
        assert nonzero(backfill.verify(run, "posts", counts_only=False)["counts"]) == {"matching": 2}
    assert one(target_dsn, "SELECT e.firestore_id FROM posts JOIN profiles e ON e.id = editor_id") == "u2"


def test_writes_that_were_not_confirmed_are_finished(filled, emulator, target_dsn):
    """The journal keeps what documents name, not generated ids, which another insert makes anew."""
    assert one(target_dsn, "SELECT array_agg(row_key::text ORDER BY row_key::text) FROM dualwrite.repair_journal WHERE collection = 'members'") == [
        '["p1", "u1"]', '["p1", "u2"]', '["p2", "u3"]',
    ]  # fmt: skip
    _execute(target_dsn, "UPDATE dualwrite.repair_journal SET confirmed_at = NULL")
    filled.document("settings/u1").update({"theme": "blue"})
    apply(filled.project, emulator, target_dsn, **EVERYTHING)
    assert one(target_dsn, "SELECT array_agg(theme ORDER BY theme) FROM settings") == ["blue", "light"]
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


@pytest.mark.parametrize(
    ("statement", "said"),
    [("ALTER TABLE profiles RENAME id TO number", "holds profiles.id, which is missing"),
     ("ALTER TABLE posts ALTER author_id TYPE text", "of type text, and profiles.id, which it holds"),
     ("ALTER TABLE settings DROP CONSTRAINT settings_profile_id_fkey", "so it needs a foreign key to id there"),
     ("ALTER TABLE profiles DROP CONSTRAINT profiles_pkey CASCADE", "Column profiles.id needs a unique index"),
     ("ALTER TABLE profiles DROP CONSTRAINT profiles_pkey CASCADE; ALTER TABLE profiles ALTER id DROP IDENTITY, ALTER id DROP NOT NULL",
      "Column profiles.id is not NOT NULL")],
)  # fmt: skip
def test_preflight_refuses_what_cant_be_told_and_led_back(app, emulator, target_dsn, statement, said):
    drop = "ALTER TABLE posts DROP CONSTRAINT posts_author_id_fkey, DROP CONSTRAINT posts_editor_id_fkey"
    _execute(target_dsn, *([drop] if "posts" in statement else []), statement)
    with gap_run(app.project, emulator, target_dsn, **EVERYTHING) as run, pytest.raises(PreflightError) as told:
        backfill.preflight(run, by="a test")
    assert said in str(told.value)


def test_the_constraint_of_a_held_column_is_known(filled, emulator, target_dsn):
    """Preflight lists only those that the catalog doesn't say."""
    with gap_run(filled.project, emulator, target_dsn, **EVERYTHING) as run:
        assert backfill.preflight(run, by="a test")["preflight"]["unknown_constraints"] == {}


def test_held_keys_are_paged_and_sliced_by_their_own_values(filled, emulator, target_dsn, monkeypatch):
    """Pages follow the index of generated ids, and each key comes once, as documents name it."""
    monkeypatch.setattr(rows, "KEYS_AT_ONCE", 2)
    monkeypatch.setattr(seen_keys, "KEYS_AT_ONCE", 2)
    wanted = {("p1", "u1"), ("p1", "u2"), ("p2", "u3")}
    with Target(lambda: postgres.connect(target_dsn), HELD) as target:
        members = target.catalog["members"]
        found = [key for page in target.keys(members) for key in page]
        assert (len(found), set(found)) == (3, wanted)
        look = seen_keys.Attempt(target, "members", "a dag", "a run")
        look.update([("p1", "u2")])
        look.flush()
        unseen = [key for page in seen_keys.unseen(target, members, [look.number]) for key in page]
        assert (len(unseen), set(unseen)) == (2, wanted - {("p1", "u2")})
        assert set(sample_keys(target, members, 10, 3)) == wanted
    _execute(
        target_dsn,
        "INSERT INTO members SELECT p.id, u.id FROM posts p, profiles u WHERE legacy_id = 'p2' AND firestore_id = 'u1'",
    )
    with gap_run(filled.project, emulator, target_dsn, **EVERYTHING, slice_documents=1000) as run:
        assert nonzero(backfill.verify(run, "members", counts_only=False)["counts"]) == {"matching": 3, "extra": 1}
