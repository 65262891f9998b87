"""What a catalog leaves out is named: nobody may take *verified* for more than was compared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dualwrite.catalog import CATALOG
from dualwrite.model.coverage import Coverage, coverage_of, described
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
