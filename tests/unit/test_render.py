"""One description, two forms: aligned text for a log, Markdown for an approval."""

from __future__ import annotations

from dualwrite.model import cost
from dualwrite.model.render import WIDTH, Code, Heading, Items, Paragraph, Table, as_markdown, as_text, wrapped

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
