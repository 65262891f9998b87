"""Keys that are made of a path and don't lead back to it: a uuid v5, an id in lower case. All names are read instead."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from dualwrite.model.conversions import Conversion, lower
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, DocumentPath, Field
from dualwrite.model.errors import CatalogError
from dualwrite.runs import backfill
from tests.refusals import coded
from tests.support import apply, dry_run, gap_run, nonzero, one, reconciled, verify_all


def _uuid(path: str) -> str:
    if "!" in path:
        raise ValueError
    return str(uuid.uuid5(uuid.NAMESPACE_URL, path))


path_uuid = Conversion("path_uuid", _uuid, "text")
person_uuid = Conversion("person_uuid", lambda name: _uuid(f"people/{name}"), "text")
PEOPLE = Collection(
    name="people", table="people", paths=("people/{person}",), selected=True,
    columns=(Column("id", "key", DocumentPath() >> path_uuid), Column("name", "compared", Field("name"))),
)  # fmt: skip
NOTES = Collection(
    name="notes", table="notes", paths=("people/{person}/notes/{note}",), selected=True,
    columns=(
        Column("slug", "key", DocumentId() >> lower),
        Column("person_id", "compared", Field("by") >> person_uuid, references="people"),
        Column("text", "compared", Field("text")),
    ),
)  # fmt: skip
CATALOG = Catalog((PEOPLE, NOTES))
SCHEMA = """
CREATE TABLE people (id uuid PRIMARY KEY, name text);
CREATE TABLE notes (slug text PRIMARY KEY, person_id uuid REFERENCES people ON DELETE CASCADE, text text);
"""
EVERYTHING: dict[str, Any] = {"collections": list(CATALOG.names), "scope": "all", "catalog": CATALOG}


@pytest.fixture
def app(firestore, target_dsn):
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(SCHEMA)
    for name in ("u1", "u2", "bad!"):
        firestore.document(f"people/{name}").set({"name": name})
    for path in ("people/u1/notes/A", "people/u2/notes/B"):
        firestore.document(path).set({"by": "u2", "text": path})
    return firestore


def _counts(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    return {name: nonzero(part["counts"]) for name, part in found.items()}


def _run(client, emulator: str, dsn: str, **changes: Any):
    return reconciled(
        client.project, emulator, dsn, catalog=CATALOG, collections=list(CATALOG.names), max_share=100, **changes
    )


def _execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def test_keys_made_of_paths_are_written_and_verified(app, emulator, target_dsn):
    """What can't be converted is rejected by itself; a dry run, an apply and a verification agree."""
    missing = {"people": {"rejected": 1, "missing": 2}, "notes": {"missing": 2}}
    assert _counts(dry_run(app.project, emulator, target_dsn, **EVERYTHING)) == missing
    assert _counts(apply(app.project, emulator, target_dsn, **EVERYTHING)) == missing
    assert one(
        target_dsn, "SELECT array_agg(slug || name ORDER BY slug) FROM notes JOIN people p ON p.id = person_id"
    ) == ["au2", "bu2"]
    with gap_run(app.project, emulator, target_dsn, **EVERYTHING) as run:
        assert _counts(verify_all(run)) == {"people": {"rejected": 1, "matching": 2}, "notes": {"matching": 2}}


def test_a_child_brings_the_parent_whose_id_it_names(app, emulator, target_dsn):
    """Its own column holds a uuid, which says nothing; the document's value does."""
    with gap_run(app.project, emulator, target_dsn, **{**EVERYTHING, "collections": ["notes"]}) as run:
        found = backfill.examine(run, "notes", dry=False)
    assert (nonzero(found["counts"]), found["parents_inserted"]) == ({"missing": 2}, 1)


def test_a_row_whose_document_is_gone_goes_after_all_names(app, emulator, target_dsn):
    apply(app.project, emulator, target_dsn, **EVERYTHING)
    app.document("people/bad!").delete()
    app.document("people/u1").delete()
    app.document("people/u2/notes/B").delete()
    _execute(target_dsn, "UPDATE notes SET text = 'lost edit' WHERE slug = 'a'")
    found = _run(app, emulator, target_dsn, scope="sweep")
    assert {n: found.counts(n) for n in CATALOG.names} == {"people": {"extra": 1}, "notes": {"extra": 1, "stale": 1}}
    assert _run(app, emulator, target_dsn, repair="all").alerts == []
    assert one(target_dsn, "SELECT array_agg(name) FROM people") == ["u2"]
    assert one(target_dsn, "SELECT array_agg(text) FROM notes") == ["people/u1/notes/A"]
    assert one(target_dsn, "SELECT count(*) FROM dualwrite.repair_journal WHERE confirmed_at IS NULL") == 0


def test_without_a_proof_a_row_stays(app, emulator, target_dsn):
    """More names than may be read: told, and never deleted."""
    apply(app.project, emulator, target_dsn, **EVERYTHING)
    app.document("people/u1").delete()
    found = _run(app, emulator, target_dsn, scope="sweep", repair="all", max_proof_reads=1)
    assert found.sample("people", "extra")["reason"] == "absence_not_proved"
    assert one(target_dsn, "SELECT count(*) FROM people") == 2


def test_a_document_created_between_two_looks_is_not_extra(app, emulator, target_dsn):
    """Its row came first; no path can be read, so the names are."""
    apply(app.project, emulator, target_dsn, **EVERYTHING)
    app.document("people/bad!").delete()
    _execute(target_dsn, f"INSERT INTO people VALUES ('{_uuid('people/late')}', 'late')")
    found = _run(
        app, emulator, target_dsn, scope="sweep", between=lambda: app.document("people/late").set({"name": "late"})
    )
    assert found.counts("people") == {}
    assert found.alerts == []


def test_a_key_of_a_converted_field_is_refused():
    with pytest.raises(CatalogError, check=coded("key-not-traceable")):
        Collection(name="x", table="x", paths=("x/{x}",), columns=(Column("id", "key", Field("a") >> lower),))


def test_a_plain_id_cant_reference_what_an_id_became():
    child = Collection(
        name="x", table="x", paths=("x/{x}",),
        columns=(Column("id", "key", DocumentId()), Column("person", "compared", Field("by"), references="people")),
    )  # fmt: skip
    with pytest.raises(CatalogError, check=coded("reference-not-reachable")):
        Catalog((PEOPLE, child))
