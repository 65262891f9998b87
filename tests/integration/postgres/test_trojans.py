"""Who may make objects in the target, and what of theirs runs with more rights than their own.

A trojan is a function, an aggregate, an operator, a view, a cast, a trigger or an event trigger of somebody with few rights, made
to be run by somebody with more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

import psycopg
import pytest

from dev import seed
from dualwrite import migrations, postgres
from dualwrite.catalog import CATALOG
from dualwrite.runs import backfill, doctor
from tests.conftest import ROOT
from tests.integration.postgres.test_roles import server  # noqa: F401 - a fixture
from tests.roles import ADMINS, Secured, secured
from tests.support import examine_all, gap_run, one, reconciled, verify_all

TYPES = ("text", "varchar", "name", '"char"', "int2", "int4", "int8", "oid", "timestamptz", "numeric", "jsonb", "text[]", "int2[]",
         "int4[]", "oid[]", "timestamptz[]", "aclitem[]", "interval", "regclass", "xid")  # fmt: skip
PAIRS = tuple(
    dict.fromkeys(
        [*product(TYPES[:8], repeat=2), *(("text", t) for t in TYPES[8:]), *((t, t) for t in TYPES[8:]), ("text[]", "text"),
         ("timestamptz", "timestamptz[]"), ("timestamptz", "interval"), ("int8", "int4"), ("oid", "text")]
    )
)  # fmt: skip
OPERATORS = ("=", "<>", "<", ">", "<=", ">=", "||", "&", "->>", "~", "!~", "~~", "+", "-")
SOURCES = [*ROOT.glob("dags/dualwrite/**/*.py"), *ROOT.glob("sql/roles/*.sql"), *ROOT.glob("sql/optional/*.sql")]


def _names() -> list[str]:
    """Every function of Postgres's that is called anywhere in our sources, by name."""
    return sorted({word for path in SOURCES for word in re.findall(r"\b([a-z_]+)\(", path.read_text())})


_PLANT = """
DO $plant$
DECLARE
  f RECORD;
BEGIN
  FOR f IN
    SELECT DISTINCT p.proname AS name, a.args
    FROM pg_proc p JOIN (SELECT unnest(%(args)s::text[]) AS args) a ON true
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY(%(names)s::text[]) AND p.prokind = 'f'
  LOOP
    EXECUTE format('CREATE FUNCTION public.%%I(%%s) RETURNS %%s LANGUAGE plpgsql AS %%L', f.name, f.args,
      CASE WHEN f.name ~ '^(has_|row_sec|pg_has|starts|isfinite)' THEN 'boolean' ELSE 'text' END,
      format('BEGIN PERFORM public.caught(%%L); RETURN NULL; END', f.name || '(' || f.args || ')'));
  END LOOP;
END $plant$
"""


