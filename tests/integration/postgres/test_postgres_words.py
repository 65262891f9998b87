"""What is told of Postgres's errors: enough to act on, and nothing that a row or a password holds."""

from __future__ import annotations

import psycopg
import pytest

from dualwrite import postgres

STRANGE = {
    "postgresql://u:secret@127.0.0.1/db?pgbouncer=true": "pgbouncer",
    "postgresql://u:secret@127.0.0.1/db?sslmode=require&connection_limit=1&pgbouncer=true": "connection_limit or pgbouncer",
}


@pytest.mark.parametrize("conninfo", STRANGE)
def test_a_parameter_of_another_client_is_named(conninfo):
    """Supabase's dashboard gives ?pgbouncer=true: "neither a libpq string nor a URI" is a riddle."""
    with pytest.raises(
        postgres.ConnectError, match=f"libpq doesn't know the parameter {STRANGE[conninfo]} of"
    ) as refused:
        postgres.connect(conninfo)
    assert "secret" not in str(refused.value)


def test_a_parameter_of_a_connections_extra_is_named():
    with pytest.raises(postgres.ConnectError, match="libpq doesn't know the parameter pgbouncer of"):
        postgres.connect("", host="127.0.0.1", pgbouncer="true")


@pytest.mark.parametrize("conninfo", ["postgres://u:p/a?secret=word@host/db", "host=h secret", "postgres://u:%zz@h/d"])
def test_a_connection_string_that_cant_be_read_is_never_quoted(conninfo):
    with pytest.raises(postgres.ConnectError, match="neither a libpq string nor a URI") as refused:
        postgres.connect(conninfo)
    assert "secret" not in str(refused.value)


def _refusal(connection, statement: str) -> str:
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused, connection.transaction():
        connection.execute(statement)
    return postgres.condition(refused.value)


def test_a_missing_grant_names_its_table_and_no_triggers_words(target_dsn):
    """InsufficientPrivilege alone names no table. A trigger may raise the same condition, with a row's content."""
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE reader_only")
        try:
            connection.execute("GRANT USAGE ON SCHEMA public TO reader_only")
            connection.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "RAISE EXCEPTION 'not for %', NEW.nickname USING ERRCODE = 'insufficient_privilege'; END $$"
            )
            connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION refuse()")
            told = _refusal(connection, "INSERT INTO users (id, nickname) VALUES ('a', 'secret')")
            assert told == "InsufficientPrivilege 42501"
            connection.execute("SET ROLE reader_only")
            assert (
                _refusal(connection, "SELECT * FROM posts")
                == "InsufficientPrivilege 42501 (permission denied for table posts)"
            )
            assert "schema dualwrite" in _refusal(connection, "SELECT * FROM dualwrite.runs")
        finally:
            connection.execute("RESET ROLE")
            connection.execute("DROP OWNED BY reader_only")
            connection.execute("DROP ROLE reader_only")
