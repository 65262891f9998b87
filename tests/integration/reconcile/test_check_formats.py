"""The table of docs/verification.md for a collection whose check fields hold strings or numbers."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from dualwrite.firestore.source import Scan, Source
from dualwrite.model.check_fields import END_OF_TIME, Check
from dualwrite.model.conversions import epoch_milliseconds, epoch_seconds, iso_time
from dualwrite.model.declaration import Catalog, Collection, Column, CreateTime, DocumentId, Field, FirstOf, Segment
from dualwrite.model.errors import PreflightError
from dualwrite.model.windows import LONG_AGO, Window
from tests import in_slices
from tests.integration.reconcile.world import execute, now
from tests.support import apply, gap_run, nonzero, reconciled
from tests.worlds import put

FORMATS = {form.name: form for form in (iso_time, epoch_milliseconds, epoch_seconds)}


def _catalog(form) -> Catalog:
    return Catalog((
        Collection(
            name="notes", table="notes", paths=("people/{person}/notes/{note}",), selected=True,
            check_fields=(Check("updated", form), Check("created", form)),
            written_columns=("created_at", "updated_at"),
            columns=(
                Column("id", "key", DocumentId()),
                Column("person", "compared", Segment("person"), required=True),
                Column("body", "compared", Field("body")),
                Column("created_at", "compared", Field("created") >> form),
                Column("updated_at", "compared", FirstOf(Field("updated") >> form, Field("created") >> form)),
                Column("noted_at", "insert_only", CreateTime(), required=True),
            ),
        ),
    ))  # fmt: skip


class Notes:
    """Forty notes in both databases, examined until now, in a format of time."""

    def __init__(self, client, emulator, dsn, form) -> None:
        self.client, self.emulator, self.dsn, self.form, self.catalog = client, emulator, dsn, form, _catalog(form)
        execute(
            dsn,
            "CREATE TABLE notes (id text PRIMARY KEY, person text NOT NULL DEFAULT 'p', body text, created_at timestamptz, updated_at timestamptz, "
            "noted_at timestamptz NOT NULL, edits integer NOT NULL DEFAULT 0, flag boolean)",
        )
        self.started = now()
        put(client, {f"people/p/notes/n{i}": self.note(timedelta(hours=30 + i)) for i in range(40)})
        apply(client.project, emulator, dsn, catalog=self.catalog, collections=["notes"], scope="all")
        self.run(scope="sweep", sweep_every_hours=1000)

    def at(self, ago: timedelta):
        return self.form.back(now() - ago)

    def note(self, ago: timedelta, **changes):
        return {"body": "b", "created": self.at(ago), "updated": self.at(ago), **changes}

    def doc(self, name: str):
        return self.client.document(f"people/p/notes/{name}")

    def run(self, **changes):
        return reconciled(
            self.client.project, self.emulator, self.dsn, catalog=self.catalog, collections=["notes"], max_share=100, **changes
        )  # fmt: skip


@pytest.fixture(params=FORMATS)
def notes(request, firestore, emulator, target_dsn) -> Notes:
    return Notes(firestore, emulator, target_dsn, FORMATS[request.param])


@pytest.fixture
def iso(firestore, emulator, target_dsn) -> Notes:
    return Notes(firestore, emulator, target_dsn, iso_time)


def create(notes):
    notes.doc("new").set(notes.note(timedelta()))


def edit_that_moves_a_check_field(notes):
    notes.doc("n1").update({"body": "edited", "updated": notes.at(timedelta())})


def edit_that_moves_none(notes):
    notes.doc("n2").update({"body": "edited"})


def delete_of_a_recent_document(notes):
    execute(notes.dsn, "INSERT INTO notes VALUES ('gone', 'p', 'b', now(), now(), now())")


def delete_of_an_old_document(notes):
    notes.doc("n3").delete()


def create_without_check_field(notes):
    notes.doc("late").set({"body": "b"})


def create_late_from_an_offline_phone(notes):
    notes.doc("phone").set(notes.note(timedelta(hours=50)))


CHANGES = {
    # the verdict, whether the window sees it, and whether the tripwire does, or (a sweep) calls one
    create: ("missing", True, False),
    edit_that_moves_a_check_field: ("stale", True, False),
    edit_that_moves_none: ("stale", False, False),
    delete_of_a_recent_document: ("extra", True, False),
    delete_of_an_old_document: ("extra", False, True),
    create_without_check_field: ("missing", False, "a sweep"),
    create_late_from_an_offline_phone: ("missing", False, True),
}


BY_NUMBERS = (edit_that_moves_a_check_field, delete_of_an_old_document)
"""Numbers are asked for as strings are: a window and a slice of each show it."""
CELLS = [(form, change) for form in FORMATS for change in CHANGES if form == "iso_time" or change in BY_NUMBERS]


@pytest.mark.parametrize(
    ("notes", "change"), CELLS, indirect=["notes"], ids=[f"{form}-{change.__name__}" for form, change in CELLS]
)
def test_windows_in_a_format_see_what_the_table_says(change, notes):
    """Windows were blind without a word for times that are strings or numbers."""
    verdict, by_window, by_tripwire = CHANGES[change]
    assert notes.run().counts("notes") == {}
    execute(
        notes.dsn,
        "CREATE TABLE kept AS TABLE dualwrite.count_baselines",
    )
    execute(notes.dsn, "DELETE FROM dualwrite.count_baselines")
    change(notes)
    assert notes.run().counts("notes") == ({verdict: 1} if by_window else {})
    if not by_window:
        execute(notes.dsn, "DELETE FROM dualwrite.count_baselines")
        execute(notes.dsn, "INSERT INTO dualwrite.count_baselines SELECT * FROM kept")
        tripped = notes.run()
        assert tripped.counts("notes") == ({verdict: 1} if by_tripwire is True else {})
        [line] = tripped.report["collections"]
        assert line["tripwire"]["calls_sweep"] == (by_tripwire == "a sweep")
    swept = notes.run(scope="sweep")
    assert swept.counts("notes") == {verdict: 1}
    assert notes.run(scope="sweep", repair="all").alerts == []
    assert notes.run(scope="sweep").counts("notes") == {}


def test_slices_in_a_format_cover_each_document_once(notes):
    """Cut at microseconds, which milliseconds and seconds can't say."""
    put(notes.client, {f"people/p/notes/s{i}": notes.note(timedelta(seconds=i / 7)) for i in range(60)})
    put(
        notes.client,
        {
            f"people/p/notes/o{i}": notes.note(timedelta(hours=60), updated=notes.at(timedelta(seconds=i)))
            for i in range(20)
        },
    )
    given = {"collections": ["notes"], "slice_documents": 12, "since": (notes.started - timedelta(hours=1)).isoformat()}
    with gap_run(notes.client.project, notes.emulator, notes.dsn, catalog=notes.catalog, **given) as run:
        found, parts = in_slices.gap(run, dry=False)
    assert len(parts) > 4
    assert nonzero(found["notes"]["counts"]) == {"missing": 80}
    assert notes.run(scope="sweep").counts("notes") == {}


