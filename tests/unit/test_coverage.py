"""What a catalog leaves out is named: nobody may take *verified* for more than was compared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dualwrite.catalog import CATALOG
from dualwrite.model.conditions import Absent, AllOf, AnyOf, Is, Not
from dualwrite.model.conversions import lower
from dualwrite.model.coverage import Coverage, coverage_of, described, limits
from dualwrite.model.declaration import Collection, Column, DocumentId, Segment
from dualwrite.model.render import as_text

NAMES = st.sets(st.sampled_from([*(c.name for collection in CATALOG for c in collection.columns), "mood", "search"]))


@given(st.sampled_from(list(CATALOG)), NAMES, st.booleans())
def test_each_live_column_is_compared_or_named(collection, names, made):
    found = coverage_of(collection, dict.fromkeys(names, made))
    compared = {c.name for c in collection.columns if c.role in ("key", "compared")} & names
    assert (found.compared, found.columns) == (len(compared), len(names))
    named = found.sentence().partition("not looked at: ")[2].replace(",", "").split()
    assert {n for n in named if not n.startswith("(")} == names - compared
    assert bool(described([found])) == (names != compared)
    assert Coverage.from_json(collection.name, found.as_json()) == found


def test_a_collection_that_leaves_columns_out_is_one_line():
    live = dict.fromkeys(["id", "post_id", "user_id", "user_name", "created_at", "mood"], False) | {"search": True}
    found = coverage_of(CATALOG["likes"], live)
    assert found.sentence() == "5 of 7 columns are compared; not looked at: mood, search"
    text = " ".join(
        as_text(described([found, coverage_of(CATALOG["blocks"], {"blocker_id": False})], inserts=True)).split()
    )
    assert text == (
        "What the catalog leaves out: - likes: 5 of 7 columns are compared; not looked at: mood, search. "
        "Inserted rows get the table's defaults in mood."
    )


def test_roles_that_keep_a_column_from_being_compared_are_named():
    live = dict.fromkeys((c.name for c in CATALOG["posts"].columns), False)
    told = coverage_of(CATALOG["posts"], live).sentence()
    assert told.startswith("12 of 16 columns are compared; not looked at: count_of_comments (derived)")
    assert (
        coverage_of(CATALOG["blocks"], dict.fromkeys(("blocker_id", "blocked_id", "created_at"), False)).sentence()
        == "all 3 columns are compared"
    )


def test_what_conditions_and_shares_leave_out_is_said_in_words():
    """As the doctor shows it; a catalog without them has no such line."""
    things = Collection(
        name="things",
        table="app.things",
        paths=("things/{thing}",),
        columns=(Column("id", "key", DocumentId()),),
        where=AllOf(
            Absent("deletedAt"),
            AnyOf(Is("status", "active", "paused"), Not(Is(Segment("thing") >> lower, "x"))),
            Is("vip", True),
        ),
        rows={"channel": "web", "region": None},
    )
    assert limits(things) == (
        "only of documents where field deletedAt is absent and ((field status is 'active' or 'paused') or not (path segment thing is "
        "'x')) and field vip is True; of table app.things only where channel = 'web' and region = null"
    )
    assert not any(map(limits, CATALOG))
