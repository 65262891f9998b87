"""Before anything is examined: wrong places, wrong roles, wrong tables, wrong parameters."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Source
from dualwrite.model import gap_params
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId
from dualwrite.model.errors import CatalogError, ParameterError, PreflightError, TargetError
from dualwrite.postgres.target import Target
from dualwrite.runs import backfill
from tests.kept import forget
from tests.refusals import coded
from tests.support import DEFAULTS, gap_run, params

T = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def both(firestore, target_dsn):
    """A person on each side."""
    firestore.document("users/u1").set({"updatedAt": T})
    with psycopg.connect(target_dsn) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('u1')")
    return firestore


def _preflight(project: str, emulator: str, dsn: str, **changes):
    with gap_run(project, emulator, dsn, **changes) as run:
        return backfill.preflight(run, by="test")


def test_preflight_passes_and_estimates_the_reads(both, emulator, target_dsn):
    found = _preflight(both.project, emulator, target_dsn)
    assert found["preflight"]["estimated_reads"]["users"] == 1
    assert found["preflight"]["role"] == "postgres"
    assert abs(found["preflight"]["clock_difference_seconds"]) < 5


def test_without_the_schema_one_line_says_which_dag_to_run(both, emulator, phase1_dsn):
    with pytest.raises(PreflightError, match="Run the DAG apply_migrations with mode=apply first") as refused:
        _preflight(both.project, emulator, phase1_dsn)
    assert "\n" not in str(refused.value)


def test_a_role_that_rows_are_hidden_from_is_refused(both, emulator, target_dsn):
    """By row-level security."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("DROP ROLE IF EXISTS plain")
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA dualwrite TO plain")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA dualwrite, public TO plain")
    try:
        with pytest.raises(PreflightError, match="Row-level security of table posts hides rows from role plain"):
            _preflight(both.project, emulator, target_dsn.replace("postgres@", "plain@"))
    finally:
        with psycopg.connect(target_dsn) as connection:
            connection.execute("DROP OWNED BY plain")
            connection.execute("DROP ROLE plain")


def test_all_faults_of_the_tables_are_named_at_once(both, emulator, target_dsn):
    """Missing columns and keys, other types, NOT NULL columns that nobody fills."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("ALTER TABLE likes DROP CONSTRAINT likes_post_id_user_id_key")
        connection.execute("ALTER TABLE posts DROP COLUMN content_json, ADD COLUMN slug TEXT NOT NULL")
        connection.execute("ALTER TABLE users ALTER COLUMN bio TYPE INTEGER USING NULL")
        connection.execute("DROP TABLE blocks")
    with pytest.raises(PreflightError) as refused:
        _preflight(both.project, emulator, target_dsn)
    for fault in (
        "Table blocks is missing",
        "Column posts.content_json is missing",
        "Column posts.slug is NOT NULL without a default",
        "Column users.bio is of type integer, and shipped_catalog.py says that documents hold text, which can't be given to it. "
        "Convert it in shipped_catalog.py (Field(...) >> integer, ",
        "Columns (post_id, user_id) of likes need a unique index",
    ):
        assert fault in str(refused.value)


@pytest.mark.parametrize("other", ["timestamp", "date"])
@pytest.mark.parametrize("collection", list(CATALOG), ids=lambda c: c.name)
def test_a_written_column_that_is_no_instant_is_refused(both, emulator, target_dsn, collection, other):
    """In a window of instants it would stand hours off, or in none."""
    column = collection.written_columns[-1]
    with psycopg.connect(target_dsn) as connection:
        connection.execute(f"ALTER TABLE {collection.table} ALTER COLUMN {column} TYPE {other}")
    with pytest.raises(
        PreflightError, match=f"Column {collection.table}.{column} is of type {other}.*must be timestamptz"
    ):
        _preflight(both.project, emulator, target_dsn, collections=[collection.name])


@pytest.mark.parametrize("collection", list(CATALOG), ids=lambda c: c.name)
def test_a_key_that_may_be_null_is_refused(both, emulator, target_dsn, collection):
    """A row with NULL in its key was counted absent, and never told."""
    column = collection.key[-1].name
    with psycopg.connect(target_dsn) as connection:
        connection.execute(f"ALTER TABLE {collection.table} DROP CONSTRAINT IF EXISTS {collection.table}_pkey CASCADE")
        connection.execute(f"CREATE UNIQUE INDEX ON {collection.table} ({', '.join(c.name for c in collection.key)})")
        connection.execute(f"ALTER TABLE {collection.table} ALTER COLUMN {column} DROP NOT NULL")
    with pytest.raises(PreflightError, match=f"ALTER TABLE {collection.table} ALTER COLUMN {column} SET NOT NULL"):
        _preflight(both.project, emulator, target_dsn, collections=[collection.name])


def test_a_key_with_a_not_null_that_nobody_validated_is_refused(both, emulator, target_dsn):
    """PostgreSQL 18: NOT NULL ... NOT VALID holds for new rows; a row from before may be null."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("ALTER TABLE blocks ALTER COLUMN blocked_id DROP NOT NULL")
        connection.execute("ALTER TABLE blocks ADD CONSTRAINT later NOT NULL blocked_id NOT VALID")
    with pytest.raises(PreflightError, match="Column blocks.blocked_id is part of the key"):
        _preflight(both.project, emulator, target_dsn)


