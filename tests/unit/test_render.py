"""One description, two forms: aligned text for a log, Markdown for an approval."""

from __future__ import annotations

from dualwrite.model import cost
from dualwrite.model.render import (
    WIDTH,
    Code,
    Heading,
    Items,
    Paragraph,
    Table,
    as_markdown,
    as_text,
    moment,
    wrapped,
)  # fmt: skip

TABLE = Table(["collection", "examined"], [["posts", "1,234"], ["user_board_permissions", "5"]])


def test_a_log_shows_a_table_in_aligned_columns():
    assert as_text([TABLE]).splitlines() == [
        "collection              examined",
        "----------------------  --------",
        "posts                      1,234",
        "user_board_permissions         5",
    ]


def test_an_approval_shows_the_same_table_as_markdown():
    assert as_markdown([TABLE]).splitlines()[:3] == [
        "| collection | examined |",
        "| --- | ---: |",
        "| posts | 1,234 |",
    ]


def test_the_blocks_stand_in_their_order_with_a_line_between():
    blocks = [Heading("Title"), Paragraph("Verdict.", strong=True), Items("Samples", [["at", Code("a/b")]])]
    assert as_text(blocks) == 'Title\n=====\n\nVerdict.\n\nSamples\n  - at "a/b"'
    assert as_markdown(blocks) == '## Title\n\n**Verdict.**\n\n**Samples**\n\n- at `"a/b"`'


def test_markup_in_a_text_is_shown_and_not_rendered():
    shown = as_markdown([Paragraph("<img src=x> [a](b) **c** | d")])
    assert shown == r"\<img src=x\> \[a\](b) \*\*c\*\* \| d"


def test_prose_is_wrapped_and_a_link_is_never_cut():
    link = "https://airflow.example.org/dags/reconcile_dual_writes/" + "x" * 100
    lines = wrapped("word " * 60 + link).splitlines()
    assert lines[-1] == link
    assert all(len(line) <= WIDTH for line in lines[:-1])


def test_reads_are_told_in_dollars():
    assert cost.dollars(1_000) == "less than a cent"
    assert cost.dollars(52_000_000) == "about $31.20"


def test_no_line_of_a_log_is_longer_than_its_window():
    """Airflow's log view doesn't wrap: a wide table goes on below, and a list is wrapped under its own item."""
    names = [f"column {i:02}" for i in range(20)]
    wide = Table(["collection", *names], [["user_board_permissions", *map(str, range(20))]])
    reason = " ".join(["because"] * 30)
    items = Items("Samples " * 20, [[Code("k"), f"({reason})", "at", Code("boards/" + "b" * 120)]])
    lines = as_text([wide, items]).splitlines()
    assert [line for line in lines if len(line) > WIDTH] == ['    "boards/' + "b" * 120 + '"'], "a path is never cut"
    told = [line.split("  ") for line in lines if line.startswith("collection ")]
    assert [name.strip() for line in told for name in line[1:] if name.strip()] == names, "each column once, in order"
    assert sum(line.startswith("user_board_permissions") for line in lines) == len(told) == 3
    assert as_markdown([wide]).count("collection") == 1, "an approval scrolls"


def test_an_instant_is_told_with_its_zone():
    """An operator in Seoul would read a bare time nine hours wrong."""
    assert moment("2026-11-29T16:05:59+09:00") == "2026-11-29 07:05 UTC"
    assert moment("2026-11-29T07:05:59+00:00") == "2026-11-29 07:05 UTC"
