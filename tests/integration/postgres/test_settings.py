"""A session of ours relies on no setting that a role, a database or the environment may set otherwise."""

from __future__ import annotations

from datetime import UTC, date, datetime
from unittest import mock

import psycopg
import pytest

from dev import seed
from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.engine import op_log
from dualwrite.model.errors import MigrationError, PreflightError
from dualwrite.model.windows import Window
from dualwrite.postgres.remembered import run_log, watermarks
from dualwrite.postgres.target import Target
from dualwrite.postgres.transactions import STATED
from dualwrite.runs import backfill
from dualwrite.runs.tripwire import counts
from tests.databases import clone
from tests.kept import forget
from tests.migrating import execute, migrator, transaction_pooler
from tests.roles import secured
from tests.support import apply, examine_all, gap_run, nonzero, one, reconciled, verify_all

HOSTILE = {
    "client_encoding": "LATIN1",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "America/Los_Angeles",
    "search_path": "elsewhere, pg_temp, public, pg_catalog",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "quote_all_identifiers": "on",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "row_security": "off",
    "xmloption": "document",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "check_function_bodies": "off",
    "client_min_messages": "debug1",
}
"""What any role may be given. All at once: each is stated, or none of our statements depends on it."""


def _set(dsn: str, whose: str, settings: dict[str, str] = HOSTILE) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, value in settings.items():
            value = value if name == "search_path" else f"'{value}'"
            connection.execute(f"ALTER {whose} SET {name} = {value}")
    forget(dsn)


