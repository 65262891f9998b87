"""Keys made of fields, or of a list's elements: content, which no report, log or alert tells."""

from __future__ import annotations

import json

import psycopg
import pytest

from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    CreateTime,
    DocumentId,
    EntryKey,
    Field,
    Segment,
)
from tests.support import examine_all, gap_run, one, reconciled, verify_all
from tests.worlds import LONG_AGO, put

TEAMS = Collection("teams", "teams", ("teams/{team}",), (Column("id", "key", DocumentId()),), selected=True)
MEMBERS = Collection(
    "members",
    "members",
    ("teams/{team}/members/{member}",),
    (
        Column("team_id", "key", Segment("team"), references="teams"),
        Column("email", "key", Field("email"), required=True),
        Column("role", "compared", Field("role"), required=True, absent=""),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp", required=True),
    ),
    check_fields=("createdAt",),
    written_columns=("created_at",),
    selected=True,
)
HANDLES = Collection(
    "handles",
    "handles",
    ("teams/{team}",),
    (Column("team_id", "key", Segment("team"), references="teams"), Column("handle", "key", EntryKey())),
    entries=ArrayElements("handles"),
    selected=True,
)
CATALOG = Catalog((TEAMS, MEMBERS, HANDLES))
SCHEMA = """
CREATE TABLE teams (id TEXT PRIMARY KEY);
CREATE TABLE members (
  team_id TEXT NOT NULL REFERENCES teams (id), email TEXT NOT NULL, role TEXT NOT NULL DEFAULT '' CHECK (role <> 'refused'),
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (team_id, email)
);
CREATE TABLE handles (team_id TEXT NOT NULL REFERENCES teams (id), handle TEXT NOT NULL, PRIMARY KEY (team_id, handle));
"""
SECRETS = (
    "secret.ann@example.org",
    "secret.bob@example.org",
    "secret.cho@example.org",
    "secret.dan@example.org",
    "@secret",
)


def member(email: str, **changes) -> dict:
    return {"email": email, "role": "r", "createdAt": LONG_AGO, **changes}


@pytest.fixture
def club(firestore, emulator, target_dsn):
    """Of each kind of difference one."""
    ann, bob, cho, dan, handle = SECRETS
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute("INSERT INTO teams VALUES ('t1')")
        connection.execute("INSERT INTO members VALUES ('t1', %s, 'other', %s)", (ann, LONG_AGO))  # stale
        connection.execute("INSERT INTO members VALUES ('t1', %s, 'r', %s)", (bob, LONG_AGO))  # extra
        connection.execute("INSERT INTO handles VALUES ('t1', %s)", (f"{handle}/gone",))  # extra
    put(
        firestore,
        {
            "teams/t1": {"handles": [handle, "second"]},
            "teams/t1/members/m1": member(ann),
            "teams/t1/members/m2": member(cho),
            "teams/t1/members/m3": member(dan, role="refused"),
            "teams/t1/members/m4": member(cho, role="later"),
        },
    )
    return firestore


def reconcile(client, emulator, dsn, **changes):
    names = list(CATALOG.names)
    return reconciled(
        client.project, emulator, dsn, catalog=CATALOG, collections=names, scope="sweep", grace_seconds=0, **changes
    )


def test_what_natural_keys_hold_is_in_no_report_log_or_alert(club, emulator, target_dsn, caplog):
    """Of a key only documents' ids are told; what a field holds is a digest, whatever it looks like."""
    caplog.set_level("DEBUG", logger="dualwrite")
    found = reconcile(club, emulator, target_dsn)
    assert found.counts("members") == {"stale": 1, "extra": 1, "missing": 1, "rejected": 1, "duplicate": 1}
    assert found.counts("handles") == {"missing": 2, "extra": 1}
    repaired = reconcile(club, emulator, target_dsn, repair="all", max_share=100)
    with gap_run(club.project, emulator, target_dsn, catalog=CATALOG, collections=list(CATALOG.names)) as run:
        told = [examine_all(run, dry=False), verify_all(run)]
    text = json.dumps([found.report, found.gate, found.alerts, repaired.report, repaired.alerts, told], default=str)
    text += found.text() + repaired.text() + caplog.text
    assert [s for s in SECRETS if s in text] == []
    assert found.sample("members", "extra")["key"].startswith("row:t1/~"), "the id is told"


def test_labels_that_an_earlier_version_made_of_content_are_digests(club, emulator, target_dsn):
    """The difference stays open since when it was, and excused by whom it was."""
    reconcile(club, emulator, target_dsn)
    new = "SELECT key FROM dualwrite.open_differences WHERE collection = 'members' AND verdict = 'extra'"
    label = one(target_dsn, new)
    old = f"row:t1/{SECRETS[1]}"
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE dualwrite.open_differences SET key = %s, excused_by = 'ann', excuse_reason = 'r', excused_verdict = 'extra', "
            "excused_at = now() WHERE key = %s",
            (old, label),
        )
        connection.execute("UPDATE dualwrite.open_differences SET first_seen = '2026-01-01Z' WHERE key = %s", (old,))
    found = reconcile(club, emulator, target_dsn)
    assert SECRETS[1] not in json.dumps(found.report)
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.open_differences WHERE key = %s", old) == 0
    kept = "SELECT excused_by, first_seen = '2026-01-01Z' FROM dualwrite.open_differences WHERE key = %s"
    assert one(target_dsn, kept, label) == ("ann", True)
