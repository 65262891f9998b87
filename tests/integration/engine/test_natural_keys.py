"""Keys made of fields, or of a list's elements: content, which no report, log or alert tells."""

from __future__ import annotations

import json

import psycopg
import pytest

from dualwrite.firestore.source import Source
from dualwrite.model.conversions import Conversion
from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    CreateTime,
    DocumentId,
    DocumentPath,
    EntryField,
    EntryKey,
    Field,
    Segment,
)
from dualwrite.model.documents import UNASKED
from dualwrite.model.question import question_of
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


def test_labels_made_of_content_by_an_old_version_are_digests(club, emulator, target_dsn):
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


KIND = Column("kind", "key", Field("kind"))
TEAM = Column("team", "key", Segment("team"))
KNOWN = {
    "the id": ("teams/{team}/notes/{note}", (TEAM, Column("a", "key", DocumentId()), KIND)),
    "its variable": ("teams/{team}/notes/{note}", (TEAM, Column("a", "key", Segment("note")), KIND)),
    "its parts": (
        "teams/{team}/notes/{a}-{b}", (TEAM, Column("a", "key", Segment("a")), Column("b", "key", Segment("b")), KIND)
    ),
}  # fmt: skip


@pytest.mark.parametrize("by", KNOWN)
def test_a_natural_key_that_gives_its_document_asks_only_that(by, firestore, emulator, target_dsn):
    """However many others have the same fields. Missing, stale and extra rows, one of them of a document with another kind now."""
    path, key = KNOWN[by]
    notes = Collection("notes", "notes", (path,), (*key, Column("text", "compared", Field("text"))), selected=True)
    names = ", ".join(c.name for c in key)
    put(firestore, {f"teams/t1/notes/n{n}-x": {"kind": "same", "text": f"text {n}"} for n in range(40)})

    def row(name: str, kind: str, text: str) -> list[str]:
        return ["t1", *([name] if len(key) == 3 else name.split("-")), kind, text]

    stated = [row(f"n{n}-x", "same", f"text {n}") for n in range(40)]
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        columns = ", ".join(f"{c.name} text NOT NULL" for c in key)
        connection.execute(f"CREATE TABLE notes ({columns}, text text, PRIMARY KEY ({names}))")
        rows = [
            row("n0-x", "same", "stale"),
            row("n1-x", "another", "text 1"),
            row("gone-x", "same", "gone"),
            *stated[2:],
        ]
        connection.cursor().executemany(f"INSERT INTO notes VALUES ({', '.join(['%s'] * len(rows[0]))})", rows)
    catalog = Catalog((notes,))
    with Source(firestore.project, emulator_host=emulator) as source:
        question = question_of(notes, tuple(stated[3][:-1]))
        [found] = source.children_where_each([(question.parent, question.equals)], "notes", question.fields)
        assert [d.path for d in found] == ["teams/t1/notes/n3-x"]
        assert source.billed_reads == 1
        question = question_of(notes, tuple(row("gone-x", "same", "")[:-1]))
        assert source.children_where_each([(question.parent, question.equals)], "notes", question.fields) == [[]]
    if len(key) == 3:  # an id that no document can have: of a row that somebody else wrote
        question = question_of(notes, ("t1", "a/b", "same"))
        assert source.children_where_each([(question.parent, question.equals)], "notes", question.fields) == [UNASKED]
    done = reconciled(
        firestore.project, emulator, target_dsn, catalog=catalog, collections=["notes"], scope="sweep", grace_seconds=0,
        repair="all", max_share=100,
    )  # fmt: skip
    assert done.counts("notes") == {"stale": 1, "missing": 1, "extra": 2}
    with psycopg.connect(target_dsn) as connection:
        assert sorted(map(list, connection.execute("SELECT * FROM notes"))) == sorted(stated)
    billed = sum(c["billed_reads"] for c in done.report["collections"])
    assert billed < 40 + 40, "more would be all documents of one kind, for one difference"


def _code(path: str) -> str:
    return path.replace("/", "-")