@pytest.fixture
def world(firestore) -> seed.World:
    small = seed.small()
    small.load_source(firestore)
    return small


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("version", "admin", "whose"), [("postgres_server", "superuser", "role"), ("postgres15_server", "supabase", "database")])  # fmt: skip
def test_every_path_is_the_same_under_hostile_settings(request, world, firestore, emulator, version, admin, whose):
    """DateStyle, a time zone, an encoding or a search path ended runs, and garbled what they wrote."""
    with secured(request.getfixturevalue(version), admin) as target:
        execute(target.superuser, "CREATE SCHEMA elsewhere", "GRANT USAGE ON SCHEMA elsewhere TO PUBLIC")
        for table in ("users", "posts", "write_ops"):
            execute(target.superuser, f"CREATE TABLE elsewhere.{table} (id TEXT)")
        target.run("migrations.sql")
        database = target.superuser.rsplit("/", 1)[1]
        for name, value in (
            ("search_path", "public"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
        ):  # the test's own
            execute(target.superuser, f"ALTER ROLE postgres IN DATABASE {database} SET {name} = {value}")
        _set(target.superuser, f"DATABASE {database}" if whose == "database" else "ROLE dualwrite_migrations")
        assert set(target.migrate()) == {"applied"}
        target.run("data.sql")
        if whose == "role":
            _set(target.superuser, "ROLE dualwrite_data")
        with postgres.connect(target.superuser) as connection:
            world.load_target(connection)
        with mock.patch.dict("os.environ", PGCLIENTENCODING="SJIS", PGTZ="Asia/Tokyo", PGDATESTYLE="German"):
            _the_gap_is_closed(world, firestore.project, emulator, target.data)
            _drift_is_repaired(firestore.project, emulator, target)
            with postgres.connect(target.data) as connection, postgres.transaction(connection):
                assert all(isinstance(day, date) for day, _ in run_log.clean_days(connection, "reconcile_dual_writes"))
                assert watermarks.ages(connection)


def _the_gap_is_closed(world: seed.World, project: str, emulator: str, dsn: str) -> None:
    with gap_run(project, emulator, dsn, mode="dry_run") as run:
        backfill.preflight(run, by="a test")
        dry = examine_all(run, dry=True)
    with gap_run(project, emulator, dsn) as run:
        backfill.preflight(run, by="a test")
        found = examine_all(run, dry=False)
        checked = verify_all(run)
    expected = {n: dict(world.in_window[n]) for n in CATALOG.names}
    assert {n: nonzero(r["counts"]) for n, r in found.items()} == expected
    assert {n: nonzero(r["counts"]) for n, r in dry.items()} == expected
    for name, check in checked.items():
        assert {v for v, n in check["counts"].items() if n} <= {"matching", "orphan", "duplicate", "rejected"}, name
    again = apply(project, emulator, dsn)
    assert sum(r["inserted"] + r["updated"] for r in again.values()) == 0


def _drift_is_repaired(project: str, emulator: str, target) -> None:
    """Text and JSON that no single byte holds, a delete, and an insert."""
    before = one(target.superuser, "SELECT min(id), max(id) FROM posts WHERE content_json IS NOT NULL")
    json = one(target.superuser, "SELECT content_json::text FROM posts WHERE id = %s", before[0])
    execute(
        target.superuser,
        f"""UPDATE posts SET title = 'garbled', content_json = '{{"text": "x"}}' WHERE id = '{before[0]}'""",
        "DELETE FROM likes WHERE id = (SELECT min(id) FROM likes)",
        "INSERT INTO blocks (blocker_id, blocked_id) SELECT min(id), max(id) FROM users ON CONFLICT DO NOTHING",
        "INSERT INTO write_ops (op_id, created_at) VALUES ('post:update:x:1', 'infinity'), ('post:update:y:1', '-infinity')",
    )
    ended = reconciled(project, emulator, target.data, scope="sweep", repair="all", max_share=100)
    assert ended.gate["problem"] is None
    assert one(target.superuser, "SELECT content_json::text FROM posts WHERE id = %s", before[0]) == json
    assert one(target.superuser, "SELECT count(*) FROM posts WHERE title = 'garbled'") == 0


def test_a_transaction_begins_with_all_that_is_stated(target_dsn):
    """In its first message, and in each message that is a transaction by itself."""
    _set(target_dsn, f"DATABASE {target_dsn.rsplit('/', 1)[1]}")
    ask = postgres.sql.SQL("SELECT ARRAY[{}]").format(
        postgres.sql.SQL(", ").join(
            postgres.sql.SQL("current_setting({})").format(postgres.sql.Literal(name))
            for name in [*STATED, "transaction_isolation", "client_encoding"]
        )
    )
    expected = [*STATED.values(), "read committed", "UTF8"]
    with postgres.connect(target_dsn) as connection:
        with postgres.transaction(connection):
            assert connection.execute(ask).fetchall() == [(expected,)]
            with postgres.as_a_client(connection, "app"):
                row = connection.execute(
                    "SELECT current_setting('search_path'), current_setting('TimeZone'), current_setting('DateStyle')"
                ).fetchone()
                assert row == ("app, public, extensions, pg_temp", HOSTILE["TimeZone"], HOSTILE["DateStyle"])
            assert connection.execute(ask).fetchall() == [(expected,)]
            with pytest.raises(psycopg.errors.DivisionByZero), postgres.as_a_client(connection):
                connection.execute("SELECT 1/0")
            assert connection.execute(ask).fetchall() == [(expected,)]
        assert postgres.fetch(connection, ask, {}) == [(expected,)]


TIMES = ("-infinity", "4713-01-01 00:00:00 BC", "0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00", "294276-12-31 23:59:59",
         "infinity")  # fmt: skip


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "UTC", "Pacific/Kiritimati"])
@pytest.mark.parametrize("version", ["postgres_server", "postgres15_server"])
def test_a_time_of_any_size_is_read_by_every_way_in_order(request, version, zone):
    """`infinity` ended a look, and a thousand rows of year 1 did in a zone west of Greenwich."""
    for dsn in clone(request.getfixturevalue(version), "migrated"):
        _set(dsn, f"DATABASE {dsn.rsplit('/', 1)[1]}")
        execute(dsn, f"ALTER DATABASE {dsn.rsplit('/', 1)[1]} SET TimeZone = '{zone}'")
        ask = postgres.sql.SQL(
            f"SELECT at::timestamptz FROM unnest(ARRAY{list(TIMES)!r}::text[]) WITH ORDINALITY AS t (at, n) ORDER BY n"
        )
        with postgres.connect(dsn) as connection:
            ways = [postgres.fetch(connection, ask, {})]
            with postgres.transaction(connection):
                ways += [connection.execute(ask, binary=binary).fetchall() for binary in (False, True)]
                days = connection.execute(
                    "SELECT 'infinity'::date, '-infinity'::date, '0044-03-15 BC'::date"
                ).fetchone()
        earliest, latest = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
        for way in ways:
            assert [at for (at,) in way] == [earliest] * 3 + [latest] * 3
            assert all(at.tzinfo is UTC for (at,) in way)
        assert days == (date.max, date.min, date.min)


