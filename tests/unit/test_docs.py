"""What pages name exists: files, headings, targets, messages. Their commands are run by tests/integration/dev/test_docs.py."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import psycopg
import pytest

from dev.airflow_home import ROOT
from tests.pages import BLOCKS, DOCS, FENCE, PAGES, TARGETS, run_here

PICTURES = ROOT / "docs/pictures"
MOST_WORDS = 14_340
LANGUAGES = {"sh", "sql", "python", "json", "ini", "yaml", "text", "mermaid"}


def test_every_block_says_what_it_is():
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block.page}: name the language of the block\n{block.text}"
        assert set(block.info.split()[1:]) <= {"production"}, block.info


def test_no_command_stands_outside_a_block():
    for page in PAGES:
        bare = FENCE.sub("", page.read_text())
        assert not re.search(r"^ {4,}(make|docker|psql|pip|airflow|python|uv) ", bare, re.MULTILINE), (
            f"{page.name}: fence it"
        )


def test_python_and_json_in_the_docs_are_that():
    for block in run_here("python"):
        compile(block.text, block.page, "exec")
    for block in run_here("json"):
        json.loads(block.text)


def test_what_ways_through_the_code_name_is_in_the_named_file():
    way = re.compile(r"^ {4}(\S.*?)  +(\w+/\w+\.py(?:, \w+\.py)*)", re.MULTILINE)
    ways = way.findall((ROOT / "docs/architecture.md").read_text())
    assert len(ways) > 8
    for names, files in ways:
        folder = files.split("/")[0]
        text = "".join((ROOT / "dags/dualwrite" / folder / Path(f).name).read_text() for f in files.split(", "))
        for name in re.findall(r"\w+", names.replace("[n]", "")):
            assert re.search(rf"(def|class) {name}\b", text), f"{name} is not in {files}"


def _anchors(page: Path) -> set[str]:
    """What GitHub makes of the page's headings: of two alike, the second one ends in -1."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        same = found.count(slug)
        found.append(f"{slug}-{same}" if same else slug)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_the_pages_lead_somewhere(page):
    """To a file that exists, and to a heading that this page has."""
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", FENCE.sub("", page.read_text())):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        if link.endswith(".png") and not PICTURES.is_dir():
            continue  # made by the end-to-end tests: SCREENSHOTS=docs/pictures make test
        target = (page.parent / link).resolve() if link else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in _anchors(target), f"{page.name}: {link}#{anchor}"


def test_pages_that_code_names_exist():
    """Messages and docstrings send people there."""
    code = [
        *(ROOT / "dags").rglob("*.py"),
        *(ROOT / "plugins").rglob("*.*"),
        *(ROOT / "dev").rglob("*.py"),
        ROOT / "Makefile",
    ]
    for file in code:
        if file.suffix in {".py", ".js", ".md", ""}:
            for name, anchor in re.findall(r"docs/([\w-]+\.(?:md|json))(?:#([\w-]+))?", file.read_text()):
                assert (ROOT / "docs" / name).exists(), f"{file}: docs/{name}"
                assert not anchor or anchor in _anchors(ROOT / "docs" / name), f"{file}: docs/{name}#{anchor}"


def test_all_pages_together_stay_short():
    """Each page grows by a sentence at a time, and nobody reads the whole. Over the bound: say a thing once, and link to it."""
    pages = [ROOT / "README.md", *(page for page in DOCS if page.name != "licences.md")]  # that one is generated
    words = sum(bool(re.search(r"\w", word)) for page in pages for word in page.read_text().split())
    assert words <= MOST_WORDS


def test_the_page_for_developers_lists_every_target_of_make():
    page = (ROOT / "docs/development.md").read_text()
    assert {t for t in TARGETS if f"`make {t}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_command_in_running_text_exists(page):
    text = page.read_text()
    assert set(re.findall(r"`make ([a-z]+)", text)) <= TARGETS
    for module in re.findall(r"`(?:PYTHONPATH=\S+ )?python -m (benchmarks\.\w+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module
    for path in re.findall(r"`((?:dags|sql|dev|tests|benchmarks|docs|plugins)/[\w./]+\.\w+)`", text):
        assert (ROOT / path).exists() or (ROOT / "dags/dualwrite" / path).exists(), path


def test_a_days_reads_are_the_sum_of_the_measured_runs():
    """The page multiplies figures of its own table: each must be in that table, and the sum must be right."""
    page = (ROOT / "docs/performance.md").read_text()
    a_run, a_sweep, a_day = re.search(r"96 × ([\d,]+) \+ ([\d,]+) = ([\d,]+) reads", " ".join(page.split())).groups()
    assert re.search(rf"^\| scheduled reconciliation.* {a_run} \|$", page, re.MULTILINE)
    assert re.search(rf"^\| sweep \|.* {a_sweep} \|$", page, re.MULTILINE)
    assert 96 * int(a_run) + int(a_sweep.replace(",", "")) == int(a_day.replace(",", ""))


def test_one_index_leads_to_every_page():
    """docs/README.md, to which the README links: two lists would have to be kept in step."""
    assert "(docs/README.md)" in (ROOT / "README.md").read_text()
    index = (ROOT / "docs/README.md").read_text()
    assert [p.name for p in DOCS if f"({p.name})" not in index and p.name != "README.md"] == []


def test_the_readme_says_for_whom_and_what_to_try_first():
    """On the first screen: what it is, for whom, what is needed above the commands, then a picture and a report."""
    first = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    assert "dual-writes to **Firestore** and **Supabase Postgres**" in first
    assert "You need Python" in first.partition("make up")[0]
    assert not re.search(r"stale|extra|orphan", first.partition("make up")[0]), "verdicts come after the commands"
    assert "docs/pictures/parity-drift.png" in first
    assert "differences are open" in first
    assert "make demo" in first
    assert "make test" in first


def test_a_dag_file_is_as_short_as_contributors_are_told():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    lines, of_docstring = re.search(r"in at most (\d+) lines\. Its docstring .*at most\s+(\d+) lines", page).groups()
    for path in (ROOT / "dags").glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= int(lines), path
        assert len((ast.get_docstring(ast.parse(text)) or "").splitlines()) <= int(of_docstring), path


# --- messages -------------------------------------------------------------------------------------------------------

_TABLE = re.compile(r"^\| (?:the message says|reason) \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
_CONDITION = re.compile(r"([A-Z][A-Za-z]+) ([0-9A-Z]{5})")


def _said() -> str:
    """The texts in the code, without docstrings; what is filled in is an ellipsis."""
    texts = []
    for path in (ROOT / "dags").rglob("*.py"):
        tree = ast.parse(path.read_text())
        docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                texts.append(node.value)
    return "\n".join(texts).lower()


def _is_postgres(part: str) -> bool:
    """Whether it is an error's name, with its condition's code if it has one, as messages give it."""
    if (found := _CONDITION.fullmatch(part)) is not None:
        return psycopg.errors.lookup(found[2]).__name__ == found[1]
    return isinstance(getattr(psycopg, part, None), type)


def test_the_messages_that_a_page_explains_are_said():
    """A person searches the page for a part of the message that they got."""
    said = _said()
    rows = [line for page in DOCS for table in _TABLE.findall(page.read_text()) for line in table.splitlines()]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    messages = [cell[0] for cell in cells if cell[1].strip("| ")]
    parts = [p.strip("` ") for m in messages for p in re.split(r", | / |\.\.\.|\(\.\.\.\)|\(a warning\)", m)]
    assert len(parts) > 50, "a row may explain several"
    assert [p for p in parts if p and p.lower() not in said and not _is_postgres(p)] == []