def test_a_name_without_a_schema_is_one_of_public(both, emulator, target_dsn):
    """Through search_path, two names would be one table: each collection would take the other's rows for extra."""
    name = target_dsn.rsplit("/", 1)[1]
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop CREATE TABLE things (id TEXT PRIMARY KEY)")
        connection.execute(f"ALTER DATABASE {name} SET search_path = public, shop, dualwrite")
    key = (Column("id", "key", DocumentId()),)
    two = (
        Collection("ones", "things", ("ones/{one}",), key),
        Collection("others", "shop.things", ("others/{other}",), key),
    )
    with pytest.raises(PreflightError, match=r"Table things is missing.*\(without a schema it is public\)"):
        _preflight(both.project, emulator, target_dsn, catalog=Catalog((CATALOG["users"], *two)), collections=["ones"])


NO_KEYS = {
    "partial": "CREATE UNIQUE INDEX ON blocks (blocker_id, blocked_id) WHERE created_at > '2026-01-01'",
    "partial, without nulls": "CREATE UNIQUE INDEX ON blocks (blocker_id, blocked_id) WHERE blocker_id IS NOT NULL",
    "on an expression": "CREATE UNIQUE INDEX ON blocks (blocker_id, lower(blocked_id))",
    "on the columns and an expression": "CREATE UNIQUE INDEX ON blocks (blocker_id, blocked_id, lower(blocked_id))",
    "on one, including the other": "CREATE UNIQUE INDEX ON blocks (blocker_id) INCLUDE (blocked_id)",
    "checked late": "ALTER TABLE blocks ADD UNIQUE (blocker_id, blocked_id) DEFERRABLE",
    "not unique": "CREATE INDEX ON blocks (blocker_id, blocked_id)",
}
KEYS = {
    "in another order": "CREATE UNIQUE INDEX ON blocks (blocked_id, blocker_id)",
    "including more": "CREATE UNIQUE INDEX ON blocks (blocker_id, blocked_id) INCLUDE (created_at)",
}


@pytest.mark.parametrize("case", [*NO_KEYS, *KEYS])
def test_only_a_whole_unique_index_on_just_the_key_counts_as_it(both, emulator, target_dsn, case):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("ALTER TABLE blocks DROP CONSTRAINT blocks_blocker_id_blocked_id_key")
        connection.execute((NO_KEYS | KEYS)[case])
    if case in KEYS:
        _preflight(both.project, emulator, target_dsn, collections=["blocks"])
        return
    with pytest.raises(PreflightError, match=r"Columns \(blocker_id, blocked_id\) of blocks need a unique index"):
        _preflight(both.project, emulator, target_dsn, collections=["blocks"])


@pytest.mark.parametrize(
    ("predicate", "fits"),
    [("comment_id IS NOT NULL", True), ("comment_id IS NOT NULL AND user_id IS NOT NULL", True),
     ("reply_id IS NULL", False), ("comment_id IS NOT NULL AND reaction_type = 'x'", False)],
)  # fmt: skip
def test_a_further_unique_key_may_leave_out_only_its_own_nulls(both, emulator, target_dsn, predicate, fits):
    with psycopg.connect(target_dsn) as connection:
        connection.execute("DROP INDEX reactions_comment_user")
        connection.execute(f"CREATE UNIQUE INDEX ON reactions (comment_id, user_id) WHERE {predicate}")
    if fits:
        _preflight(both.project, emulator, target_dsn)
        return
    with pytest.raises(PreflightError, match=r"Columns \(comment_id, user_id\) of reactions need a unique index"):
        _preflight(both.project, emulator, target_dsn)


def test_an_empty_side_is_the_wrong_side(firestore, emulator, target_dsn):
    with pytest.raises(PreflightError, match="users .* Firestore .*firestore_default", check=coded("sentinel-empty")):
        _preflight(firestore.project, emulator, target_dsn)
    firestore.document("users/u1").set({"updatedAt": T})
    with pytest.raises(PreflightError, match="table users .*supabase_default", check=coded("sentinel-empty")):
        _preflight(firestore.project, emulator, target_dsn)


