"""Whatever a document holds: mapped, inserted and compared, its row equals it in every compared column."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.model.documents import Document
from dualwrite.model.mapping import Row, map_document
from dualwrite.postgres.target import Target

CREATED = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=40)
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        text,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=12,
)
by_type = {
    "text": text,
    "integer": st.integers(-(2**31), 2**31 - 1),
    "numeric": st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False)),
    "boolean": st.booleans(),
    "timestamp": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001
    "json": st.dictionaries(text, json_values, max_size=5),
}
ids = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\x00"), min_size=1, max_size=30)
allowed = {
    "visibility": ["public", "private"],
    "recoveryStatus": ["none", "eligible", "partial", "success"],
    "type": ["comment_on_post", "like_on_post"],
}


@st.composite
def documents(draw, collection):
    """Documents whose fields have the types that their columns want; any of them may be absent or null."""
    template = draw(st.sampled_from(collection.templates))
    fields: dict = {}
    for column in collection.columns:
        path = getattr(column.origin, "path", None)
        needed = column.role == "key" or column.references is not None  # else hardly any document becomes a row
        if path is None or not (needed or draw(st.booleans())):
            continue
        strategy = (
            st.sampled_from(allowed[path]) if path in allowed else ids if column.references else by_type[column.type]
        )
        steps, inner = path.split("."), fields
        for step in steps[:-1]:
            inner = inner.setdefault(step, {})
        inner[steps[-1]] = draw(strategy if needed else st.one_of(st.none(), strategy))
    if collection.entries is not None:
        keys = draw(st.lists(ids, max_size=4))
        is_map = type(collection.entries).__name__ == "MapEntries"
        fields[collection.entries.field] = dict.fromkeys(keys, "read") if is_map else keys
    names = [draw(ids.filter(lambda i: i not in (".", "..") and not i.startswith("__"))) for _ in template.variables]
    return Document(template.path(dict(zip(template.variables, names, strict=True))), fields, CREATED, CREATED)


class _RollBack(Exception):
    pass


@pytest.mark.parametrize("collection", list(CATALOG), ids=lambda c: c.name)
def test_document_to_row_to_compare_is_matching(collection, unparented_dsn):
    inserted = 0

    with Target(lambda: postgres.connect(unparented_dsn), CATALOG) as target:

        @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
        @given(st.lists(documents(collection), min_size=1, max_size=6))
        def round_trip(page):
            nonlocal inserted
            rows: dict = {}
            for document in page:
                for unit in map_document(collection, document) or []:
                    if isinstance(unit, Row):
                        rows.setdefault(unit.key, unit)
            staged = list(rows.values())
            with suppress(_RollBack), target.transaction() as connection:
                first = target.compare(connection, collection, staged)
                assert not first.refused
                write = target.insert(connection, collection, staged, list(range(len(staged))), "run")
                connection.execute("DROP TABLE pg_temp.dualwrite_stage")
                again = target.compare(connection, collection, staged)
                refused = {staged[n].key for n in write.refused}
                taken = {d.row.key for d in again.differences if any(d.holders)}  # another row has its unique key
                assert {d.row.key for d in again.differences} - refused - taken == set()
                assert all(why.sqlstate in ("23514", "23505") for why in write.refused.values())
                inserted += len(write.journal)
                raise _RollBack

        round_trip()
    assert inserted > 10, "a property of nothing proves nothing"
