"""No delete changes rows that reference the row, on every Postgres that is here: seen, hidden or out of reach."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest

from dev import postgres_server
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine import preflight
from dualwrite.model.errors import PreflightError
from dualwrite.postgres import target as target_module
from dualwrite.postgres.references import references_to
from dualwrite.postgres.target import Candidate, Target
from dualwrite.runs import backfill
from tests.conftest import prepare
from tests.databases import administrated
from tests.roles import Secured, secured
from tests.support import gap_run, one, reconciled
from tests.worlds import discussion

DRAFTS = CATALOG["drafts"]
VERSIONS = ("18", *sorted(path.parent.name for path in postgres_server.DEBIAN.glob("*/bin")))
ACTIONS = ("CASCADE", "SET NULL", "SET DEFAULT", "NO ACTION", "RESTRICT", "NO ACTION DEFERRABLE INITIALLY DEFERRED")
SIGHTS = {
    "seen": "GRANT SELECT ON bookmarks TO dualwrite_data",
    "seen by a policy": "GRANT SELECT ON bookmarks TO dualwrite_data; ALTER TABLE bookmarks ENABLE ROW LEVEL SECURITY; "
    "CREATE POLICY p ON bookmarks TO dualwrite_data USING (true)",
    "only the columns": "GRANT SELECT (draft_id, user_id) ON bookmarks TO dualwrite_data",
    "no grant": "SELECT 1",
    "no schema": "CREATE SCHEMA hidden; ALTER TABLE bookmarks SET SCHEMA hidden; GRANT SELECT ON hidden.bookmarks TO dualwrite_data",
    "no policy": "GRANT SELECT ON bookmarks TO dualwrite_data; ALTER TABLE bookmarks ENABLE ROW LEVEL SECURITY",
    "a policy that filters": "GRANT SELECT ON bookmarks TO dualwrite_data; ALTER TABLE bookmarks ENABLE ROW LEVEL SECURITY; "
    "CREATE POLICY p ON bookmarks TO dualwrite_data USING (note IS NULL)",
}  # fmt: skip
SEEN = ("seen", "seen by a policy", "only the columns")


@pytest.fixture(scope="module", params=VERSIONS)
def server(request) -> Iterator[str]:
    if request.param == "18":
        yield request.getfixturevalue("postgres_server")
        return
    with (
        postgres_server.server(binaries=postgres_server.DEBIAN / request.param / "bin") as uri,
        administrated(prepare(uri)),
    ):
        yield uri


@pytest.fixture(scope="module")
def target(server) -> Iterator[Secured]:
    """The bundle's roles, on PostgreSQL 18 too without BYPASSRLS. Two drafts of one person."""
    with secured(server, "supabase") as found:
        found.run("migrations.sql")
        found.migrate()
        found.run("data.sql")
        with psycopg.connect(found.superuser, autocommit=True) as connection:
            connection.execute("ALTER ROLE dualwrite_data NOBYPASSRLS")
            connection.execute("INSERT INTO users (id) VALUES ('u1'), ('u2')")
            connection.execute("INSERT INTO boards (id, title) VALUES ('b1', 'b')")
            connection.execute("ALTER TABLE drafts ADD UNIQUE (user_id, id)")
        found.run("data.sql")
        yield found