@pytest.mark.parametrize("key", ["with the id", "beside the id", "made of the path"])
def test_a_row_whose_path_has_another_key_now_is_extra(key, firestore, emulator, target_dsn):
    """As after the key's field was edited, or from before the key was made otherwise: the document is there, and the row isn't its
    own. It is told until it goes, and is never taken for the document's row, which matches."""
    team, id_, text = (
        Column("team", "key" if key != "made of the path" else "compared", Segment("team")),
        Column("id", "key" if key == "with the id" else "compared", DocumentId()),
        Column("text", "compared", Field("text")),
    )
    own = (
        Column("code", "key", DocumentPath() >> Conversion("code", _code, "text"))
        if key == "made of the path"
        else Column("code", "key", Field("code"))
    )
    catalog = Catalog((Collection("notes", "notes", ("teams/{team}/notes/{note}",), (team, id_, own, text)),))
    paths = [f"teams/t1/notes/n{n}" for n in range(4)]
    put(firestore, {path: {"code": _code(path), "text": "t"} for path in paths})
    names = ", ".join(c.name for c in catalog["notes"].key)
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE notes (team text NOT NULL, id text NOT NULL, code text NOT NULL, text text, PRIMARY KEY ({names}))"
        )
        rows = [("t1", f"n{n}", _code(path), "t") for n, path in enumerate(paths)]
        connection.cursor().executemany("INSERT INTO notes VALUES (%s, %s, %s, %s)", [*rows, ("t1", "n0", "old", "t")])

    def run(repair: str):
        return reconciled(
            firestore.project, emulator, target_dsn, catalog=catalog, collections=["notes"], scope="sweep", grace_seconds=0,
            repair=repair, max_share=100,
        )  # fmt: skip

    for repair in ("off", "off", "missing_and_stale", "all"):
        assert run(repair).counts("notes") == {"extra": 1}, repair
    assert one(target_dsn, "SELECT array_agg(id ORDER BY id) FROM notes WHERE code <> 'old'") == [
        "n0",
        "n1",
        "n2",
        "n3",
    ]
    assert run("off").counts("notes") == {}
    assert one(target_dsn, "SELECT count(*) FROM notes") == 4


@pytest.mark.parametrize("entries", [False, True])
def test_a_row_left_at_a_path_holds_a_unique_key_as_an_extra_one(entries, firestore, emulator, target_dsn):
    """The document has another key, or the entry is gone from it: it doesn't explain that another document lacks its row."""
    part = EntryField if entries else Field
    columns = (
        Column("id", "key" if entries else "compared", DocumentId()),
        Column("code", "key", part("code")),
        Column("handle", "compared", part("handle")),
    )
    notes = Collection(
        "notes", "notes", ("notes/{note}",), columns, unique=(("handle",),), entries=ArrayElements("parts") if entries else None
    )  # fmt: skip
    stated = {"a": {"code": "new", "handle": "its own"}, "b": {"code": "b", "handle": "wanted"}}
    put(firestore, {f"notes/{n}": {"parts": [fields]} if entries else fields for n, fields in stated.items()})
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE notes (id text NOT NULL, code text NOT NULL, handle text UNIQUE, PRIMARY KEY "
            + ("(id, code))" if entries else "(code))")
        )
        connection.execute("INSERT INTO notes VALUES ('a', 'new', 'its own'), ('a', 'old', 'wanted')")

    def run(repair: str):
        return reconciled(
            firestore.project, emulator, target_dsn, catalog=Catalog((notes,)), collections=["notes"], scope="sweep",
            grace_seconds=0, repair=repair, max_share=100,
        )  # fmt: skip

    found = run("off")
    assert found.counts("notes") == {"extra": 1, "missing": 1}
    assert found.sample("notes", "missing")["reason"] == "unique_key_held_by_extra_row"
    run("all")
    assert one(target_dsn, "SELECT array_agg(handle ORDER BY handle) FROM notes") == ["its own", "wanted"]
