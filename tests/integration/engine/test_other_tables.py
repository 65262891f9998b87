"""Other people's tables: whatever constraints, triggers and defaults they have, one row never costs its collection, each
refusal names its constraint, a dry run says what an apply then does, and a look changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from dualwrite import postgres
from dualwrite.engine import preflight
from dualwrite.model.declaration import Catalog, Collection, Column, CreateTime, DocumentId, Field
from dualwrite.model.run_report import CollectionResult
from tests.databases import clone
from tests.kept import looking
from tests.support import apply, dry_run, gap_run, nonzero, reconciled, verify_all

PEOPLE = Collection(
    name="people",
    table="app.people",
    paths=("people/{id}",),
    columns=(
        Column("id", "key", DocumentId()),
        Column("email", "compared", Field("email")),
        Column("team", "compared", Field("team")),
        Column("boss", "compared", Field("boss")),
        Column("score", "derived", Field("score"), "integer", required=True, absent=0),
    ),
)
CATALOG = Catalog((PEOPLE,))

TABLES = """
CREATE SCHEMA app;
CREATE TABLE app.teams (id text PRIMARY KEY);
CREATE TABLE app.people (
  id text PRIMARY KEY, email text, team text, boss text, score integer NOT NULL DEFAULT 0,
  number bigserial, since timestamptz NOT NULL DEFAULT now()
);
INSERT INTO app.teams VALUES ('a');
"""


@dataclass
class World:
    """People in Firestore, and a table for them that may be any other app's."""

    firestore: Any
    emulator: str
    dsn: str
    catalog: Catalog = CATALOG

    def sql(self, *statements: str) -> None:
        with looking(self.dsn) as connection:
            for statement in statements:
                connection.execute(statement)

    def rows(self, query: str) -> list[tuple]:
        with looking(self.dsn) as connection:
            return connection.execute(query).fetchall()

    def put(self, **people: dict[str, Any]) -> None:
        batch = self.firestore.batch()
        for name, fields in people.items():
            batch.set(self.firestore.document(f"people/{name}"), fields)
        batch.commit()

    @property
    def given(self) -> dict[str, Any]:
        return {"catalog": self.catalog, "scope": "all", "collections": list(self.catalog.names), "grace_seconds": 0}

    def dry(self, **changes: Any) -> CollectionResult:
        return dry_run(self.firestore.project, self.emulator, self.dsn, **self.given, **changes)["people"]

    def apply(self, **changes: Any) -> CollectionResult:
        return apply(self.firestore.project, self.emulator, self.dsn, **self.given, **changes)["people"]

    def verify(self) -> CollectionResult:
        with gap_run(self.firestore.project, self.emulator, self.dsn, **self.given) as run:
            return verify_all(run, ["people"])["people"]

    def reconciled(self, **changes: Any) -> Any:
        given = {"catalog": self.catalog, "collections": ["people"], "scope": "sweep", "write_ops_required": False}
        return reconciled(self.firestore.project, self.emulator, self.dsn, **given, max_share=100, **changes)

    def all_agree(self, counts: dict[str, int], reason: str | None = None, **changes: Any) -> CollectionResult:
        """A dry run, an apply and a verification, which refuse the same for the same reason; returns the apply's report."""
        said, did, left = self.dry(**changes), self.apply(**changes), self.verify()
        assert nonzero(did["counts"]) == counts
        assert nonzero(said["counts"]) == counts
        assert nonzero(left["counts"]).get("rejected") == counts.get("rejected")
        if reason is not None:
            for report in (said, did, left):
                assert {s["reason"] for s in report["samples"]["rejected"]} == {reason}, report["phase"]
        return did


@pytest.fixture(params=["postgres_server", "postgres15_server"], ids=["18", "15"])
def world(request, firestore, emulator) -> Iterator[World]:
    with closing(clone(request.getfixturevalue(request.param), "migrated")) as cloned:
        made = World(firestore, emulator, next(cloned))
        made.sql(TABLES)
        yield made


def trigger(name: str, body: str, when: str = "BEFORE INSERT OR UPDATE") -> list[str]:
    """A trigger for each row of people."""
    return [
        f"CREATE FUNCTION app.{name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body} END$$",
        f"CREATE TRIGGER {name} {when} ON app.people FOR EACH ROW EXECUTE FUNCTION app.{name}()",
    ]