@pytest.fixture
def referenced(target) -> Iterator[Secured]:
    """One draft that a bookmark may reference, and one that none does."""
    yield target
    with psycopg.connect(target.superuser, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS hidden CASCADE")
        connection.execute("DROP TABLE IF EXISTS bookmarks CASCADE")
        connection.execute("DROP TRIGGER IF EXISTS kept ON drafts")


def _make(target: Secured, foreign_key: str, sight: str) -> None:
    with psycopg.connect(target.superuser, autocommit=True) as connection:
        connection.execute("DELETE FROM drafts")
        connection.execute(
            "INSERT INTO drafts (id, user_id, board_id) VALUES ('held', 'u1', 'b1'), ('free', 'u1', 'b1')"
        )
        connection.execute(f"CREATE TABLE bookmarks (note text, user_id text, draft_id text, {foreign_key})")
        connection.execute("INSERT INTO bookmarks VALUES ('n', 'u1', 'held')")
        connection.execute(SIGHTS[sight])


def _bookmarks(target: Secured) -> list:
    with psycopg.connect(target.superuser) as connection:
        schema = "hidden" if connection.execute("SELECT to_regnamespace('hidden')").fetchone()[0] else "public"
        return connection.execute(f"SELECT note, user_id, draft_id FROM {schema}.bookmarks").fetchall()


def _delete(target: Secured, ids: list[str] | None = None):
    with Target(lambda: postgres.connect(target.data), CATALOG) as opened:
        keys = [(i,) for i in ids or ["held", "free"]]
        versions = opened.versions(DRAFTS, keys)
        return opened.delete(DRAFTS, [Candidate(k, k[0], None, versions[k][0]) for k in keys], "run")


KEYS = {
    "one column": "FOREIGN KEY (draft_id) REFERENCES drafts (id)",
    "two columns": "FOREIGN KEY (user_id, draft_id) REFERENCES drafts (user_id, id)",
}


@pytest.mark.parametrize(("columns", "action", "sight"), list(itertools.product(KEYS, ACTIONS, SIGHTS)))
def test_no_delete_changes_a_row_that_references_it(referenced, columns, action, sight):
    """Cascades bypass row-level security and grants; a query for the rows that they would change does not."""
    _make(referenced, f"{KEYS[columns]} ON DELETE {action}", sight)
    before = _bookmarks(referenced)
    deleted = _delete(referenced)
    assert _bookmarks(referenced) == before
    if sight in SEEN or action.startswith(("NO ACTION", "RESTRICT")):
        assert (deleted.journal.keys(), deleted.kept) == ({"free"}, {"held": "still_referenced"})
    else:
        assert (deleted.journal, set(deleted.kept)) == ({}, {"held", "free"})
        assert set(deleted.kept.values()) == {"references_unseen"}
    left = one(referenced.superuser, "SELECT array_agg(id ORDER BY id) FROM drafts")
    assert left == sorted(deleted.kept)


@pytest.mark.parametrize("server", ["18"], indirect=True)  # new there
def test_a_key_that_is_not_enforced_proves_nothing(referenced):
    _make(referenced, f"{KEYS['one column']} NOT ENFORCED", "no grant")
    assert set(_delete(referenced).kept.values()) == {"references_unseen"}


def test_a_key_whose_triggers_are_off_proves_nothing(referenced):
    _make(referenced, KEYS["one column"], "no grant")
    with psycopg.connect(referenced.superuser) as connection:
        connection.execute("ALTER TABLE drafts DISABLE TRIGGER ALL")
    try:
        assert set(_delete(referenced).kept.values()) == {"references_unseen"}
    finally:
        with psycopg.connect(referenced.superuser) as connection:
            connection.execute("ALTER TABLE drafts ENABLE TRIGGER ALL")


def test_a_row_that_a_hidden_key_can_not_reference_is_deleted(referenced):
    """A null in a referenced column: no foreign key can name the row."""
    with psycopg.connect(referenced.superuser, autocommit=True) as connection:
        connection.execute("ALTER TABLE drafts ADD COLUMN slug text UNIQUE")
    try:
        _make(referenced, "slug text REFERENCES drafts (slug) ON DELETE CASCADE", "no grant")
        with psycopg.connect(referenced.superuser, autocommit=True) as connection:
            connection.execute("UPDATE drafts SET slug = 's' WHERE id = 'held'")
        deleted = _delete(referenced)
    finally:
        with psycopg.connect(referenced.superuser, autocommit=True) as connection:
            connection.execute("ALTER TABLE drafts DROP COLUMN slug CASCADE")
    assert (deleted.journal.keys(), deleted.kept) == ({"free"}, {"held": "references_unseen"})


@pytest.mark.parametrize("partitioned", ["bookmarks", "its partition"])
def test_a_partitioned_table_that_references_is_asked_as_a_whole(referenced, partitioned):
    with psycopg.connect(referenced.superuser, autocommit=True) as connection:
        connection.execute("DELETE FROM drafts")
        connection.execute(
            "INSERT INTO drafts (id, user_id, board_id) VALUES ('held', 'u1', 'b1'), ('free', 'u1', 'b1')"
        )
        connection.execute(
            "CREATE TABLE bookmarks (note text, user_id text, draft_id text REFERENCES drafts ON DELETE CASCADE) "
            "PARTITION BY LIST (note)"
        )
        connection.execute("CREATE TABLE bookmarks_n PARTITION OF bookmarks FOR VALUES IN ('n')")
        connection.execute("INSERT INTO bookmarks VALUES ('n', 'u1', 'held')")
        connection.execute("GRANT SELECT ON bookmarks TO dualwrite_data")
        if partitioned == "bookmarks":
            connection.execute("ALTER TABLE bookmarks ENABLE ROW LEVEL SECURITY")
        else:  # which hides nothing from a query of the whole
            connection.execute("ALTER TABLE bookmarks_n ENABLE ROW LEVEL SECURITY")
    deleted = _delete(referenced)
    assert len(_bookmarks(referenced)) == 1
    held = (
        {"held": "still_referenced"}
        if partitioned != "bookmarks"
        else dict.fromkeys(("held", "free"), "references_unseen")
    )
    assert deleted.kept == held


@pytest.mark.parametrize("how", ["RETURN NULL", "RAISE EXCEPTION 'no'"])
def test_a_row_that_a_trigger_keeps_waits_alone(referenced, how):
    """Not deleted and no error isn't a client that was faster; and one row's trigger is not the others' fault."""
    _make(referenced, "CHECK (true)", "seen")
    with psycopg.connect(referenced.superuser, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF OLD.id = 'held' THEN {how}; END IF; RETURN OLD; END $$"
        )
        connection.execute("CREATE TRIGGER kept BEFORE DELETE ON drafts FOR EACH ROW EXECUTE FUNCTION kept()")
    deleted = _delete(referenced)
    assert (deleted.journal.keys(), deleted.kept) == ({"free"}, {"held": "delete_refused"})


def test_rows_that_are_hidden_during_a_delete_undo_it(referenced, monkeypatch):
    """1. The foreign keys are read; 2. somebody switches row-level security on; 3. we see no reference, and delete."""
    _make(referenced, f"{KEYS['one column']} ON DELETE CASCADE", "seen")
    calls: list[object] = []

    def read(connection, tables):
        known = references_to(connection, tables)
        if not calls:
            with psycopg.connect(referenced.superuser, autocommit=True) as other:
                other.execute("ALTER TABLE bookmarks ENABLE ROW LEVEL SECURITY")
        calls.append(known)
        return known

    monkeypatch.setattr(target_module, "references_to", read)
    assert _delete(referenced).kept == dict.fromkeys(("held", "free"), "references_unseen")
    assert len(_bookmarks(referenced)) == 1
    assert len(calls) == 3


def test_preflight_and_doctor_name_the_table_that_keeps_rows(referenced):
    _make(referenced, f"{KEYS['one column']} ON DELETE CASCADE", "no policy")
    with postgres.connect(referenced.data) as connection:
        [sentence] = preflight.unseen_references(connection, list(CATALOG)).values()
    assert "public.bookmarks (bookmarks_draft_id_fkey, ON DELETE CASCADE)" in sentence
    assert "CREATE POLICY" in sentence
    assert "GRANT" not in sentence
    with psycopg.connect(referenced.superuser, autocommit=True) as connection:
        connection.execute(
            "REVOKE ALL ON bookmarks FROM dualwrite_data; ALTER TABLE bookmarks DISABLE ROW LEVEL SECURITY"
        )
    with postgres.connect(referenced.data) as connection:
        [sentence] = preflight.unseen_references(connection, list(CATALOG)).values()
    assert 'GRANT SELECT ON "public"."bookmarks" TO "dualwrite_data"' in sentence
    assert "POLICY" not in sentence


# --- whole runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_work(firestore, emulator, target_dsn):
    discussion(firestore, emulator, target_dsn)
    firestore.document("boards/b1/posts/p2").delete()
    return firestore


def _execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def limited(at_work, target_dsn) -> Iterator[str]:
    """The app's tables as a role that row-level security holds for, with policies for the catalog's tables alone."""
    tables = sorted({c.table for c in CATALOG})
    _execute(
        target_dsn, "CREATE ROLE limited LOGIN", "GRANT USAGE ON SCHEMA dualwrite TO limited",
        "GRANT ALL ON ALL TABLES IN SCHEMA dualwrite, public TO limited",
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA dualwrite TO limited",
        *(f"CREATE POLICY sees ON {table} TO limited USING (true) WITH CHECK (true)" for table in [*tables, "write_ops"]),
    )  # fmt: skip
    yield target_dsn.replace("postgres@", "limited@")
    _execute(target_dsn, "DROP OWNED BY limited", "DROP ROLE limited")


def test_bookmarks_behind_row_level_security_survive_a_repair(at_work, emulator, target_dsn, limited):
    """A table of the app's that the catalog doesn't know, with Supabase's defaults and the obvious GRANT."""
    _execute(
        target_dsn, "CREATE TABLE bookmarks (post_id text REFERENCES posts ON DELETE CASCADE)",
        "INSERT INTO bookmarks VALUES ('p2')", "ALTER TABLE bookmarks ENABLE ROW LEVEL SECURITY",
        "GRANT SELECT ON bookmarks TO limited",
    )  # fmt: skip
    found = reconciled(at_work.project, emulator, limited, scope="sweep", repair="all", max_share=100)
    assert one(target_dsn, "SELECT count(*) FROM bookmarks") == 1
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'p2'") == 1
    [alert] = found.alerts
    assert "references_unseen" in alert
    assert "public.bookmarks" in alert
    assert "repair = all" not in alert
    again = reconciled(at_work.project, emulator, limited)
    assert again.alerts == [alert]


def test_a_row_says_who_references_it_until_nobody_does(at_work, emulator, target_dsn):
    def run(**changes):
        return reconciled(at_work.project, emulator, target_dsn, max_share=100, **changes)

    _execute(
        target_dsn, "CREATE TABLE bookmarks (post_id text REFERENCES posts ON DELETE SET NULL)",
        "INSERT INTO bookmarks VALUES ('p2')",
    )  # fmt: skip
    [first] = run(scope="sweep").alerts
    assert "(still_referenced)" in first
    assert "posts is referenced by public.bookmarks (post_id)" in first
    assert run(repair="all").alerts == [first]
    assert run(excuse=["posts:p2"], excuse_reason="kept").alerts == []
    assert run(scope="sweep", repair="all").alerts == [], (
        "the excuse holds, though a first look doesn't ask who references"
    )
    run(unexcuse=["posts:p2"])
    _execute(target_dsn, "DELETE FROM bookmarks")
    [third] = run().alerts
    assert "still_referenced" not in third
    assert run(repair="all").alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts WHERE id = 'p2'") == 0


def test_rows_of_a_collection_that_is_not_selected_keep_the_row(at_work, emulator, target_dsn):
    at_work.document("boards/b1/posts/p1").delete()
    found = reconciled(
        at_work.project, emulator, target_dsn, collections=["posts"], scope="sweep", repair="all", max_share=100
    )
    assert found.counts("posts") == {"extra": 2}
    assert one(target_dsn, "SELECT array_agg(id) FROM posts") == ["p1"]
    assert one(target_dsn, "SELECT count(*) FROM comments") == 1
    assert "(still_referenced)" in found.alerts[0]
    whole = reconciled(at_work.project, emulator, target_dsn, repair="all", max_share=100)
    assert whole.alerts == []
    assert one(target_dsn, "SELECT count(*) FROM posts") == 0


def test_a_trigger_that_keeps_a_row_is_told_by_later_runs_too(at_work, emulator, target_dsn):
    _execute(
        target_dsn, "CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER kept BEFORE DELETE ON posts FOR EACH ROW EXECUTE FUNCTION kept()",
    )  # fmt: skip
    run = [reconciled(at_work.project, emulator, target_dsn, scope="sweep", repair="all", max_share=100)]
    run.append(reconciled(at_work.project, emulator, target_dsn))
    for found in run:
        assert "(delete_refused)" in found.alerts[0]


def test_an_unproved_absence_keeps_its_reason_in_later_runs(at_work, emulator, target_dsn):
    for scope in ("sweep", "recent", "recent"):
        found = reconciled(at_work.project, emulator, target_dsn, scope=scope, max_proof_reads=0)
        assert "(absence_not_proved)" in found.alerts[0]


def test_a_parent_whose_rows_are_hidden_refuses_the_run(at_work, emulator, target_dsn, limited):
    """Every comment would lack its post, though nobody selected posts."""
    _execute(target_dsn, "DROP POLICY sees ON posts")
    with (
        gap_run(at_work.project, emulator, limited, collections=["comments"]) as run,
        pytest.raises(PreflightError, match="Row-level security of table posts hides rows"),
    ):
        backfill.preflight(run, by="test")