@pytest.fixture
def odd_dsn(target_dsn) -> str:
    """A row and operations as odd as a client can write them and Postgres holds them."""
    execute(
        target_dsn,
        "ALTER TABLE write_ops ALTER COLUMN created_at DROP NOT NULL",
        "INSERT INTO users (id, created_at) VALUES ('u1', '0001-01-01 UTC')",
        "INSERT INTO boards (id, title, first_day, created_at) VALUES ('b1', 'B', 'infinity', '-infinity')",
        "INSERT INTO posts (id, board_id, author_id, author_name, title, content_json, engagement_score, created_at, updated_at) "
        "VALUES ('p1', 'b1', 'u1', e'\\u0007', e'\\U0010FFFF', ('{\"n\": 1' || repeat('0', 5000) || '}')::jsonb, 'NaN', 'infinity', "
        "'4713-01-01 BC')",
        *(
            f"INSERT INTO write_ops (op_id, created_at) VALUES ('post:update:p1:{n}', {at})"
            for n, at in enumerate(["NULL", *(f"'{at}'" for at in TIMES)])
        ),
        "INSERT INTO write_ops (op_id) VALUES (e'post:\\n:\\u202e:٣'), ('post:create:p1:' || repeat('9', 400)), (''), (':::')",
    )
    return target_dsn


def test_what_a_client_wrote_oddly_is_read_and_repaired(odd_dsn, firestore, emulator):
    """One infinite time in write_ops, or in a row, ended a collection's look, in every run."""
    at = datetime(2026, 1, 20, tzinfo=UTC)
    firestore.document("users/u1").set({"createdAt": at})
    firestore.document("boards/b1").set({"title": "B", "createdAt": at})
    firestore.document("boards/b1/posts/p1").set(
        {"title": "T", "content": "C", "authorId": "u1", "authorName": "A", "createdAt": at, "updatedAt": at}
    )
    for scope in ("recent", "sweep"):
        ended = reconciled(firestore.project, emulator, odd_dsn, scope=scope, collections=["users", "boards", "posts"])
        assert not [a for a in ended.alerts if "not examined" in str(a)], ended.alerts
        assert {r["outcome"] for r in ended.report["collections"]} == {"examined"}
    reconciled(
        firestore.project, emulator, odd_dsn, scope="sweep", repair="all", collections=["users", "boards", "posts"]
    )
    assert one(odd_dsn, "SELECT title, created_at, content_json FROM posts") == ("T", at, None)
    with postgres.connect(odd_dsn) as connection, postgres.transaction(connection):
        window = Window(datetime(2026, 1, 1, tzinfo=UTC), at)
        named = op_log.named(connection, CATALOG["posts"], window, op_log.seen_of([], ()))
        assert ("post", "p1") in named.entities
        assert op_log.activity(connection, ["post"], at, datetime(9999, 1, 1, tzinfo=UTC)).in_the_future == 3
    with Target(lambda: postgres.connect(odd_dsn), CATALOG) as target:
        edges = counts.even_edges(target, CATALOG["users"], "created_at", datetime(2027, 1, 1, tzinfo=UTC), 1)
        assert edges == sorted(edges)


def test_the_apps_triggers_find_what_they_find_for_a_client(target_dsn, firestore, emulator):
    """Their names have no schema, and today is the day of their database's zone; a deferred one runs at COMMIT."""
    name = target_dsn.rsplit("/", 1)[1]
    execute(
        target_dsn,
        f"ALTER DATABASE {name} SET TimeZone = 'Pacific/Kiritimati'",
        "CREATE TABLE audit (what TEXT, zone TEXT)",
        "CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO audit VALUES (TG_NAME, current_setting('TimeZone')); RETURN NULL; END $$",
        "CREATE TRIGGER immediate AFTER INSERT ON boards FOR EACH ROW EXECUTE FUNCTION audited()",
        "CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON boards DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION audited()",
        "CREATE FUNCTION known(title TEXT) RETURNS BOOLEAN LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN title <> 'refused' AND (SELECT count(*) >= 0 FROM audit); END $$",
        "ALTER TABLE boards ADD CONSTRAINT known_title CHECK (known(title))",
    )
    at = datetime(2026, 1, 20, tzinfo=UTC)
    for board, title in (("b1", "B"), ("b2", "refused")):
        firestore.document(f"boards/{board}").set({"title": title, "createdAt": at})
    found = apply(firestore.project, emulator, target_dsn, scope="all", collections=["boards"])["boards"]
    assert nonzero(found["counts"]) == {"missing": 1, "rejected": 1}
    with psycopg.connect(target_dsn) as connection:
        assert sorted(connection.execute("SELECT what, zone FROM audit")) == [
            ("deferred", "Pacific/Kiritimati"),
            ("immediate", "Pacific/Kiritimati"),
        ]