def plant(dsn: str) -> int:
    """Overloads in public of all that our statements call, made by whoever the DSN says. Each tells who ran it. How many."""
    with psycopg.connect(dsn, autocommit=True) as connection, psycopg.ClientCursor(connection) as cursor:
        cursor.execute(
            "CREATE FUNCTION public.caught(what text) RETURNS void LANGUAGE plpgsql AS "
            "$$ BEGIN IF current_user <> 'dualwrite_migrations' THEN "
            "RAISE EXCEPTION 'TROJAN % ran as %', what, current_user; END IF; END $$"
        )
        cursor.execute("SET search_path = pg_catalog")  # or what is planted first answers what is asked here
        args = [*TYPES, *(", ".join(pair) for pair in PAIRS)]
        cursor.execute(_PLANT, {"args": args, "names": _names()})
        for name, (left, right) in product(OPERATORS, PAIRS):
            result = "text" if name in ("||", "->>", "+", "-", "&") else "boolean"
            cursor.execute(
                f"CREATE FUNCTION public.op_{OPERATORS.index(name)}({left}, {right}) RETURNS {result} LANGUAGE plpgsql AS "
                f"$f$ BEGIN PERFORM public.caught('{name}({left},{right})'); RETURN NULL; END $f$; "
                f"CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, "
                f"FUNCTION = public.op_{OPERATORS.index(name)})"
            )
        plant_aggregates(cursor)
        plant_views(cursor)
        plant_casts(cursor)
        cursor.execute("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
        return cursor.fetchone()[0]


def plant_aggregates(cursor: psycopg.Cursor) -> None:
    """One in public for each of Postgres's that we call, of each type."""
    cursor.execute(
        "SELECT DISTINCT proname FROM pg_proc WHERE prokind = 'a' AND pronamespace = 'pg_catalog'::regnamespace "
        "AND proname = ANY(%s)",
        [_names()],
    )
    for (name,), kind in product(cursor.fetchall(), TYPES):
        cursor.execute(
            f"CREATE OR REPLACE FUNCTION public.collects(state text, value {kind}) RETURNS text LANGUAGE plpgsql AS "
            f"$f$ BEGIN PERFORM public.caught('aggregate of {kind}'); RETURN NULL; END $f$; "
            f"CREATE AGGREGATE public.{name}({kind}) (SFUNC = public.collects, STYPE = text)"
        )


def plant_views(cursor: psycopg.Cursor) -> None:
    """One in public under the name of each of Postgres's own tables and views that our sources name."""
    cursor.execute(
        "CREATE FUNCTION public.seen(what text) RETURNS boolean LANGUAGE plpgsql AS "
        "$f$ BEGIN PERFORM public.caught('view ' || what); RETURN true; END $f$"
    )
    named = {word for path in SOURCES for word in re.findall(r"\bpg_[a-z_]+\b", path.read_text())}
    cursor.execute(
        "SELECT c.relname, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_class c "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 JOIN pg_type t ON t.oid = a.atttypid AND t.typtype <> 'p' "
        "WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname = ANY(%s) GROUP BY 1",
        [list(named)],
    )
    views = cursor.fetchall()
    assert {"pg_class", "pg_namespace", "pg_roles"} <= {name for name, _ in views}
    for name, columns in views:
        cursor.execute(
            f"CREATE VIEW public.{name} AS SELECT {columns} FROM pg_catalog.{name} WHERE public.seen('{name}')"
        )


def plant_casts(cursor: psycopg.Cursor) -> None:
    """Implicit ones, from and to a type of the role's own: between Postgres's types only their owner can make one."""
    cursor.execute("CREATE TYPE public.mine AS ENUM ('a')")
    for kind in TYPES:
        cursor.execute(
            f"CREATE FUNCTION public.to_mine({kind}) RETURNS public.mine LANGUAGE plpgsql AS "
            f"$f$ BEGIN PERFORM public.caught('cast of {kind}'); RETURN 'a'; END $f$; "
            f"CREATE CAST ({kind} AS public.mine) WITH FUNCTION public.to_mine({kind}) AS IMPLICIT"
        )
        cursor.execute(
            f"CREATE FUNCTION public.from_mine_{TYPES.index(kind)}(public.mine) RETURNS {kind} LANGUAGE plpgsql AS "
            f"$f$ BEGIN PERFORM public.caught('cast to {kind}'); RETURN NULL; END $f$; "
            f"CREATE CAST (public.mine AS {kind}) WITH FUNCTION public.from_mine_{TYPES.index(kind)}(public.mine) AS IMPLICIT"
        )


@pytest.fixture(params=ADMINS)
def target(request, server) -> Iterator[Secured]:  # noqa: F811
    with secured(server, request.param) as found:
        found.run("migrations.sql")
        found.migrate()
        found.run("data.sql")
        found.run("migrations.sql")
        yield found


@pytest.mark.timeout(600)
def test_no_higher_role_runs_what_the_migrations_role_made(target, firestore, emulator):
    """`public.format(text, name)` fits better than Postgres's own, and ran as the superuser who ran a role file."""
    world = seed.small()
    world.load_source(firestore)
    with psycopg.connect(target.superuser) as connection:
        world.load_target(connection)
    assert plant(target.migrations) > 3_000
    for bait in (
        "SELECT format('%I', current_user)",
        "SELECT public.max(current_user::text)",
        "SELECT relname FROM public.pg_class",
        "SELECT 'a'::text::public.mine",
        "SELECT 'a'::public.mine::jsonb",
    ):  # so they work
        with psycopg.connect(target.superuser) as connection, pytest.raises(psycopg.Error, match="TROJAN"):
            connection.execute(bait)

    for name in ("migrations.sql", "data.sql", "migrations.sql"):
        target.run(name)
    for optional in ("prune.sql", "web_client_anon.sql", "web_client_closed.sql", "close_write_lock.sql"):
        who = target.data if optional == "prune.sql" else target.admin
        with psycopg.connect(who, autocommit=True) as connection:
            connection.execute((ROOT / "sql/optional" / optional).read_text())
    with postgres.connect(target.data) as connection:
        steps = migrations.make_plan(connection, migrations.MigrationParams())
        migrations.verify(connection, steps)
        assert migrations.standing(connection)["unknown"] is None
    with gap_run(firestore.project, emulator, target.data, mode="dry_run") as run:
        backfill.preflight(run, by="a test")
        examine_all(run, dry=True)
    with gap_run(firestore.project, emulator, target.data) as run:
        backfill.preflight(run, by="a test")
        examine_all(run, dry=False)
        verify_all(run)
    with psycopg.connect(target.superuser) as connection:
        connection.execute("DELETE FROM likes")
        connection.execute("TRUNCATE blocks")
        connection.execute("INSERT INTO blocks (blocker_id, blocked_id) VALUES (%s, %s)", _two(connection))
    for scope in ("recent", "sweep"):
        ended = reconciled(firestore.project, emulator, target.data, scope=scope, repair="all", max_share=100)
        assert "TROJAN" not in str(ended.report)
        assert {r["outcome"] for r in ended.report["collections"]} == {"examined"}
    lines = list(
        doctor.examine(lambda: run_source(firestore, emulator), lambda: postgres.connect(target.data), CATALOG)
    )
    assert not [line for line in lines if "RaiseException" in str(line)]


def _two(connection) -> tuple[str, str]:
    return connection.execute("SELECT pg_catalog.min(id), pg_catalog.max(id) FROM users").fetchone()


def run_source(firestore, emulator):
    from dualwrite.firestore.source import Source

    return Source(firestore.project, emulator_host=emulator)


def test_the_migrations_role_makes_no_schema_reads_no_journal(target):
    """One of another role's name shadowed the tables of whoever searches "$user" first; before-images are rows of the app."""
    with psycopg.connect(target.superuser) as connection:
        connection.execute(
            "INSERT INTO dualwrite.repair_journal (run_id, collection, key, action, table_name, row_key, row_before) "
            "VALUES ('r', 'users', 'u', 'update', 'users', '[]', '{\"email\": \"personal\"}')"
        )
    forbidden = [
        "CREATE SCHEMA dualwrite_data",
        "SELECT * FROM dualwrite.repair_journal",
        "ALTER TABLE dualwrite.repair_journal OWNER TO dualwrite_migrations",
        "GRANT SELECT ON dualwrite.repair_journal TO anon",
        "CREATE TRIGGER t BEFORE DELETE ON dualwrite.repair_journal FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "DROP SCHEMA dualwrite CASCADE",
        "CREATE CAST (text AS integer) WITH INOUT",
        "CREATE TYPE mine AS ENUM ('a'); CREATE CAST (text AS jsonb) WITH INOUT AS IMPLICIT",
        "CREATE OPERATOR pg_catalog.= (LEFTARG = text, RIGHTARG = name, FUNCTION = pg_catalog.texteq)",
        "CREATE VIEW dualwrite.looks_like_ours AS SELECT * FROM dualwrite.repair_journal; SELECT * FROM dualwrite.looks_like_ours",
        "CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$; "
        "CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION on_ddl()",
        "CREATE RULE r AS ON SELECT TO public.posts DO INSTEAD SELECT * FROM public.posts",
        "CREATE TRIGGER t BEFORE INSERT ON public.posts FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "SET ROLE dualwrite_data",
        "ALTER ROLE dualwrite_data SET search_path = mine",
    ]
    allowed = []
    for statement in forbidden:
        with psycopg.connect(target.migrations) as connection:
            try:
                connection.execute(statement)
            except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidObjectDefinition):
                connection.rollback()
            else:
                allowed.append(statement)
                connection.rollback()
    assert allowed == []
    with psycopg.connect(target.migrations, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION public.given() RETURNS SETOF jsonb LANGUAGE plpgsql SECURITY DEFINER AS "
            "$$ BEGIN RETURN QUERY SELECT row_before FROM dualwrite.repair_journal; END $$"
        )
    with psycopg.connect(target.superuser) as connection:
        connection.execute("SET ROLE anon")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT public.given()")