@pytest.mark.parametrize("name", FORMATS)
def test_the_service_orders_values_as_we_do(name, firestore, emulator):
    """Windows that touch count each document once; which, Firestore's order and ours agree on."""
    check, start = Check("at", FORMATS[name]), now().replace(microsecond=1234)
    styles = ["", "9", "Z", "\U0001f600", "\uffff", start.isoformat(), start.isoformat(timespec="seconds"), None, True]
    values = [*styles, 1.5, 10**18, float("nan"), float("-inf"), -1, start]
    values += [check.format.back(start + timedelta(microseconds=n * 333)) for n in range(40)]
    values += [v + 0.5 for v in values[-3:] if not isinstance(v, str)]
    put(firestore, {f"things/t{n}": {"at": value} for n, value in enumerate(values)})
    edges = [start + timedelta(microseconds=n) for n in (-5000, 0, 1, 333, 767, 1000, 5001, 9999, 40_000_000)]
    with Source(firestore.project, emulator_host=emulator) as source:
        for a, b in [*pairwise(edges), (edges[0], edges[-1])]:
            window = Window(a, b)
            scan = Scan("things", (), top_level=True, check_field="at", check_format=check.format, window=window)
            held = check.bounds(window)
            assert source.count(scan)[0] == sum(value in held for value in values), (a, b)
        number, few = source.other_types("things", check, True, 100)
        assert number == len(few) == sum(value is not None and not _is_a_time(check, value) for value in values)


def _is_a_time(check, value) -> bool:
    return value in check.bounds(Window(LONG_AGO, END_OF_TIME))


STYLES = {
    "without milliseconds": lambda at: at.isoformat(timespec="seconds").replace("+00:00", "Z"),
    "with an offset": lambda at: at.isoformat(timespec="milliseconds"),
    "with microseconds": lambda at: at.isoformat(timespec="microseconds"),
    "as http writes it": lambda at: at.strftime("%a, %d %b %Y %H:%M:%S GMT"),
}


@pytest.mark.parametrize("style", STYLES)
def test_iso_strings_in_another_style_are_found_and_refused(style, iso):
    """They lie elsewhere in the order of strings than their instants do."""
    put(
        iso.client,
        {
            f"people/p/notes/x{i}": iso.note(timedelta(), updated=STYLES[style](now() - timedelta(minutes=i)))
            for i in range(30)
        },
    )
    with pytest.raises(PreflightError) as refused:
        iso.run(scope="sweep")
    assert "Check field updated of notes holds a string" in str(refused.value)
    assert "Windows find only values that iso_time reads and writes alike" in str(refused.value)
    assert "2026" not in str(refused.value)


def test_a_few_strings_in_another_style_are_told_and_cost_no_run(iso, caplog):
    put(
        iso.client,
        {
            "people/p/notes/x1": iso.note(timedelta(), updated="2026-01-15T12:52:00Z"),
            "people/p/notes/x2": iso.note(timedelta(), updated=5),
        },
    )
    found = iso.run(scope="sweep")
    assert found.report["collections"]
    assert "Check field updated of notes holds a string in another style or an integer in" in caplog.text


def test_seconds_in_a_field_of_milliseconds_are_refused(firestore, emulator, target_dsn):
    notes = Notes(firestore, emulator, target_dsn, epoch_seconds)
    put(
        firestore,
        {f"people/p/notes/x{i}": notes.note(timedelta(), updated=epoch_milliseconds.back(now())) for i in range(30)},
    )
    with pytest.raises(PreflightError, match="Check field updated of notes holds an integer in 30 documents"):
        notes.run(scope="sweep")