def test_a_server_out_of_reach_is_named_without_its_password(firestore, emulator):
    target = Target(lambda: postgres.connect("postgresql://u:secret@127.0.0.1:1/db"), CATALOG)
    with Source(firestore.project, emulator_host=emulator) as source:
        run = backfill.Run(source, target, CATALOG, "run", params())
        # A TargetError, which is worth a retry: the port may only be closed for a moment.
        with pytest.raises(TargetError, match="Can't connect.*127.0.0.1:1.*connection supabase_default") as refused:
            backfill.preflight(run, by="test")
    assert "secret" not in str(refused.value)


def test_a_read_only_server_is_refused_before_an_apply(both, emulator, target_dsn):
    name = target_dsn.rsplit("/", 1)[1]
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    forget(target_dsn)  # which only a new connection learns
    with pytest.raises(PreflightError, match="read-only"):
        _preflight(both.project, emulator, target_dsn)


BAD_PARAMETERS = {
    "naive since": ({"since": "2026-01-15T21:52:00"}, "since", "instant-without-offset"),
    "no instant": ({"since": "yesterday"}, "since", "instant-malformed"),
    "since in the future": ({"since": "2999-01-01T00:00:00+00:00"}, "since", "since-in-the-future"),
    "until before since": ({"until": "2026-01-01T00:00:00+00:00"}, "since", "since-after-until"),
    "page_size 0": ({"page_size": 0}, "page_size .* from 1 ", "parameter-out-of-range"),
    "page_size true": ({"page_size": True}, "page_size", "parameter-out-of-range"),
    "no collections": ({"collections": []}, "boards, users", "collections-malformed"),
    "unknown mode": ({"mode": "write"}, "mode .* dry_run, review, apply", "parameter-out-of-range"),
    "unknown scope": ({"scope": "some"}, "scope", "parameter-out-of-range"),
    "negative margin": ({"margin_hours": -1}, "margin_hours", "parameter-out-of-range"),
    "an excuse without reason": ({"excuse": ["posts:x"]}, "excuse_reason", "excuse-without-reason"),
    "an excuse of nothing": ({"excuse": ["posts"], "excuse_reason": "r"}, "collection:key", "parameter-out-of-range"),
    "an excuse of no collection": (
        {"excuse": ["pages:x"], "excuse_reason": "r"},
        "'pages'",
        "difference-of-unknown-collection",
    ),
    "a misspelt parameter": ({"dryrun": True}, "dryrun", "parameter-unknown"),
}


@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_bad_parameters_are_refused_with_the_rule_and_the_remedy(case):
    changes, named, code = BAD_PARAMETERS[case]
    with pytest.raises(ParameterError, match=named, check=coded(code)):
        params(**changes)


def test_an_unknown_collection_is_refused_with_the_known_ones():
    with pytest.raises(CatalogError, match="'pages'.*: boards, users", check=coded("collection-not-declared")):
        params(collections=["pages"])


def test_a_selection_is_completed_by_the_parents_it_needs():
    chosen = params(collections=["reactions"])
    assert chosen.collections == ("reactions",)
    assert chosen.added == ("boards", "users", "posts", "comments", "replies")


def test_an_offset_is_taken_into_account():
    """The export's 21:52 was local time, UTC+9, and was once noted as UTC."""
    local = gap_params.parse({**DEFAULTS, "since": "2026-01-15T21:52:00+09:00", "margin_hours": 0}, CATALOG, T)
    assert local.window.start == datetime(2026, 1, 15, 12, 52, tzinfo=UTC)


def test_the_parameters_survive_the_way_to_another_task():
    chosen = params(excuse=["posts:a:b"], excuse_reason="r", scope="all")
    assert gap_params.GapParams.model_validate(chosen.model_dump(mode="json")) == chosen


def test_triggers_that_a_write_would_fire_are_named_and_counted(both, emulator, target_dsn, caplog):
    """A Supabase webhook is a trigger: a backfill of old posts would call it for each."""
    with psycopg.connect(target_dsn) as connection:
        connection.execute("CREATE FUNCTION notify() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
        for name in ("webhook", "counter", "off"):
            connection.execute(f"CREATE TRIGGER {name} AFTER INSERT ON posts FOR EACH ROW EXECUTE FUNCTION notify()")
        connection.execute("ALTER TABLE posts DISABLE TRIGGER off")
    found = _preflight(both.project, emulator, target_dsn)
    assert found["preflight"]["triggers"] == {"posts": ["counter", "webhook"]}
    assert "This run's writes fire triggers (a Supabase webhook is one): posts: counter, webhook" in caplog.text
    caplog.clear()
    _preflight(both.project, emulator, target_dsn, mode="dry_run")
    assert "Triggers fire" not in caplog.text