def test_between_migrations_the_role_that_makes_tables_is_closed(target):
    target.run("data.sql")
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(target.migrations)
    target.run("migrations.sql")
    with psycopg.connect(target.migrations) as connection:
        steps = migrations.make_plan(connection, migrations.MigrationParams())
        assert {step.state for step in steps} == {"applied"}
        assert migrations.verify(connection, steps) == [], "whose the journal is now is no difference"


def test_an_old_installation_loses_the_roles_surplus_rights(server):  # noqa: F811
    """The role made the schema itself, and kept CREATE on the database."""
    with secured(server, "superuser") as target:
        with psycopg.connect(target.superuser, autocommit=True) as connection:
            connection.execute("CREATE ROLE dualwrite_migrations LOGIN")
            connection.execute(f"GRANT CREATE ON DATABASE {connection.info.dbname} TO dualwrite_migrations")
            connection.execute("GRANT USAGE, CREATE ON SCHEMA public TO dualwrite_migrations")
            connection.execute("GRANT REFERENCES ON public.boards, public.users TO dualwrite_migrations")
        target.migrate()
        for name in ("migrations.sql", "data.sql", "migrations.sql"):
            target.run(name)
        owners = "SELECT n.nspowner::regrole::text, c.relowner::regrole::text FROM pg_class c " \
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = 'dualwrite.repair_journal'::regclass"  # fmt: skip
        assert one(target.superuser, owners) == ("postgres", "postgres")
        for statement in ("CREATE SCHEMA mine", "SELECT FROM dualwrite.repair_journal"):
            with psycopg.connect(target.migrations) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_pruning_is_refused_to_who_could_be_robbed_by_a_trigger(target):
    """SET ROLE doesn't help: a trigger can take it back."""
    prune = (ROOT / "sql/optional/prune.sql").read_text()
    with psycopg.connect(target.superuser) as connection:
        connection.execute(
            "INSERT INTO dualwrite.runs (dag_id, run_id, collection, phase, scope, mode, outcome, started_at, seconds, "
            "documents_read, billed_reads, examined, counts, inserted, updated, deleted, recorded_at) VALUES ('d', 'r', "
            "'posts', 'gap', 'all', 'apply', 'examined', now(), 0, 0, 0, 0, '{}', 0, 0, 0, now() - interval '500 days')"
        )
    with psycopg.connect(target.migrations, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION public.robs() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RESET ROLE; ALTER ROLE dualwrite_migrations CREATEROLE; RETURN OLD; "
            "EXCEPTION WHEN insufficient_privilege THEN RETURN OLD; END $$"
        )
        connection.execute(
            "CREATE TRIGGER robs BEFORE DELETE ON dualwrite.runs FOR EACH ROW EXECUTE FUNCTION public.robs()"
        )
    for who in {target.superuser, target.admin}:
        with (
            psycopg.connect(who, autocommit=True) as connection,
            pytest.raises(psycopg.Error, match="run prune.sql as"),
        ):
            connection.execute(prune)
    with psycopg.connect(target.data, autocommit=True) as connection:
        connection.execute(prune)
    assert one(target.superuser, "SELECT count(*) FROM dualwrite.runs") == 0
    assert one(target.superuser, "SELECT rolcreaterole FROM pg_roles WHERE rolname = 'dualwrite_migrations'") is False


def test_the_data_role_can_be_kept_from_taking_a_lock(target):
    """A function is open to all, so that the role could write to write_ops; the optional file closes this one."""
    ask = "SELECT has_function_privilege(%s, 'public.try_acquire_write_lock(text)', 'EXECUTE')"
    assert one(target.superuser, ask, "dualwrite_data")
    with psycopg.connect(target.admin if target.admin == target.superuser else target.superuser) as connection:
        connection.execute((ROOT / "sql/optional/close_write_lock.sql").read_text())
    assert {role: one(target.superuser, ask, role) for role in ("dualwrite_data", "dualwrite_migrations", "anon", "service_role")} == {
        "dualwrite_data": False, "dualwrite_migrations": False, "anon": True, "service_role": True,
    }  # fmt: skip
