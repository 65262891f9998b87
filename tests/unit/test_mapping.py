"""Mapping is total: whatever a document holds, each unit ends as a row or a reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualwrite.catalog import CATALOG
from dualwrite.model.cell_types import Json, truncate_to_milliseconds
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Rejection, Row, map_document
from tests.arbitrary import CREATED, document_at, fields_of, five_ids


@pytest.mark.parametrize("collection", list(CATALOG), ids=lambda c: c.name)
@given(data=st.data())
def test_any_document_gives_rows_or_reasons(collection, data):
    document = document_at(collection, data.draw(five_ids), data.draw(fields_of(collection)))
    units = map_document(collection, document)
    assert units is not None
    if collection.entries is None:
        assert len(units) == 1
    for unit in units:
        assert isinstance(unit, Row | Rejection)
        if isinstance(unit, Rejection):
            assert unit.reason.split(":")[0] in {
                "missing_value", "wrong_type", "nul_character", "not_an_id", "out_of_range", "not_finite", "not_json",
                "cant_be_asked", "dotted_name",
            }  # fmt: skip
        else:
            assert len(unit.cells) == len(collection.columns)
            for cell, column in zip(unit.cells, collection.columns, strict=True):
                assert not (cell is None and (column.required or column.role == "key"))
                if isinstance(cell, Json):
                    json.loads(cell.text)


@pytest.mark.parametrize("collection", list(CATALOG), ids=lambda c: c.name)
@given(data=st.data())
def test_the_same_document_gives_the_same_row_every_time(collection, data):
    document = document_at(collection, data.draw(five_ids), data.draw(fields_of(collection)))
    assert map_document(collection, document) == map_document(collection, document)


@given(st.datetimes(timezones=st.just(UTC)))
def test_timestamps_are_cut_off_at_milliseconds_never_rounded(moment):
    cut = truncate_to_milliseconds(moment)
    assert cut <= moment
    assert (moment - cut).microseconds < 1000
    assert cut.microsecond % 1000 == 0


def test_a_path_that_fits_no_template_is_a_stray():
    comment = CATALOG["comments"]
    for path in ("comments/c", "boards/b/comments/c", "boards/b/posts/p/other/o/comments/c", "users/u/comments/c"):
        assert map_document(comment, Document(path, {}, CREATED, CREATED)) is None


def test_absent_fields_become_what_phase_1_wrote():
    document = Document("boards/b/posts/p", {"authorId": "u", "createdAt": CREATED}, CREATED, CREATED)
    [row] = map_document(CATALOG["posts"], document)
    cells = dict(zip((c.name for c in CATALOG["posts"].columns), row.cells, strict=True))
    assert cells["visibility"] == "public"
    assert cells["title"] == cells["content"] == ""
    assert cells["content_json"] is None
    assert cells["count_of_likes"] == 0
    assert cells["engagement_score"] == Decimal(0)
    assert cells["updated_at"] == CREATED
    assert [CATALOG["posts"].columns[i].name for i in row.stand_ins] == ["updated_at"]


def test_a_reaction_hangs_on_a_comment_or_on_a_reply():
    fields = {"content": "👍", "reactionUser": {"userId": "u"}, "createdAt": CREATED}
    names = [c.name for c in CATALOG["reactions"].columns]
    for path, expected in (
        ("boards/b/posts/p/comments/c/reactions/x", ("c", None)),
        ("boards/b/posts/p/comments/c/replies/r/reactions/x", (None, "r")),
    ):
        [row] = map_document(CATALOG["reactions"], Document(path, fields, CREATED, CREATED))
        assert (row.cells[names.index("comment_id")], row.cells[names.index("reply_id")]) == expected


def test_content_changes_a_fingerprint_counters_and_times_do_not():
    """The times are those of writing."""
    fields = {"authorId": "u", "content": "a", "createdAt": CREATED, "updatedAt": CREATED, "countOfLikes": 1}

    def fingerprint(**changes):
        [row] = map_document(CATALOG["posts"], Document("boards/b/posts/p", {**fields, **changes}, CREATED, CREATED))
        return row.fingerprint

    assert fingerprint(countOfLikes=2, engagementScore=9.5, updatedAt=datetime(2026, 5, 1, tzinfo=UTC)) == fingerprint()
    assert fingerprint(content="b") != fingerprint()
