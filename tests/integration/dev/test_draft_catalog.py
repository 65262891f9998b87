"""Another app: its catalog drafted from its own two databases, finished by hand, and taken through all that the DAGs do."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest

from dev import airflow_home, draft_catalog, seed
from dev.draft_catalog import draft, sample, set_by
from dev.draft_shapes import likeness, words
from dev.draft_text import load
from dev.processes import Missing
from dualwrite.catalog import CATALOG
from dualwrite.engine.preflight import target_faults
from dualwrite.model.declaration import DocumentId, EntryKey, Field, MapEntries, ParentId, Segment
from dualwrite.runs import backfill
from tests import world2
from tests.draft_worlds import WORLDS
from tests.support import gap_run, nonzero, one, reconciled
from tests.unit.test_draft_names import unmarked


@pytest.fixture
def shop(firestore, empty_dsn) -> str:
    """The second world, and the bundle's own schema beside it."""
    world2.load(firestore, empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        for file in sorted((airflow_home.ROOT / "sql/migrations").glob("*.sql")):
            connection.execute(file.read_text())
    return empty_dsn


def _draft(firestore, dsn: str, schema: str) -> str:
    with psycopg.connect(dsn) as connection:
        return draft(firestore, connection, schema)


def test_a_draft_finds_the_whole_shop_and_says_what_it_guessed(firestore, shop):
    """Tables, keys, parents and entries."""
    text = _draft(firestore, shop, "shop")
    catalog = load(text)
    assert set(catalog.names) == {"stores", "customers", "customer_store_roles", "orders", "order_lines", "coupons"}
    assert catalog["order_lines"].paths == ("customers/{customer}/orders/{order}/lines/{line}",)
    assert catalog["order_lines"].column("order_id").origin == Segment("order")
    assert catalog["order_lines"].column("order_id").references == "orders"
    assert catalog["orders"].column("store_id").origin == Field("storeId")
    assert catalog["customer_store_roles"].entries == MapEntries("storeRoles")
    assert catalog["customer_store_roles"].column("store_id").origin == EntryKey()
    assert [c.name for c in catalog["customer_store_roles"].key] == ["customer_id", "store_id"]
    assert catalog["coupons"].column("code").origin == DocumentId()
    assert catalog["customers"].column("city").origin == Field("address.city")
    assert catalog["orders"].check_fields == ("changedAt", "placedAt")
    assert "No collection looks like table shop.audit" in text
    assert "No table looks like customers/{customer}/searches/{search}" in text
    assert text.count("GUESS") > 10


def test_a_draft_holds_no_content(firestore, shop):
    text = _draft(firestore, shop, "shop")
    for document in world2.documents().values():
        for value in document.values():
            if isinstance(value, str) and len(value) > 5:
                assert value not in text
    assert "Seoul" not in text
    assert "buyer" not in text


def test_the_draft_serves_backfill_reconciliation_and_repair(firestore, emulator, shop):
    catalog = load(_draft(firestore, shop, "shop"))
    everything = {
        "catalog": catalog,
        "collections": list(catalog.names),
        "since": world2.EXPORTED.isoformat(),
        "scope": "all",
    }
    with gap_run(firestore.project, emulator, shop, **everything, mode="dry_run") as run:
        backfill.preflight(run, by="a test")
        dry = {name: backfill.examine(run, name, dry=True) for name in run.params.names}
    with gap_run(firestore.project, emulator, shop, **everything) as run:
        backfill.preflight(run, by="a test")
        wrote = {name: backfill.examine(run, name, dry=False) for name in run.params.names}
        checked = {name: backfill.verify(run, name, counts_only=False) for name in run.params.names}
    assert {n: r["counts"] for n, r in dry.items()} == {n: r["counts"] for n, r in wrote.items()}
    assert wrote["orders"]["inserted"] == 12
    assert wrote["order_lines"]["inserted"] == 24
    assert wrote["customer_store_roles"]["inserted"] == 4
    assert {name: c["verification"] for name, c in checked.items()} == dict.fromkeys(catalog.names, "verified")
    assert {v for c in checked.values() for v in nonzero(c["counts"])} == {"matching"}

    with psycopg.connect(shop) as connection:
        connection.execute("DELETE FROM shop.order_lines WHERE id = 'l000'")
        connection.execute("UPDATE shop.orders SET status = 'lost' WHERE id = 'o00'")
        connection.execute("INSERT INTO shop.coupons (customer_id, code) VALUES ('c0', 'GONE')")
    options = {"catalog": catalog, "collections": list(catalog.names), "scope": "sweep", "max_share": 100}
    found = reconciled(firestore.project, emulator, shop, **options)
    assert found.counts("order_lines") == {"missing": 1}
    assert found.counts("orders") == {"stale": 1}
    assert found.counts("coupons") == {"extra": 1}
    mended = reconciled(firestore.project, emulator, shop, **options, repair="all")
    assert mended.alerts == []
    assert one(shop, "SELECT status FROM shop.orders WHERE id = 'o00'") == "paid"
    assert one(shop, "SELECT count(*) FROM shop.coupons WHERE code = 'GONE'") == 0


def test_of_this_apps_own_world_most_is_guessed_right(firestore, target_dsn):
    """How good the guesses are, on a catalog that people finished: a floor, so that a change for the worse is seen."""
    world = seed.small()
    world.load_source(firestore)
    found = load(_draft(firestore, target_dsn, "public"))
    right = wrong = 0
    for collection in CATALOG:
        if collection.name not in found.names:
            continue
        drafted = {c.name: c for c in found[collection.name].columns}
        fields = {f for d, doc in world.documents.items() if collection.match(d) is not None for f in doc}
        for column in collection.columns:
            if isinstance(column.origin, Field) and column.origin.path.split(".")[0] not in fields:
                continue  # no document of this small world has it
            same = column.name in drafted and _origin(drafted[column.name]) == _origin(column)
            right, wrong = right + same, wrong + (not same)
    assert set(CATALOG.names) - set(found.names) <= {"blocks"}, "its collection is called blockedUsers"
    assert right / (right + wrong) > 0.85, f"{right} right, {wrong} wrong"


def _origin(column) -> object:
    """Where a value comes from, without what stands in for an absent one."""
    return column.origin.path if isinstance(column.origin, Field) else column.origin


def test_several_kinds_of_parent_and_names_without_a_foreign_key(firestore, target_dsn):
    seed.small().load_source(firestore)
    found = load(_draft(firestore, target_dsn, "public"))
    assert found["reactions"].column("comment_id").origin == ParentId("comments")
    assert found["reactions"].column("reply_id").origin == ParentId("replies")
    assert found["replies"].column("post_id").origin == Segment("post")
    assert found["user_board_permissions"].entries == MapEntries("boardPermissions")


def test_names_are_compared_by_their_singular_words():
    assert words("waitingUsersIds") == words("waiting_user") == ("waiting", "user")
    assert words("searches") == ("search",)
    assert likeness("order_lines", "orders_lines") == 1
    assert likeness("orders", "customers") == 0


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_another_apps_draft_imports_and_names_what_it_lacks(firestore, empty_dsn, tmp_path, world):
    """Both drafts of two apps failed at import, and said little of what there was to find."""
    with psycopg.connect(empty_dsn) as connection:
        connection.execute(world.schema)
    for path, fields in world.documents(firestore).items():
        firestore.document(path).set(fields)
    text = _draft(firestore, empty_dsn, world.schemas)
    (tmp_path / "draft.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(airflow_home.ROOT / "dags")}
    subprocess.run([sys.executable, str(tmp_path / "draft.py")], check=True, env=environment, timeout=60)
    catalog = load(text)
    for name, paths in world.paths.items():
        assert catalog[name].paths == paths
    lines = {line.split("),  #")[0].strip().removesuffix(",") + ("" if line.rstrip().endswith("),") else ")")
             for line in text.splitlines() if line.lstrip().startswith("Column(")}  # fmt: skip
    for name, declaration in world.columns.items():
        assert declaration in lines, f"{name}:\n{text}"
    for told in world.comments:
        assert told in text, f"{told}\n{text}"
    assert "Secret" not in text
    assert unmarked(text) == []
    with psycopg.connect(empty_dsn) as connection:
        faults = target_faults(connection, catalog, list(catalog), writes=False)
    assert all(f"# - {fault}" in text for fault in faults)


@pytest.mark.parametrize("world", WORLDS[2:], ids=lambda world: world.name)
def test_a_draft_of_another_app_is_written_and_verified(firestore, emulator, empty_dsn, world):
    """A guess that is wrong is seen here: rows that can't be written, or documents that are rejected."""
    with psycopg.connect(empty_dsn) as connection:
        connection.execute(world.schema)
        for file in sorted((airflow_home.ROOT / "sql/migrations").glob("*.sql")):
            connection.execute(file.read_text())
    for path, fields in world.documents(firestore).items():
        firestore.document(path).set(fields)
    catalog = load(_draft(firestore, empty_dsn, world.schemas))
    everything = {
        "catalog": catalog,
        "collections": list(catalog.names),
        "since": world2.EXPORTED.isoformat(),
        "scope": "all",
    }
    with gap_run(firestore.project, emulator, empty_dsn, **everything) as run:
        backfill.preflight(run, by="a test")
        for name in run.params.names:
            backfill.examine(run, name, dry=False)
        checked = {name: backfill.verify(run, name, counts_only=False) for name in run.params.names}
    assert {name: nonzero(c["counts"]) for name, c in checked.items()} == {
        name: {"matching": c["examined"]} for name, c in checked.items()
    }
    assert all(c["examined"] >= 4 for c in checked.values())
    assert not {c.table for c in catalog} & world.refused


def test_what_a_trigger_sets_is_read_from_its_function():
    source = """BEGIN -- NEW.no := 1
      IF NEW.status = OLD.status THEN NEW."Odd name" := now(); END IF;
      NEW.updated_at = now(); SELECT 1 INTO NEW.n FROM t; RETURN NEW; END"""
    assert set_by("touch", source, "") == ["Odd name", "updated_at", "n"]
    assert set_by("moddatetime", "moddatetime", "changed\\000") == ["changed"]


CHAT = """
CREATE SCHEMA chat; CREATE SCHEMA billing;
CREATE TABLE chat.users (
  id uuid PRIMARY KEY, handle text NOT NULL, avatar bytea, nickname text, parent_id uuid REFERENCES chat.users ON DELETE SET NULL
);
CREATE TABLE chat.user_profiles (user_id text PRIMARY KEY, bio text, locale text);
CREATE TABLE chat.rooms (id text PRIMARY KEY, title text NOT NULL);
CREATE TABLE chat.events (id text PRIMARY KEY, room_id text NOT NULL REFERENCES chat.rooms, what text, photo bytea, note text);
CREATE TABLE billing.events (id text PRIMARY KEY, room_id text NOT NULL REFERENCES chat.rooms, amount integer NOT NULL, currency text);
"""


def test_a_draft_takes_several_schemas_and_keeps_what_it_knows(firestore, empty_dsn):
    """Two tables of one name; documents of fixed ids below each person; a key of another form than the ids; bytes, and nulls alone."""
    for n in range(3):
        batch = firestore.batch()
        for path, fields in {
            f"users/p{n}": {"handle": f"h{n}", "avatar": b"x", "nickname": None},
            f"users/p{n}/private/profile": {"bio": "b", "locale": "de"},
            f"users/p{n}/private/card": {"number": "1", "brand": "b", "expires": "soon"},
            f"rooms/r{n}": {"title": "t"},
            f"rooms/r{n}/events/e{n}": {"what": "w", "photo": b"x", "note": None},
            f"charges/c{n}": {"room": firestore.document("rooms/r0"), "amount": 5, "currency": "eur"},
        }.items():
            batch.set(firestore.document(path), fields)
        batch.commit()
    with psycopg.connect(empty_dsn) as connection:
        connection.execute(CHAT)
    text = _draft(firestore, empty_dsn, "chat, billing")
    catalog = load(text)
    assert set(catalog.names) == {"user_profiles", "rooms", "chat_events", "billing_events"}
    assert catalog["billing_events"].table == "billing.events"
    assert catalog["billing_events"].column("room_id").references == "rooms"
    assert catalog["user_profiles"].paths == ("users/{user}/private/profile",)
    assert catalog["user_profiles"].column("user_id").origin == Segment("user")
    assert "Column('photo', 'compared', Field('photo') >> hexadecimal)" in text
    assert "Column('note', 'compared', Field('note')),  # GUESS from its name; it is null in all sampled" in text
    assert "TODO chat.users can't be declared: its key column 'id' isn't known" in text
    assert "# id (uuid): TODO 3 of 3 sampled ids are no uuid: if it is made of the id" in text
    assert "#         Column('handle', 'compared', Field('handle'), required=True)" in text
    with pytest.raises(Missing, match=r"SCHEMA names 'chatt'. Those with tables are billing, chat"):
        _draft(firestore, empty_dsn, "chat,chatt")


CLUB = """
CREATE TABLE users (id text PRIMARY KEY, name text NOT NULL);
CREATE TABLE followers (user_id text REFERENCES users, follower_id text REFERENCES users, PRIMARY KEY (user_id, follower_id));
CREATE TABLE rooms (id text PRIMARY KEY, title text NOT NULL);
CREATE TABLE room_admins (room_id text REFERENCES rooms, user_id text REFERENCES users, since text, PRIMARY KEY (room_id, user_id));
"""


def test_a_draft_of_one_admin_and_of_references_serves(firestore, emulator, empty_dsn):
    """The same admin in each room, and an array of references: rows of two keys each."""
    batch = firestore.batch()
    for id_ in ("alice", "bob"):
        others = [firestore.document(f"users/{other}") for other in ("alice", "bob") if other != id_]
        batch.set(firestore.document(f"users/{id_}"), {"name": "n", "followers": others})
    for n in range(4):
        batch.set(firestore.document(f"rooms/r{n}"), {"title": "t"})
        batch.set(firestore.document(f"rooms/r{n}/admins/alice"), {"since": "s"})
    batch.commit()
    with psycopg.connect(empty_dsn) as connection:
        connection.execute(CLUB)
        for file in sorted((airflow_home.ROOT / "sql/migrations").glob("*.sql")):
            connection.execute(file.read_text())
    text = _draft(firestore, empty_dsn, "public")
    assert "alice" not in text
    catalog = load(text)
    assert catalog["room_admins"].paths == ("rooms/{room}/admins/{admin}",)
    options = {"catalog": catalog, "collections": list(catalog.names), "scope": "sweep", "max_share": 100}
    assert reconciled(firestore.project, emulator, empty_dsn, **options, repair="all").alerts == []
    counts = {name: one(empty_dsn, f"SELECT count(*) FROM {name}") for name in catalog.names}
    assert counts == {"users": 2, "followers": 2, "rooms": 4, "room_admins": 4}


def test_what_sampling_reads_of_a_path_is_bounded_at_any_depth(firestore):
    """Names of 50 documents below each of 50, below each of 50, were read."""
    batch = firestore.batch()
    for a in range(8):
        for b in range(8):
            for c in range(4):
                batch.set(firestore.document(f"a/{a}/b/{b}/c/{c}"), {"x": 1})  # neither a nor b exists
    batch.commit()
    found = sample(firestore, 7)
    assert {s.path: s.sampled for s in found.shapes} == {"a/{a}": 0, "a/{a}/b/{b}": 0, "a/{a}/b/{b}/c/{c}": 7}
    assert found.reads <= 1 + 3 * 4 * 7
    assert found.left == 0


def test_a_sample_shows_what_lies_below_several_parents(firestore):
    """The first parent's documents were all that was sampled of a path."""
    for parent in "abc":
        for n in range(20):
            firestore.document(f"rooms/{parent}/messages/{parent}{n}").set({"x": 1})
    [_, messages] = sample(firestore, 30).shapes
    assert {told.ids[0] for told in messages.documents} == {"a", "b", "c"}
    assert messages.sampled == 30


def test_collections_called_by_ids_are_not_all_looked_at(firestore, empty_dsn, monkeypatch):
    monkeypatch.setattr(draft_catalog, "MOST_PATHS", 5)
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("CREATE TABLE inbox (id text PRIMARY KEY)")
    for n in range(9):
        firestore.document(f"inbox/u{n}/from{n}/m").set({"x": 1})
    text = _draft(firestore, empty_dsn, "public")
    assert "# TODO 5 collections or more were not looked at: more than 5 paths" in text
    assert "documents, names and lists of collections; a path takes 200 at most." in text