def crowd(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Ten people, each with an address of their own; some of them changed."""
    return {name: {"email": f"{name}@x.org", **changes.get(name, {})} for name in (f"p{i}" for i in range(10))}


# --- whose fault an error is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["PT409", "PGRST", "U0001", "42501", "0A000", "XX000", "55000"])
def test_a_trigger_may_refuse_a_row_with_any_sqlstate(world, state):
    """PostgREST's triggers raise PT409 and PGRST: no list of classes says whose fault an error is."""
    raise_it = f"IF NEW.email = 'bad' THEN RAISE SQLSTATE '{state}' USING MESSAGE = NEW.email; END IF; RETURN NEW;"
    world.sql(*trigger("refuse", raise_it))
    world.put(**crowd(p3={"email": "bad"}))
    did = world.apply()
    assert nonzero(did["counts"]) == {"missing": 9, "rejected": 1}
    assert did["inserted"] == 9
    [sample] = did["samples"]["rejected"]
    assert sample["key"] == "p3"
    assert state in sample["reason"]
    world.put(p3={"email": "good"}, p4={"email": "bad"})
    did = world.apply()
    assert (did["inserted"], did["updated"], nonzero(did["counts"])) == (
        1,
        0,
        {"missing": 1, "rejected": 1, "matching": 8},
    )


def test_a_single_row_that_its_table_refuses_is_the_rows_fault(world):
    """In a small window one document is all there is: alone it says nothing of the table."""
    world.sql(*trigger("refuse", "RAISE SQLSTATE 'U0001';"))
    world.put(p1={"email": "x"})
    assert nonzero(world.apply()["counts"]) == {"rejected": 1}


@pytest.mark.parametrize("fault", ["grant", "statement trigger", "column"])
def test_what_fails_over_no_rows_too_is_the_tables_fault(world, fault):
    world.put(**crowd())
    role = "dualwrite_none"
    if fault == "grant":
        world.sql(f"CREATE ROLE {role} LOGIN", f"GRANT USAGE ON SCHEMA app, dualwrite TO {role}",
                  f"GRANT SELECT ON app.people TO {role}", f"GRANT ALL ON ALL TABLES IN SCHEMA dualwrite TO {role}")  # fmt: skip
        dsn = world.dsn.replace("postgres@", f"{role}@")
    else:
        dsn = world.dsn
        world.sql(
            "CREATE FUNCTION app.no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE SQLSTATE 'U0001'; END$$",
            "CREATE TRIGGER no BEFORE INSERT ON app.people EXECUTE FUNCTION app.no()",
        )
        if fault == "column":
            world.sql("DROP TRIGGER no ON app.people", "ALTER TABLE app.people DROP COLUMN email")
    try:
        with pytest.raises(psycopg.Error) as raised:
            apply(world.firestore.project, world.emulator, dsn, **world.given)
        assert raised.value.sqlstate == {"grant": "42501", "column": "42703"}.get(fault, "U0001")
    finally:
        if fault == "grant":
            world.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert world.rows("SELECT count(*) FROM app.people") == [(0,)] if fault != "column" else True


def test_a_policy_that_refuses_a_row_is_the_rows_fault(world):
    """Row-level security refuses with the condition of a missing grant, 42501."""
    role = "dualwrite_plain"
    world.sql(f"CREATE ROLE {role} LOGIN", f"GRANT USAGE ON SCHEMA app, dualwrite TO {role}",
              f"GRANT ALL ON ALL TABLES IN SCHEMA app, dualwrite TO {role}", f"GRANT ALL ON ALL SEQUENCES IN SCHEMA app TO {role}",
              "ALTER TABLE app.people ENABLE ROW LEVEL SECURITY",
              f"CREATE POLICY p ON app.people TO {role} USING (true) WITH CHECK (team IS DISTINCT FROM 'closed')")  # fmt: skip
    try:
        world.put(**crowd(p3={"team": "closed"}))
        plain = World(world.firestore, world.emulator, world.dsn.replace("postgres@", f"{role}@"))
        did = plain.apply()
        assert nonzero(did["counts"]) == {"missing": 9, "rejected": 1}
        assert did["samples"]["rejected"][0]["reason"] == "InsufficientPrivilege 42501"
    finally:
        world.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


# --- constraints ------------------------------------------------------------------------------------------------------

UNKNOWN = {
    "unique": ("ADD CONSTRAINT theirs UNIQUE (email)", "UniqueViolation 23505"),
    "unique, deferred": ("ADD CONSTRAINT theirs UNIQUE (email) DEFERRABLE INITIALLY DEFERRED", "UniqueViolation 23505"),
    "unique, deferrable": ("ADD CONSTRAINT theirs UNIQUE (email) DEFERRABLE", "UniqueViolation 23505"),
    "unique with nulls": ("ADD CONSTRAINT theirs UNIQUE NULLS NOT DISTINCT (email)", "UniqueViolation 23505"),
    "exclusion": ("ADD CONSTRAINT theirs EXCLUDE USING btree (email WITH =)", "ExclusionViolation 23P01"),
    "expression": (None, "UniqueViolation 23505"),
    "partial": (None, "UniqueViolation 23505"),
}
INDEXES = {
    "expression": "CREATE UNIQUE INDEX theirs ON app.people (lower(email))",
    "partial": "CREATE UNIQUE INDEX theirs ON app.people (email, (score + 1)) WHERE email LIKE '%@%'",
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_unique_key_that_the_catalog_does_not_know_is_named(world, kind):
    """ON CONFLICT DO NOTHING left such rows out in silence: in flight, then missing without a reason, for ever."""
    change, condition = UNKNOWN[kind]
    world.sql(f"ALTER TABLE app.people {change}" if change else INDEXES[kind])
    same = "P1@x.org" if kind == "expression" else "p1@x.org"
    world.sql("INSERT INTO app.people (id, email) VALUES ('p9', 'p9@x.org')")
    taken = "P9@X.org" if kind == "expression" else "p9@x.org"
    world.put(**crowd(p5={"email": same}, p7={"email": taken}))
    world.all_agree({"missing": 7, "rejected": 2, "matching": 1}, f"{condition} (constraint theirs)")
    found = world.verify()
    assert nonzero(found["counts"]) == {"matching": 8, "rejected": 2}
    assert {s["reason"] for s in found["samples"]["rejected"]} <= {f"{condition} (constraint theirs)"}


def test_an_unknown_unique_key_is_named_across_pages_too(world):
    world.sql("CREATE UNIQUE INDEX theirs ON app.people (lower(email))")
    world.put(**crowd(p9={"email": "P0@X.ORG"}))
    world.all_agree({"missing": 9, "rejected": 1}, "UniqueViolation 23505 (constraint theirs)", page_size=2)


def test_an_update_into_an_unknown_unique_key_is_named(world):
    world.sql("CREATE UNIQUE INDEX theirs ON app.people (lower(email))")
    world.put(**crowd())
    world.apply()
    world.put(**crowd(p9={"email": "P0@X.ORG"}))
    world.all_agree({"matching": 9, "rejected": 1}, "UniqueViolation 23505 (constraint theirs)")


@pytest.mark.parametrize("kind", ["unique, deferrable", "exclusion", "expression"])
def test_a_place_that_an_update_frees_is_taken_after_the_rest(world, kind):
    """The row that moves in sorts before the one that moves out, on the same page and on another."""
    change, _ = UNKNOWN[kind]
    world.sql(f"ALTER TABLE app.people {change}" if change else INDEXES[kind])
    world.put(p2={"email": "p2@x.org"}, p3={"email": "p3@x.org"})
    world.apply()
    for page_size in (1, 10):
        world.put(
            **{f"p0{page_size}": {"email": "p2@x.org"}},
            p2={"email": "p3@x.org"},
            p3={"email": f"free{page_size}@x.org"},
        )
        said, did = world.dry(page_size=page_size), world.apply(page_size=page_size)
        assert nonzero(said["counts"]) == nonzero(did["counts"])
        assert nonzero(did["counts"]).keys() <= {"missing", "stale", "matching"}
        assert nonzero(world.verify()["counts"]).keys() == {"matching"}
        world.sql("DELETE FROM app.people WHERE id = 'p01'")
        world.put(p01={"email": "elsewhere@x.org"}, p2={"email": "p2@x.org"}, p3={"email": "p3@x.org"})
        world.apply()


DEFERRED = "DEFERRABLE INITIALLY DEFERRED"


@pytest.mark.parametrize("deferred", ["", DEFERRED], ids=["at once", "deferred"])
def test_a_foreign_key_that_the_catalog_does_not_know_is_named(world, deferred):
    """Django's are deferred to the COMMIT, which then refused the page and named no row."""
    world.sql(f"ALTER TABLE app.people ADD CONSTRAINT theirs FOREIGN KEY (team) REFERENCES app.teams {deferred}")
    world.put(**crowd(p3={"team": "a"}, p4={"team": "nowhere"}))
    world.all_agree({"missing": 9, "rejected": 1}, "ForeignKeyViolation 23503 (constraint theirs)")
    world.put(p3={"email": "p3@x.org", "team": "nowhere"})
    world.all_agree({"matching": 8, "rejected": 2}, "ForeignKeyViolation 23503 (constraint theirs)")
    world.sql("INSERT INTO app.teams VALUES ('nowhere')")
    world.apply()
    assert nonzero(world.verify()["counts"]) == {"matching": 10}


AUTH = ["CREATE SCHEMA auth", "CREATE TABLE auth.users (id uuid PRIMARY KEY)"]
SIGNED_UP, NOT_YET = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


@pytest.mark.parametrize("role", ["key", "compared"])
def test_a_reference_out_of_the_catalog_holds_what_documents_say(world, role):
    """As `profiles.id references auth.users`, which the role doesn't see: the value is the document's, and Postgres says what is
    missing there. It is written once the user is there, and rejected again after the user was deleted with its row."""
    world.sql(*AUTH, f"INSERT INTO auth.users VALUES ('{SIGNED_UP}')", "DROP TABLE app.people")
    world.sql(
        "CREATE TABLE app.people (id text, login uuid NOT NULL CONSTRAINT theirs REFERENCES auth.users ON DELETE CASCADE, "
        f"email text, PRIMARY KEY ({'login' if role == 'key' else 'id'}))"
    )
    columns = (
        Column("id", "compared" if role == "key" else "key", DocumentId()),
        Column("login", role, Field("uid"), required=True),
        Column("email", "compared", Field("email")),
    )
    catalog = Catalog((replace(PEOPLE, columns=columns),))
    reader = "dualwrite_data_here"
    world.sql(
        f"CREATE ROLE {reader} LOGIN BYPASSRLS", f"GRANT USAGE ON SCHEMA app, dualwrite TO {reader}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON app.people TO {reader}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA dualwrite TO {reader}",
    )  # fmt: skip
    try:
        asked = World(world.firestore, world.emulator, world.dsn.replace("postgres@", f"{reader}@"), catalog)
        world.put(
            a={"uid": SIGNED_UP, "email": "a@x.org"}, b={"uid": NOT_YET, "email": "b@x.org"}, c={"uid": "no uuid"}
        )
        theirs = "ForeignKeyViolation 23503 (constraint theirs)"
        assert nonzero(asked.dry()["counts"]) == {"missing": 2, "rejected": 1}
        did = asked.apply()
        assert nonzero(did["counts"]) == {"missing": 1, "rejected": 2}
        assert theirs in {s["reason"] for s in did["samples"]["rejected"]}
        assert nonzero(asked.verify()["counts"]) == {"matching": 1, "missing": 1, "rejected": 1}, (
            "only a write can tell"
        )
        world.sql(f"GRANT USAGE ON SCHEMA auth TO {reader}", f"GRANT SELECT (id) ON auth.users TO {reader}")
        for said in (asked.dry(), asked.verify()):
            assert nonzero(said["counts"]) == {"matching": 1, "rejected": 2}, "with the column in sight, a look can too"
            assert theirs in {s["reason"] for s in said["samples"]["rejected"]}
        world.sql(f"INSERT INTO auth.users VALUES ('{NOT_YET}')")
        assert asked.apply()["inserted"] == 1
        world.sql(f"DELETE FROM auth.users WHERE id = '{SIGNED_UP}'")
        found = asked.reconciled(repair="all")
        assert found.counts("people") == {"rejected": 2}
        assert world.rows("SELECT login::text, email FROM app.people") == [(NOT_YET, "b@x.org")]
    finally:
        world.sql(f"DROP OWNED BY {reader}", f"DROP ROLE {reader}")


def test_a_deferred_constraint_trigger_refuses_a_row(world):
    body = "IF NEW.email = 'bad' THEN RAISE SQLSTATE 'U0001'; END IF; RETURN NULL;"
    make, attach = trigger("late", body, "AFTER INSERT OR UPDATE")
    attach = attach.replace("CREATE TRIGGER", "CREATE CONSTRAINT TRIGGER").replace("FOR EACH", f"{DEFERRED} FOR EACH")
    world.sql(make, attach)
    world.put(**crowd(p3={"email": "bad"}))
    assert nonzero(world.apply()["counts"]) == {"missing": 9, "rejected": 1}
    assert world.rows("SELECT count(*) FROM app.people") == [(9,)]


@pytest.mark.parametrize("page_size", [1, 3, 100])
@pytest.mark.parametrize("deferred", ["", DEFERRED], ids=["at once", "deferred"])
def test_rows_that_reference_each_other_arrive_in_any_order(world, deferred, page_size):
    """p0 needs p1, and so on to the last: each page comes before the one that it needs."""
    world.sql(f"ALTER TABLE app.people ADD CONSTRAINT theirs FOREIGN KEY (boss) REFERENCES app.people (id) {deferred}")
    bosses = {f"p{i}": {"boss": f"p{i + 1}"} for i in range(9)}
    world.put(**crowd(**bosses), lost={"boss": "nobody"}, below={"boss": "lost"})
    world.all_agree(
        {"missing": 10, "rejected": 2}, "ForeignKeyViolation 23503 (constraint theirs)", page_size=page_size
    )


def test_a_row_that_a_trigger_leaves_out_names_the_trigger(world):
    """Not written, and no error: nobody was faster."""
    world.sql(*trigger("no_spam", "IF NEW.email = 'bad' THEN RETURN NULL; END IF; RETURN NEW;"))
    world.put(**crowd(p3={"email": "bad"}))
    did = world.apply()
    assert nonzero(did["counts"]) == {"missing": 9, "rejected": 1}
    assert did["samples"]["rejected"][0]["reason"] == "LeftOut (trigger no_spam)"
    world.put(p4={"email": "bad"})
    did = world.apply()
    assert nonzero(did["counts"]) == {"matching": 8, "rejected": 2}
    assert {s["reason"] for s in did["samples"]["rejected"]} == {"LeftOut (trigger no_spam)"}


def test_a_key_that_a_client_took_this_moment_is_no_refusal(world, monkeypatch):
    from dualwrite.postgres.target import Target

    world.put(**crowd())
    original, acted = Target.insert, []

    def insert(self, *given, **named):
        if not acted:
            acted.append(world.sql("INSERT INTO app.people (id, email) VALUES ('p3', 'p3@x.org'), ('p4', 'other')"))
        return original(self, *given, **named)

    monkeypatch.setattr(Target, "insert", insert)
    did = world.apply()
    assert nonzero(did["counts"]) == {"missing": 8, "matching": 1, "stale": 1}
    assert nonzero(world.verify()["counts"]) == {"matching": 10}


@pytest.mark.parametrize(
    "world", ["postgres15_server"], ids=["15"], indirect=True
)  # the 18 of PyPI is built without ICU
def test_a_declared_constraint_that_refuses_each_time_is_named(world):
    """The comparison finds nothing in the way: a unique index may compare otherwise than `=` does."""
    world.catalog = Catalog((_changed(PEOPLE, unique=(("email",),)),))
    world.sql("CREATE COLLATION app.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    world.sql("CREATE UNIQUE INDEX theirs ON app.people (email COLLATE app.ci)")
    world.put(p1={"email": "x"}, p2={"email": "X"})
    did = world.apply()
    assert nonzero(did["counts"]) == {"missing": 1, "rejected": 1}
    assert did["samples"]["rejected"][0]["reason"] == "UniqueViolation 23505 (constraint theirs)"


# --- CHECKs, names, many columns ----------------------------------------------------------------------------------------


def test_a_check_lets_pass_what_a_trigger_puts_right(world):
    world.sql(*trigger("lower", "NEW.email := lower(NEW.email); NEW.team := coalesce(NEW.team, 'a'); RETURN NEW;"),
              "ALTER TABLE app.people ADD CHECK (email = lower(email)), ADD CHECK (team IS NOT NULL AND email <> 'bad')")  # fmt: skip
    world.put(**crowd(p3={"email": "P3@X.org"}, p4={"email": "bad"}, p5={"team": "b"}))
    did = world.apply()
    assert nonzero(did["counts"]) == {"missing": 9, "rejected": 1}
    assert did["inserted"] == 9


CHECKS = {
    "of the whole row": "CHECK (people.* IS DISTINCT FROM NULL)",
    "of the whole row's type": "CHECK (app.is_fine(people))",
    "of no column": "CHECK (current_setting('server_version') <> '')",
    "of its table": "CHECK (tableoid <> 0 AND email <> 'bad')",
    "not valid": "CHECK (email <> 'bad') NOT VALID",
    "with braces and percent signs": "CONSTRAINT \"{} 100%s\" CHECK (email !~ '^b.{2}$' AND email <> '%s' || '{n}')",
    "that raises": "CHECK (email !~ '^b' OR email::int > 0)",
    "that is null": "CHECK (NULL::boolean)",
}


@pytest.mark.parametrize("form", CHECKS)
def test_no_form_of_check_that_postgres_allows_ends_in_a_crash(world, form):
    world.sql("CREATE FUNCTION app.is_fine(app.people) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$SELECT $1.email <> 'bad'$$",
              f"ALTER TABLE app.people ADD {CHECKS[form]}")  # fmt: skip
    world.put(**crowd(p3={"email": "bad"}))
    takes_it = form in ("of the whole row", "of no column", "that is null")
    if form in ("of the whole row's type", "of its table"):  # only an apply can tell
        world.dry()
        assert nonzero(world.apply()["counts"]) == {"missing": 9, "rejected": 1}
    else:
        world.all_agree({"missing": 10} if takes_it else {"missing": 9, "rejected": 1})


@pytest.mark.parametrize("world", ["postgres_server"], ids=["18"], indirect=True)  # NOT ENFORCED is new there
def test_a_constraint_that_is_not_enforced_refuses_nothing(world):
    world.sql(
        "ALTER TABLE app.people ADD CHECK (email <> 'bad') NOT ENFORCED, "
        "ADD FOREIGN KEY (team) REFERENCES app.teams NOT ENFORCED"
    )
    world.put(**crowd(p3={"email": "bad"}, p4={"team": "nowhere"}))
    world.all_agree({"missing": 10})


def columns_named(world: World, table: str, names: list[str], **more: Any) -> None:
    """Makes a table with these columns in the schema public, and the catalog that declares them, each from its field."""
    fields = {name: f"f{n}" for n, name in enumerate(names)}
    declared = [
        Column(name, "compared", Field(field, CreateTime() if more else None), *more.get("type", ()))
        for name, field in fields.items()
    ]
    with psycopg.connect(world.dsn) as connection:
        quoted = [psycopg.sql.Identifier(name).as_string() for name in names]
        kind = "timestamptz" if more else "text"
        connection.execute(
            f"CREATE TABLE {psycopg.sql.Identifier('public', table).as_string()} (id text PRIMARY KEY, "
            + ", ".join(f"{name} {kind}" for name in quoted) + ")"
        )  # fmt: skip
    people = Collection(
        name="people", table=table, paths=("people/{id}",), columns=(Column("id", "key", DocumentId()), *declared)
    )
    world.catalog = Catalog((people,))


ALIASES = ["c", "t", "s", "h", "p", "r", "w", "l", "x", "k", "u", "j", "f", "d", "o", "old", "written", "told", "excluded",
           "key", "label", "path", "n", "place", "_n", "_stand_ins", "dualwrite_c"]  # fmt: skip
ODD = [
    "a b",
    'say "hi"',
    "100%",
    "%s",
    "%(n)s",
    "{}",
    "{0}",
    "it's",
    "select",
    "Ünï",
    "a.b",
    "back\\slash",
    "semi;colon",
    "$1",
]


def _found_and_mended(world: World, number: int) -> None:
    """One is missing and one stale; a repair writes both, and takes back a row without a document."""
    fields = {f"f{n}": f"v{n}" for n in range(number)}
    world.put(p1=fields, p2=fields)
    world.all_agree({"missing": 2})
    world.put(p1={**fields, "f0": "new"}, p3=fields)
    world.firestore.document("people/p2").delete()
    found = world.reconciled(repair="all")
    assert found.counts("people") == {"missing": 1, "stale": 1, "extra": 1}
    assert nonzero(world.verify()["counts"]) == {"matching": 2}
    columns = {"id", *(c.name for c in world.catalog["people"].columns)}
    befores = world.rows("SELECT row_before FROM dualwrite.repair_journal WHERE action <> 'insert'")
    assert [set(before) for (before,) in befores] == [columns, columns], (
        "the whole row, whatever its columns are called"
    )


@pytest.mark.parametrize(
    "table", ["c", "written", "x", "l", "t", "s", "dualwrite_stage", "dualwrite_trial", "pg_class"]
)
def test_a_table_may_be_named_like_any_alias_of_a_statement(world, table):
    columns_named(world, table, ALIASES)
    if table == "pg_class":  # a bare name is Postgres's own
        world.catalog = Catalog((_changed(world.catalog["people"], table="public.pg_class"),))
    _found_and_mended(world, len(ALIASES))


def test_columns_may_have_any_name_that_postgres_allows(world):
    columns_named(world, "odd % table", ODD)
    _found_and_mended(world, len(ODD))


def test_a_table_may_have_hundreds_of_columns(world):
    """A mask of stand-ins in an int8 ended at 62."""
    columns_named(world, "wide", [f"column_{n}" for n in range(200)], type=("timestamp",))
    at = datetime(2026, 2, 1, tzinfo=UTC)
    world.put(p1={f"f{n}": at for n in range(0, 200, 2)}, p2={f"f{n}": at for n in range(1, 200, 2)})
    world.all_agree({"missing": 2})
    world.sql("UPDATE wide SET column_199 = now(), column_198 = now(), column_0 = now()")
    found = world.verify()
    assert {s["key"]: s["columns"] for s in found["samples"]["stale"]} == {
        "p1": ["column_0", "column_198"], "p2": ["column_199"],
    }  # fmt: skip


# --- derived columns, triggers that change what is written ---------------------------------------------------------------


@pytest.mark.parametrize("score", ["many", True, 2.5, 2**40, [1], {"a": 1}], ids=str)
def test_a_counter_of_a_wrong_type_lags_and_rejects_nothing(world, score):
    world.put(**crowd(p3={"score": score}))
    world.all_agree({"missing": 10})
    world.sql("UPDATE app.people SET score = 7 WHERE id = 'p3'")
    found = world.verify()
    assert nonzero(found["counts"]) == {"matching": 10}
    assert found["derived_lag"] == 1


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
def test_an_update_that_a_trigger_undoes_is_not_written(world, when):
    """It was rewritten and journaled by each repair, for ever, with the advice to repair."""
    if when == "BEFORE":
        world.sql(*trigger("lower", "NEW.email := lower(NEW.email); RETURN NEW;"))
    else:
        body = "IF NEW.email <> lower(NEW.email) THEN UPDATE app.people SET email = lower(email) WHERE id = NEW.id; END IF; RETURN NULL;"
        world.sql(*trigger("lower", body, "AFTER INSERT OR UPDATE"))
    world.put(**crowd(p3={"email": "P3@X.org"}, p4={"team": "a"}))
    assert world.apply()["inserted"] == 10
    world.put(p4={"email": "P4@x.org", "team": "b"}, p5={"email": "p5@x.org", "team": "new"})
    before = world.rows("SELECT count(*) FROM dualwrite.repair_journal")[0][0]
    did = world.apply()
    assert (did["updated"], nonzero(did["counts"])) == (2, {"matching": 7, "stale": 3})
    did = world.apply()
    assert (did["updated"], nonzero(did["counts"])) == (0, {"matching": 8, "stale": 2})
    assert {s["reason"] for s in did["samples"]["stale"]} == {"changed_by_table"}
    assert world.rows("SELECT count(*) FROM dualwrite.repair_journal") == [(before + 2,)]
    assert world.rows("SELECT email, team FROM app.people WHERE id = 'p4'") == [("p4@x.org", "b")]


def test_a_row_that_a_trigger_alters_is_told_until_it_matches(world):
    """Told by a repair, and kept: a look can't tell, and would advise to repair again."""
    world.sql(*trigger("lower", "NEW.email := lower(NEW.email); RETURN NEW;"))
    world.put(p1={"email": "P1@x.org"})
    world.apply()
    assert "repair = missing_and_stale" in world.reconciled().alerts[0]
    for repair in ("all", "off", "off"):
        [alert] = [a for a in world.reconciled(repair=repair).alerts if a.startswith("people")]
        assert "declare the columns insert_only" in alert
    world.put(p1={"email": "p1@x.org"})
    assert [a for a in world.reconciled().alerts if a.startswith("people")] == []


# --- preflight ------------------------------------------------------------------------------------------------------------


def _faults(world: World, dsn: str, *, writes: bool) -> list[str]:
    with postgres.connect(dsn) as connection, postgres.transaction(connection):
        return preflight.target_faults(connection, world.catalog, list(world.catalog), writes=writes)


def test_a_table_without_a_policy_for_writing_is_refused(world):
    role = "dualwrite_shut"
    world.sql(f"CREATE ROLE {role} LOGIN", f"GRANT USAGE ON SCHEMA app TO {role}", f"GRANT ALL ON app.people TO {role}",
              f"GRANT USAGE ON SEQUENCE app.people_number_seq TO {role}", "ALTER TABLE app.people ENABLE ROW LEVEL SECURITY",
              f"CREATE POLICY r ON app.people FOR SELECT TO {role} USING (true)",
              f"CREATE POLICY w ON app.people FOR UPDATE TO {role} USING (true)")  # fmt: skip
    dsn = world.dsn.replace("postgres@", f"{role}@")
    try:
        assert _faults(world, dsn, writes=False) == []
        [fault] = _faults(world, dsn, writes=True)
        assert "app.people lets role dualwrite_shut INSERT and DELETE no row" in fault
        world.sql(f"CREATE POLICY a ON app.people TO {role} USING (true)")
        assert _faults(world, dsn, writes=True) == []
    finally:
        world.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_preflight_lists_constraints_unknown_to_the_catalog(world):
    world.sql("ALTER TABLE app.people ADD CONSTRAINT boss FOREIGN KEY (boss) REFERENCES app.people",
              "ALTER TABLE app.people ADD CONSTRAINT late UNIQUE (team) DEFERRABLE, ADD UNIQUE (number)",
              "ALTER TABLE app.people ADD CONSTRAINT apart EXCLUDE USING btree (team WITH =)",
              "CREATE UNIQUE INDEX lowered ON app.people (lower(email))")  # fmt: skip
    with postgres.connect(world.dsn) as connection, postgres.transaction(connection):
        found = preflight.unknown_constraints(connection, world.catalog, list(world.catalog))
    assert found == {"app.people": ["late (unique)", "apart (exclusion)", "lowered (unique)", "boss (foreign key)"]}
    assert _faults(world, world.dsn, writes=True) == []


def _changed(collection: Collection, **changes: Any) -> Collection:
    from dataclasses import replace

    return replace(collection, **changes)


# --- a look changes nothing -------------------------------------------------------------------------------------------


def everything(dsn: str) -> dict[str, Any]:
    """All that a database holds: each row of each table with its place and version, its catalog's too, and each sequence."""
    with looking(dsn) as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_t'"
        ).fetchall()
        found: dict[str, Any] = {"objects": connection.execute(
            "SELECT count(*), sum(hashtextextended(c.oid::text || c.relname, 0)) FROM pg_class c WHERE c.relnamespace::regnamespace::text !~ '^pg_'"
        ).fetchone()}  # fmt: skip
        for table, kind in tables:
            row = (
                "t.ctid::text || t.xmin::text || t::text"
                if kind == "r"
                else "ROW(last_value, log_cnt, is_called)::text"
            )
            found[table] = connection.execute(
                f"SELECT count(*), md5(string_agg({row}, '|' ORDER BY {row})) FROM {table} t"
            ).fetchone()
        return found


COUNTING = [
    "CREATE TABLE app.counted (n integer NOT NULL)",
    "INSERT INTO app.counted VALUES (0)",
    "CREATE FUNCTION app.counts() RETURNS integer LANGUAGE sql AS $$UPDATE app.counted SET n = n + 1 RETURNING n$$",
    "CREATE SEQUENCE app.other",
    "CREATE FUNCTION app.fine(text) RETURNS boolean LANGUAGE plpgsql AS "
    "$$BEGIN PERFORM nextval('app.other'); RETURN $1 <> 'bad'; END$$",
    "CREATE FUNCTION app.folded(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS "
    "$$BEGIN PERFORM nextval('app.other'); RETURN lower($1); END$$",
    "ALTER TABLE app.people ADD COLUMN counted integer NOT NULL DEFAULT app.counts(), "
    "ADD COLUMN id2 uuid NOT NULL DEFAULT gen_random_uuid(), ADD COLUMN id3 integer GENERATED ALWAYS AS IDENTITY, "
    "ADD COLUMN lowered text GENERATED ALWAYS AS (lower(email)) STORED, ADD COLUMN kind text NOT NULL DEFAULT 'plain', "
    "ADD CONSTRAINT kinds CHECK (kind <> 'plain' OR email <> 'worse')",
    "CREATE UNIQUE INDEX lowered ON app.people (lowered)",
]


@pytest.mark.parametrize("writes", ["defaults", "checks and indexes too"])
def test_a_dry_look_changes_nothing_and_needs_only_select(world, writes):
    """A trial on a copy with the table's real defaults moved sequences, and called functions that write."""
    world.sql(*COUNTING)
    if writes != "defaults":
        world.sql(
            "ALTER TABLE app.people ADD CHECK (app.fine(email))", "CREATE INDEX ON app.people (app.folded(email))"
        )
    role = "dualwrite_reader"
    world.sql(
        f"CREATE ROLE {role} LOGIN", f"GRANT USAGE ON SCHEMA app TO {role}", f"GRANT SELECT ON app.people TO {role}"
    )
    world.sql(f"GRANT USAGE ON SCHEMA dualwrite TO {role}", f"GRANT SELECT ON ALL TABLES IN SCHEMA dualwrite TO {role}")
    world.sql("INSERT INTO app.people (id, email) VALUES ('p1', 'stale@x.org'), ('px', 'PX@x.org')")
    world.put(**crowd(p3={"email": "worse"}, p4={"email": "px@X.org"}))
    reader = World(world.firestore, world.emulator, world.dsn.replace("postgres@", f"{role}@"))
    try:
        before = everything(world.dsn)
        said = reader.dry()
        assert everything(world.dsn) == before
        if writes == "defaults":
            assert nonzero(said["counts"]) == {"missing": 7, "stale": 1, "rejected": 2}
            assert {s["reason"] for s in said["samples"]["rejected"]} == {
                "CheckViolation 23514 (constraint kinds)", "UniqueViolation 23505 (constraint lowered)",
            }  # fmt: skip
        did = world.apply()
        assert did["counts"] == said["counts"] or writes != "defaults"
        before = everything(world.dsn)
        world.put(p5={"email": "changed"}, p11={"email": "new"})
        world.verify()
        after = everything(world.dsn)
        recorded = {name for name, was in before.items() if after[name] != was}
        assert {name for name in recorded if not name.startswith("dualwrite.")} == set()
    finally:
        world.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
