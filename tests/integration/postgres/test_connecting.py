"""Connecting to Postgres: which failure may pass, and that no part of a password is told."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import psycopg
import pytest

from dev import postgres_server, processes
from dualwrite import postgres
from dualwrite.postgres import conditions as module

LEFT, RIGHT = "4711", "Ri8ghtHalf"


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A server that wants a password."""
    with postgres_server.server(password=f"{LEFT}{RIGHT}") as uri:
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute("CREATE ROLE full_up LOGIN PASSWORD 'right' CONNECTION LIMIT 0")
            connection.execute("CREATE ROLE closed NOLOGIN PASSWORD 'right'")
        yield uri


def _refusal(uri: str) -> postgres.ConnectError:
    with pytest.raises(postgres.ConnectError) as refused:
        postgres.connect(uri, connect_timeout=3)
    return refused.value


def test_a_server_that_wants_a_password_lets_nobody_in_without(guarded):
    """The local stack's: whoever is superuser may run programs as the server's user."""
    place = guarded.rpartition("@")[2]
    assert not _refusal(f"postgresql://postgres@{place}").passing
    with postgres.connect(guarded) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_wrong_password_does_not_pass_and_a_full_server_does(guarded):
    place = guarded.rpartition("@")[2]
    assert not _refusal(f"postgresql://postgres:wrong@{place}").passing
    assert not _refusal(f"postgresql://closed:right@{place}").passing
    assert not _refusal(f"postgresql://nobody:right@{place}").passing
    assert _refusal(f"postgresql://full_up:right@{place}").passing
    assert _refusal(f"postgresql://postgres:wrong@127.0.0.1:{processes.free_port()}/d").passing


@pytest.mark.parametrize(
    ("words", "asked", "passes"),
    [
        ("FATAL:  Passwort-Authentifizierung f\u00fcr Benutzer \u00bbx\u00ab fehlgeschlagen", True, False),
        ("FATAL:  das Datenbanksystem startet", False, True),
        ("FATAL:  tut mir leid, schon zu viele Verbindungen", False, True),
        ("FATAL:  \u10e1\u10d8\u10e1\u10e2\u10d4\u10db\u10d0", True, False),
    ],
)
def test_whether_it_may_pass_is_told_without_words(words, asked, passes):
    """lc_messages is the administrator's; a wrong password that is tried again may have the address banned."""
    tried = SimpleNamespace(needs_password=False, used_password=asked)
    told = type("Told", (psycopg.OperationalError,), {"pgconn": tried})
    assert module.may_pass(told(words)) is passes


@pytest.mark.parametrize("character", list("/?#@:%[]& \\"))
def test_no_part_of_an_unencoded_password_is_told(character):
    """It makes a part of the password the host, the port, the database or a parameter."""
    error = _refusal(f"postgresql://user:{LEFT}{character}{RIGHT}@127.0.0.1:{processes.free_port()}/db")
    assert RIGHT not in str(error)
    assert LEFT not in str(error)
    assert error.__cause__ is None
