"""Which ids of a subcollection are fixed, by those of its sampled documents and by their fields."""

from __future__ import annotations

import pytest

from dev.draft_catalog import _fixed_ids

PROFILE, CARD = {"bio", "locale"}, {"number", "brand"}


@pytest.mark.parametrize(
    ("documents", "fixed"),
    [
        ([("profile", PROFILE)] * 3, {"profile"}),
        ([("profile", PROFILE), ("card", CARD)] * 2, {"profile", "card"}),
        ([("profile", PROFILE), ("card", CARD)], set()),
        ([("general", PROFILE), ("random", PROFILE)] * 3, set()),
        ([("profile", PROFILE)] * 3 + [("Xk9", CARD)], set()),
        ([("1", PROFILE)] * 3, set()),
        ([], set()),
    ],
    ids=["one", "two that differ", "seen once", "rooms that are alike", "one beside random ids", "a number", "none"],
)
def test_ids_with_own_fields_below_several_parents_are_fixed(documents, fixed):
    assert _fixed_ids(documents) == fixed
