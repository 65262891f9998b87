"""What a change of a document means for its rows, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualwrite.catalog import CATALOG
from dualwrite.model.change import Changed, Delete, Upsert, change_of, changes_of, owner_of
from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Field, Operations
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Rejection, Row, map_document
from dualwrite.model.question import question_of

T = datetime(2026, 2, 1, 12, 0, 0, 123456, tzinfo=UTC)
NOTICE = {"type": "like_on_post", "postId": "p1", "fromUserId": "u2", "message": "m", "timestamp": T}
values = st.sampled_from(
    [None, 5, True, "", "text", "a\x00b", b"b", T, 2**40, [], ["u1", 5], {}, {"b1": "read", "b2": 5}]
)


@pytest.mark.parametrize("collection", [c for c in CATALOG if c.operations], ids=lambda c: c.name)
def test_no_row_that_is_stated_or_rejected_is_planned_to_go(collection):
    """For any two states of a document, of any fields: what it becomes is written or kept, and only the rest deleted."""
    template = collection.templates[0]
    path = template.path({v: f"{v}1" for v in template.variables})
    fields = st.dictionaries(st.sampled_from([f.split(".")[0] for f in collection.fields]), values)

    @settings(max_examples=60)
    @given(st.none() | fields, st.none() | fields)
    def holds(before, after):
        units = {
            id(state): map_document(collection, Document(path, state, T, T)) or [] if state is not None else []
            for state in (before, after)
        }
        new = units[id(after)]
        stated = {u.key: u for u in new if isinstance(u, Row)}
        refused = [u for u in new if isinstance(u, Rejection)]
        change = change_of(CATALOG, path, before, after, T)
        own = [o for o in change.operations if o.collection is collection]
        for operation in own:
            if isinstance(operation, Delete):
                assert operation.key not in stated
                gone = next(u for u in units[id(before)] if u.label == operation.label)
                assert not any(r.entire or (r.entry == gone.entry and r.label == gone.label) for r in refused)
            else:
                assert operation.row == stated[operation.row.key]
        assert {k.label for k in change.kept} >= {r.label for r in refused}
        had = {u.key for u in units[id(before)] if isinstance(u, Row)}
        written = {o.row.key for o in own if isinstance(o, Upsert)}
        assert stated.keys() - had <= written
        if before == after:
            assert own == []

    holds()


def test_a_documents_birth_is_asked_of_its_row_only_if_it_goes():
    user = {"nickname": "n", "createdAt": T, "boardPermissions": {"b1": "read"}}
    permission, own = change_of(CATALOG, "users/u1", user, None, T).operations
    assert permission.births == own.births
    [birth] = own.births
    assert (birth.collection.name, birth.key, birth.column.name) == ("users", ("u1",), "created_at")
    assert birth.at == (T.replace(microsecond=123000),)
    [taken] = change_of(CATALOG, "users/u1", user, {**user, "boardPermissions": {}}, T).operations
    assert taken.births == ()
    for absent in (None, "yesterday"):
        assert change_of(CATALOG, "users/u1", {**user, "createdAt": absent}, None, T).operations[0].births == ()


def test_deletes_of_a_collection_have_an_order_of_their_own():
    """So that two batches lock rows alike; but where rows reference each other, the caller's order says which are the children."""
    tree = Collection(
        name="tree",
        table="tree",
        paths=("tree/{id}",),
        columns=(
            Column("id", "key", DocumentId()),
            Column("above", "compared", Field("above"), references="tree"),
        ),
        operations=(Operations("tree", ("id",)),),
    )
    flat = replace(tree, name="flat", table="flat", paths=("flat/{id}",), columns=tree.columns[:1])
    catalog = Catalog((tree, flat))
    for order in ("bca", "cab"):
        batch = [Changed(f"{name}/{one}", {}, None) for one in order for name in ("flat", "tree")]
        deletes = changes_of(catalog, batch, T).operations
        labels = {c: "".join(d.label for d in deletes if d.collection.name == c) for c in ("flat", "tree")}
        assert labels == {"flat": "abc", "tree": order}


def test_a_row_of_a_shared_key_is_that_of_its_oldest_document():
    notifications = CATALOG["notifications"]

    def document(name, fields, seconds):
        at = T + timedelta(seconds=seconds)
        return Document(f"users/u1/notifications/{name}", fields, at, at)

    young, old = document("a", NOTICE, 1), document("b", NOTICE, 0)
    other, broken = document("c", {**NOTICE, "commentId": "c1"}, -1), document("d", {**NOTICE, "message": 5}, -2)
    [row] = map_document(notifications, young)
    assert owner_of(notifications, row.key, [broken, young, other, old]).path == old.path
    assert isinstance(owner_of(notifications, row.key, [other, broken]), Rejection)
    assert owner_of(notifications, row.key, [other]) is None
    question = question_of(notifications, row.key)
    assert (question.parent, question.collection_id, question.fields) == (
        "users/u1",
        "notifications",
        notifications.fields,
    )
    assert question.equals == {"type": "like_on_post", "postId": "p1", "fromUserId": "u2"}
