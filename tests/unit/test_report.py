"""Counts that must add up, and reports that stay small and private."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dualwrite.model.errors import IdentityError
from dualwrite.model.mapping import Refusal
from dualwrite.model.render import as_markdown, as_text
from dualwrite.model.report import COUNTERS, SAMPLES, CollectionReport, fit, merged, samples, table
from dualwrite.model.verdicts import VERDICTS, Finding, Verdict


def test_a_report_whose_verdicts_do_not_add_up_fails():
    report = CollectionReport("things", "gap")
    report.taken = 4
    report.add_matching(3)
    report.add(Finding(Verdict.MISSING, "a"))
    report.check_identity()
    report.examined += 1
    with pytest.raises(IdentityError, match="things started with 4 keys, examined 5, and counted 4 verdicts"):
        report.check_identity()


def test_a_key_judged_twice_or_lost_fails_the_identity():
    """The verdicts add up all the same. What was taken up is counted where it is read, and not where it is judged."""
    for taken in (1, 3):
        report = CollectionReport("things", "gap", taken=taken)
        report.add(Finding(Verdict.EXTRA, "a"))
        report.add(Finding(Verdict.EXTRA, "a" if taken == 1 else "b"))
        with pytest.raises(IdentityError):
            report.check_identity()


def test_an_unknown_verdict_fails_the_identity():
    report = CollectionReport("things", "gap", examined=1)
    report.counts["lost"] = 1
    with pytest.raises(IdentityError):
        report.check_identity()


def test_counts_are_exact_and_samples_are_capped():
    report = CollectionReport("things", "gap")
    for i in range(100):
        report.add(Finding(Verdict.STALE, f"k{i}", f"things/k{i}", columns=("title",)))
    found = report.as_json()
    assert found["counts"]["stale"] == found["examined"] == found["drift"] == 100
    assert len(found["samples"]["stale"]) == SAMPLES


def test_an_excused_difference_is_no_drift():
    report = CollectionReport("things", "gap")
    report.add(Finding(Verdict.REJECTED, "a", excused=True))
    report.add(Finding(Verdict.REJECTED, "b"))
    assert report.drift == 1


def test_the_worst_report_stays_below_64_kb():
    collections = []
    for n in range(13):
        report = CollectionReport(f"collection_{n}", "gap")
        for verdict in VERDICTS:
            for i in range(SAMPLES):
                report.add(
                    Finding(verdict, "é" * 750 + str(i), "p" * 6000, columns=("a",) * 10, reason=Refusal("r" * 50))
                )
        collections.append(report.as_json())
    made_up: Any = {"collections": collections}
    whole = fit(made_up)
    assert len(json.dumps(whole, ensure_ascii=False).encode()) < 64_000
    assert whole["collections"][0]["counts"]["missing"] == SAMPLES, "counts are never dropped"
    assert whole["samples_shown"] < SAMPLES


@pytest.mark.parametrize("form", [as_markdown, as_text])
def test_ids_can_not_forge_a_report(form):
    report = CollectionReport("things", "gap")
    report.add(Finding(Verdict.MISSING, "a\n| forged | row |`\x00<b>", "things/a\x00"))
    text = form([table([report.as_json()]), *samples([report.as_json()])])
    assert not any(line.startswith("| forged") for line in text.splitlines())
    assert "\x00" not in json.dumps(report.as_json(), ensure_ascii=False)


def full() -> CollectionReport:
    """A report in which every number is another one."""
    report = CollectionReport("things", "compare", verification="verified")
    report.add(Finding(Verdict.MISSING, "a", reason=Refusal("why")))
    report.add(Finding(Verdict.REJECTED, "b", excused=True))
    report.add_matching(3)
    report.taken = report.examined
    for n, counter in enumerate(COUNTERS):
        if counter.name not in ("examined", "excused"):
            setattr(report, counter.name, 100 + n)
    return report


def test_a_report_is_the_same_after_its_way_through_json():
    given = json.loads(json.dumps(full().as_json()))
    assert CollectionReport.from_json(given).as_json() == given
    given["scope"] = "sweep"
    assert CollectionReport.from_json(given).as_json() == {k: v for k, v in given.items() if k != "scope"}


@pytest.mark.parametrize("counter", COUNTERS, ids=lambda c: c.name)
def test_parts_of_a_collection_add_up_as_each_counter_declares(counter):
    one, other = full(), full()
    value = getattr(one, counter.name)
    assert getattr(merged([one, other]), counter.name) == (2 * value if counter.added else value)
    one.add_work(other)
    assert getattr(one, counter.name) == (2 * value if counter.work else value)


def test_merged_parts_keep_what_they_say_in_words():
    other = full()
    other.not_examined = "its task failed"
    whole = merged([full(), other]).as_json()
    assert (whole["outcome"], whole["not_examined"]) == ("not_examined", "its task failed")
    assert whole["reasons"] == {"missing: why": 2}
    assert whole["samples"]["missing"] == [{"key": "a", "reason": "why"}] * 2
    assert whole["counts"]["matching"] == 6


def test_parts_that_do_not_add_up_are_refused():
    broken = full()
    broken.counts["lost"] = 1
    with pytest.raises(IdentityError):
        merged([full(), broken])


def test_each_counter_that_holds_something_has_a_column():
    """So has the cost."""
    shown = table([full().as_json(), CollectionReport("others", "compare", not_examined="why").as_json()])
    counters = [c.heading for c in COUNTERS if c.heading]
    assert list(shown.header) == [
        "collection", "examined", "rejected", "missing", "matching", *counters[:-1], "cost", counters[-1], "verification",
    ]  # fmt: skip
    assert shown.rows[1][:2] == ["others", "NOT EXAMINED"]
    assert {len(row) for row in shown.rows} == {len(shown.header)}
    empty = table([CollectionReport("things", "compare").as_json()])
    assert list(empty.header) == ["collection", "examined", "billed reads", "cost", "seconds"]
