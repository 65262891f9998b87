"""How a report is added up, kept small, and shown to a person."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dualwrite.model.errors import IdentityError
from dualwrite.model.mapping import Refusal
from dualwrite.model.render import Code, Items, Paragraph
from dualwrite.model.report import SAMPLES, CollectionReport, fit, listed, merged, samples, table, total
from dualwrite.model.verdicts import VERDICTS, Cause, Finding, Verdict, Why

NUMBERS = (
    "taken", "documents_read", "billed_reads", "stray", "unlocatable", "derived_lag", "order_decides", "expected", "inserted",
    "updated", "deleted", "parents_inserted",
)  # fmt: skip


def report(name: str = "things", *found: Finding, matching: int = 0, **numbers: Any) -> Any:
    made = CollectionReport(name, "look", **numbers)
    made.add_matching(matching)
    for finding in found:
        made.add(finding)
    return made.as_json()


def merged_json(*parts: Any) -> Any:
    return merged([CollectionReport.from_json(part) for part in parts]).as_json()


def test_every_number_is_told_under_its_own_name():
    made = CollectionReport("things", "gap", **{name: n for n, name in enumerate(NUMBERS, 11)})
    made.source_count, made.target_count, made.reads_to_verify, made.verification = 90, 91, 92, "equal"
    told: Any = made.as_json()
    assert {name: told[name] for name in NUMBERS[1:]} == {name: n for n, name in enumerate(NUMBERS, 11) if n > 11}
    assert (told["source_count"], told["target_count"], told["reads_to_verify"]) == (90, 91, 92)
    assert (told["collection"], told["phase"], told["verification"]) == ("things", "gap", "equal")
    assert (told["outcome"], told["not_examined"]) == ("examined", None)


def test_a_new_report_has_counted_nothing():
    told = report()
    assert {name for name, value in told.items() if value and name not in ("counts", "collection", "phase")} == {
        "outcome"
    }
    assert told["counts"] == dict.fromkeys(map(str, VERDICTS), 0)
    CollectionReport("things", "look").check_identity()


def test_the_rate_is_of_the_seconds_taken_and_none_without_any():
    assert report(documents_read=10, seconds=4.0004)["documents_per_second"] == 2
    assert report(documents_read=10, seconds=4.0004)["seconds"] == 4.0
    assert report(documents_read=10, seconds=1.23456)["seconds"] == 1.235
    assert report(documents_read=10)["documents_per_second"] is None
    assert report(documents_read=10, seconds=0.5)["documents_per_second"] == 20


def test_a_collection_that_could_not_be_read_says_why():
    made = CollectionReport("things", "look", not_examined="it is too large")
    assert (made.as_json()["outcome"], made.as_json()["not_examined"]) == ("not_examined", "it is too large")


def test_drift_is_neither_matching_nor_excused_nor_expected():
    told = report(
        "things",
        Finding(Verdict.MISSING, "a", excused=True),
        Finding(Verdict.MISSING, "b"),
        Finding(Verdict.STALE, "c"),
        Finding(Verdict.IN_FLIGHT, "d"),
        matching=5,
        expected=1,
    )
    assert (told["examined"], told["excused"], told["drift"]) == (9, 1, 1)
    assert {v: n for v, n in told["counts"].items() if n} == {
        "matching": 5,
        "missing": 2,
        "stale": 1,
        "in_flight": 1,
    }


def test_reasons_are_counted_by_verdict():
    """A matching key leaves no sample."""
    told = report(
        "things",
        Finding(Verdict.REJECTED, "a", reason=Refusal("wrong_type")),
        Finding(Verdict.REJECTED, "b", reason=Refusal("wrong_type")),
        Finding(Verdict.MISSING, "c"),
        Finding(Verdict.MATCHING, "d"),
    )
    assert told["reasons"] == {"rejected: wrong_type": 2}
    assert told["samples"] == {
        "rejected": [{"key": "a", "reason": "wrong_type"}, {"key": "b", "reason": "wrong_type"}],
        "missing": [{"key": "c"}],
    }


def test_columns_that_differ_are_counted_beyond_the_samples():
    """They are told beside the samples. A backfill has no list of what is open: its report alone says where its stale
    rows differ."""
    stale = [Finding(Verdict.STALE, str(n), columns=("title", "content") if n < 3 else ("title",)) for n in range(25)]
    excused = Finding(Verdict.STALE, "x", columns=("title",), excused=True)
    told = merged_json(report("things", *stale[:20]), report("things", *stale[20:], excused))
    assert told["columns"] == {"title": 25, "content": 3}
    [block] = samples([told])
    assert block.title == "things, stale (26, 20 shown): title 25, content 3"
    many = Finding(Verdict.STALE, "many", columns=tuple(f"c{n}" for n in range(25)))
    assert len(report("things", many)["columns"]) == SAMPLES


def test_a_sample_is_cut_at_120_characters_of_an_id():
    """A path is cut at twice as many."""
    [sample] = report("things", Finding(Verdict.MISSING, "k" * 121, "p" * 241))["samples"]["missing"]
    assert sample == {"key": "k" * 119 + "…", "path": "p" * 239 + "…"}
    [sample] = report("things", Finding(Verdict.MISSING, "k" * 120, "p" * 240))["samples"]["missing"]
    assert sample == {"key": "k" * 120, "path": "p" * 240}


def test_only_the_commonest_reasons_are_kept():
    found = [Finding(Verdict.REJECTED, str(i), reason=Refusal(f"r{i % 25}")) for i in range(50)]
    assert len(report("things", *found)["reasons"]) == SAMPLES == 20
    assert len(merged_json(report("things", *found), report("things", *found))["reasons"]) == 20


@pytest.mark.parametrize(("examined", "taken"), [(2, 1), (1, 2)])
def test_taken_examined_and_verdicts_have_to_be_one_number(examined, taken):
    """The identity fails otherwise."""
    made = CollectionReport("things", "gap", taken=taken, examined=examined)
    made.counts[Verdict.MISSING] = 1
    with pytest.raises(IdentityError):
        made.check_identity()


# --- several phases as one ------------------------------------------------------------------------------------------


def test_the_phases_of_a_collection_add_up_number_by_number():
    parts = [
        report("things", Finding(Verdict.MISSING, "a", excused=True), seconds=0.1234, **dict.fromkeys(NUMBERS, 3)),
        report("things", Finding(Verdict.STALE, "b"), matching=4, seconds=0.1, **dict.fromkeys(NUMBERS, 5)),
        report("things", Finding(Verdict.STALE, "c", excused=True)),
    ]
    whole = merged_json(*parts)
    assert {name: whole[name] for name in NUMBERS[1:]} == dict.fromkeys(NUMBERS[1:], 8)
    assert (whole["examined"], whole["excused"], whole["seconds"]) == (7, 2, 0.223)
    assert (whole["excused_counts"], whole["left_alone"]) == ({"missing": 1, "stale": 1}, 2)
    before = {name: value for name, value in whole.items() if name not in ("excused_counts", "columns")}
    read = CollectionReport.from_json(before)  # a task of the version before told less
    assert (read.excused, read.left_alone, read.drift) == (whole["excused"], whole["left_alone"], whole["drift"])
    assert whole["drift"] == sum(part["drift"] for part in parts)
    assert {v: n for v, n in whole["counts"].items() if n} == {"matching": 4, "missing": 1, "stale": 2}
    assert [s["key"] for s in whole["samples"]["stale"]] == ["b", "c"]
    assert [s["key"] for s in whole["samples"]["missing"]] == ["a"]
    assert (whole["outcome"], whole["not_examined"], whole["phase"]) == ("examined", None, "look")


def test_a_single_phase_is_all_and_several_go_by_the_first():
    part = report("things", Finding(Verdict.MISSING, "a", reason=Refusal("r")), matching=3, seconds=1.5, stray=4)
    assert merged_json(part) == part
    first = CollectionReport("things", "window", source_count=5).as_json()
    assert (merged_json(first, part)["phase"], merged_json(first, part)["source_count"]) == ("window", 5)
    assert merged_json(part, first)["source_count"] is None


def test_a_repair_adds_what_it_wrote_and_read_and_no_verdicts():
    look = CollectionReport("things", "look", billed_reads=10, inserted=1, seconds=2.0)
    look.add_work(CollectionReport("things", "write", examined=7, **dict.fromkeys(NUMBERS[1:], 5)))
    told: Any = look.as_json()
    added = {"inserted": 6, "updated": 5, "deleted": 5, "parents_inserted": 5, "billed_reads": 15}
    assert {name: told[name] for name in NUMBERS[1:]} == {**dict.fromkeys(NUMBERS[1:], 0), **added}
    assert (told["examined"], told["seconds"]) == (0, 2.0)


def test_a_phase_not_examined_makes_its_collection_not_examined():
    unread = CollectionReport("things", "sweep", not_examined="it is too large").as_json()
    whole = merged_json(report("things", matching=1), unread)
    assert (whole["outcome"], whole["not_examined"]) == ("not_examined", "it is too large")


def test_samples_of_several_phases_are_capped_together():
    found = [Finding(Verdict.MISSING, f"k{i}") for i in range(15)]
    assert len(merged_json(report("things", *found), report("things", *found))["samples"]["missing"]) == 20


def test_phases_whose_verdicts_do_not_add_up_are_refused():
    wrong = {**report("things", matching=2), "examined": 3}
    with pytest.raises(IdentityError, match="things started with 4 keys, examined 4, and counted 3 verdicts"):
        merged_json(report("things", matching=1), wrong)


def test_reasons_of_several_phases_are_added():
    part = report("things", Finding(Verdict.REJECTED, "a", reason=Refusal("r")))
    assert merged_json(part, part)["reasons"] == {"rejected: r": 2}


# --- small enough ---------------------------------------------------------------------------------------------------


def _sized(number: int) -> Any:
    return {"collections": [report("things", *[Finding(Verdict.MISSING, f"k{i}") for i in range(number)])]}


def test_a_report_that_fits_is_left_as_it_is():
    whole = _sized(20)
    size = len(json.dumps(whole, ensure_ascii=False).encode())
    assert "samples_shown" not in fit(whole, size)
    assert len(whole["collections"][0]["samples"]["missing"]) == 20
    assert fit(whole, size - 1)["samples_shown"] == 10
    assert [s["key"] for s in whole["collections"][0]["samples"]["missing"]] == [f"k{i}" for i in range(10)]


def test_a_report_that_never_fits_keeps_counts_and_no_samples():
    whole = fit(_sized(20), 10)
    assert whole["samples_shown"] == 0
    assert whole["collections"][0]["samples"] == {}
    assert whole["collections"][0]["counts"]["missing"] == 20


def test_a_report_is_measured_in_bytes_whatever_its_script():
    found = [Finding(Verdict.MISSING, "가" * 100) for _ in range(20)]
    whole: Any = {"collections": [report("things", *found)]}
    characters = len(json.dumps(whole, ensure_ascii=False))
    assert fit(whole, characters)["samples_shown"] < 20, "three bytes each"


def test_the_limit_is_60_000_bytes():
    small: Any = {"collections": [{"samples": {"missing": ["k"] * 20}}], "padding": ""}
    rest = len(json.dumps(small).encode())
    fits: Any = {**small, "padding": "x" * (60_000 - rest)}
    assert "samples_shown" not in fit(fits)
    fits["padding"] += "x"
    assert "samples_shown" in fit(fits)


# --- as a person reads it -------------------------------------------------------------------------------------------


def test_the_table_leaves_out_what_is_zero_everywhere():
    """The bill always stands in it."""
    found = [report("things", matching=1234, billed_reads=200_000, seconds=2.5, inserted=3), report("others")]
    shown = table(found)
    assert shown.header == ["collection", "examined", "matching", "inserted", "billed reads", "cost", "seconds"]
    assert shown.rows == [
        ["things", "1,234", "1,234", "3", "200,000", "$0.12", "2.5"],
        ["others", "0", "-", "-", "-", "-", "-"],
    ]


def test_a_table_of_counts_alone_has_no_column_of_zeros():
    """After a dry run both sides are counted, and nothing is examined key by key."""
    shown = table([report("things", source_count=4, target_count=5)])
    assert shown.header[:3] == ["collection", "documents", "rows"]
    assert shown.rows[0][:3] == ["things", "4", "5"]
    assert len(shown.rows[0]) == len(shown.header)


def test_each_number_has_a_column_by_its_name():
    numbers = {name: n for n, name in enumerate(NUMBERS[3:], 5)}
    told = report("things", Finding(Verdict.IN_FLIGHT, "a"), **numbers, source_count=40, target_count=41)
    shown = table([told])
    by_name = dict(zip(shown.header, shown.rows[0], strict=True))
    assert by_name == {
        "collection": "things", "examined": "1", "in flight": "1", "stray": "5", "unlocatable": "6", "counters lag": "7",
        "order decides": "8", "expected": "9", "inserted": "10", "updated": "11", "deleted": "12", "parents inserted": "13", "documents": "40",
        "rows": "41", "billed reads": "-", "cost": "-", "seconds": "-",
    }  # fmt: skip


def test_if_anything_was_verified_it_has_a_column_of_its_own():
    shown = table([report("things", verification="rows_match"), report("others")])
    assert shown.header[-1] == "verification"
    assert [row[-1] for row in shown.rows] == ["rows match", ""]
    assert all(len(row) == len(shown.header) for row in shown.rows)


def test_a_collection_not_examined_says_so_and_shows_no_number():
    """It says so in the table."""
    unread = CollectionReport("others", "look", not_examined="too large", billed_reads=5).as_json()
    shown = table([report("things", matching=1), unread])
    assert shown.rows[1] == ["others", "NOT EXAMINED", "", "", "", ""]
    assert len(shown.header) == 6


def test_the_title_of_samples_tells_how_many_of_how_many():
    """They are items below it."""
    told = report("things", *[Finding(Verdict.IN_FLIGHT, f"k{i}") for i in range(1500)])
    [block] = samples([told])
    assert isinstance(block, Items)
    assert block.title == "things, in flight (1,500, 20 shown)"
    assert len(block.items) == 20
    unread = CollectionReport("others", "look", not_examined="it is too large").as_json()
    assert samples([unread]) == [Paragraph("others was not examined: it is too large", strong=True)]


def test_a_reason_that_many_share_is_a_count_and_a_few_keys():
    """Seventy rejections with one reason were twenty equal lines."""
    many = [Finding(Verdict.REJECTED, f"k{i}", reason=Refusal("wrong_type: a is a string")) for i in range(70)]
    few = [Finding(Verdict.REJECTED, f"x{i}", reason=Refusal("not_an_id: b")) for i in range(3)]
    [block] = samples([report("things", *few, *many)])
    assert isinstance(block, Items)
    assert block.title == "things, rejected (73, 6 shown)"
    assert block.items[0] == "70 with the reason wrong_type: a is a string"
    assert [item[0] for item in block.items[1:]] == ["x0", "x1", "x2", "k0", "k1", "k2"]


def test_a_sample_is_one_line_of_what_is_known_of_it():
    found = Finding(
        Verdict.STALE,
        "k",
        "things/k",
        columns=("a", "b"),
        reason=Refusal("r"),
        cause=Cause(Why.ATTEMPTED_FAILED),
        excused=True,
    )
    [block] = samples([report("things", found)])
    assert isinstance(block, Items)
    assert block.items == [  # the path last: it is long, and a log doesn't wrap
        ["k", "(r)", "differs in a, b", "cause: attempted_failed", "excused", "at", "things/k"],
    ]
    assert [isinstance(part, Code) for part in block.items[0]] == [True, *[False] * 5, True]
    [bare] = samples([report("things", Finding(Verdict.MISSING, "k"))])
    assert isinstance(bare, Items)
    assert bare.items == [["k"]]


def test_counts_are_listed_in_words_without_zeros():
    counts = report("things", Finding(Verdict.IN_FLIGHT, "a"), matching=1200)["counts"]
    assert listed(counts) == "1 in flight, 1,200 matching"
    assert listed(counts, [Verdict.IN_FLIGHT, Verdict.MISSING]) == "1 in flight"
    assert listed({}) == ""


def test_the_verdicts_of_all_collections_are_added():
    both = total([report("things", matching=2), report("others", Finding(Verdict.MISSING, "a"), matching=3)])
    assert {v: n for v, n in both.items() if n} == {"matching": 5, "missing": 1}