def test_a_pooler_that_keeps_another_encoding_is_refused(target_dsn, tmp_path):
    """Some don't pass on what a client asks for: texts would be garbled in silence."""
    asked = postgres.connection.Connection.connect

    def ignoring(*args, **given):
        return asked(*args, **{**given, "client_encoding": "LATIN1"})

    with (
        mock.patch.object(postgres.connection.Connection, "connect", ignoring),
        pytest.raises(postgres.ConnectError, match="speaks LATIN1") as refused,
    ):
        postgres.connect(target_dsn)
    assert not refused.value.passing
    _set(target_dsn, f"DATABASE {target_dsn.rsplit('/', 1)[1]}")
    with transaction_pooler(target_dsn, tmp_path) as pooled, postgres.connect(pooled) as connection:
        assert postgres.fetch(connection, postgres.sql.SQL("SELECT {}").format("가 '\\"), {}) == [("가 '\\",)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        HOSTILE,
        *(
            {"standard_conforming_strings": conforming, "backslash_quote": quote, "escape_string_warning": "on"}
            for conforming in ("on", "off")
            for quote in ("on", "off", "safe_encoding")
        ),
    ],
    ids=lambda settings: "-".join(str(v) for v in settings.values())[:20],
)
def test_an_id_that_is_sql_stays_an_id_in_a_literal(target_dsn, settings):
    """`fetch`, `answers` and `at_once` write values into the statement's text; psycopg's escaping must hold for each, whatever
    a database says of strings."""
    _set(target_dsn, f"DATABASE {target_dsn.rsplit('/', 1)[1]}", settings)
    ids = [
        "'; DROP TABLE posts; --",
        "\\'; SELECT 1; --",
        "$$; $1; %(ids)s %s %%",
        'a"b\n\\n',
        "{}",
        "E'\\x27'",
        "/* ' */",
    ]
    given = {"ids": ids}
    with postgres.connect(target_dsn) as connection:
        assert postgres.fetch(connection, postgres.sql.SQL("SELECT %(ids)s::text[]").format(), given) == [(ids,)]
        with connection.transaction():
            asked = ["SELECT %(ids)s::text[]", "SELECT %(ids)s::text[]"]
            assert postgres.answers(connection, asked, given) == [[(ids,)]] * 2
            statement = postgres.sql.SQL("SELECT %s::text[]").format()
            assert postgres.at_once(connection, [(statement, [ids])] * 2) == [(1, [(ids,)])] * 2


@pytest.mark.parametrize("mode", ["dry_run", "apply"])
def test_a_read_only_server_is_told_with_its_remedy(firestore, emulator, phase1_dsn, target_dsn, mode):
    """Supabase's is one where the disk is nearly full. It isn't overridden."""
    firestore.document("users/u1").set({})
    execute(target_dsn, "INSERT INTO users (id) VALUES ('u1')")
    for dsn in (phase1_dsn, target_dsn):
        execute(dsn, f"ALTER DATABASE {dsn.rsplit('/', 1)[1]} SET default_transaction_read_only = on")
    with gap_run(firestore.project, emulator, target_dsn, mode=mode) as run:
        with pytest.raises(
            PreflightError, match="read-only: default_transaction_read_only is on .* disk is nearly full"
        ):
            backfill.preflight(run, by="a test")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refused:
            examine_all(run, dry=mode == "dry_run", names=["users"])
    assert "disk" in postgres.remedy(refused.value)
    with pytest.raises(MigrationError, match="ReadOnlySqlTransaction 25006 .*disk is nearly full"):
        migrator(phase1_dsn).run()


def test_constraints_that_are_off_are_refused_before_an_apply(firestore, emulator, target_dsn):
    """session_replication_role = replica: rows without parents would be written."""
    firestore.document("users/u1").set({})
    execute(
        target_dsn,
        "INSERT INTO users (id) VALUES ('u1')",
        f"ALTER DATABASE {target_dsn.rsplit('/', 1)[1]} SET session_replication_role = replica",
    )
    with (
        gap_run(firestore.project, emulator, target_dsn) as run,
        pytest.raises(PreflightError, match="triggers are off"),
    ):
        backfill.preflight(run, by="a test")
