"""Every command in the documentation is run here, or says that it needs production. So a page can't rot in silence.

A fenced block names its language; `sh production` marks what acts on accounts that no test has.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from dev.airflow_home import ROOT
from tests.roles import secured

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "plugins/README.md")), *DOCS]
PICTURES = ROOT / "docs/pictures"
MOST_WORDS = 20_300
LANGUAGES = {"sh", "sql", "python", "json", "ini", "yaml", "text", "mermaid"}
_PYTEST = ".venv/bin/python -m pytest "
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: str  # from the root
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.split()[0] if self.info else ""


BLOCKS = [
    Block(page.relative_to(ROOT).as_posix(), info.strip(), text)
    for page in PAGES
    for info, text in _FENCE.findall(page.read_text())
]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _of(language: str) -> list[Block]:
    return [b for b in BLOCKS if b.language == language and "production" not in b.info]


def test_every_block_says_what_it_is():
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block.page}: name the language of the block\n{block.text}"
        assert set(block.info.split()[1:]) <= {"production"}, block.info


def test_no_command_stands_outside_a_block():
    for page in PAGES:
        bare = _FENCE.sub("", page.read_text())
        assert not re.search(r"^ {4,}(make|docker|psql|pip|airflow|python|uv) ", bare, re.MULTILINE), (
            f"{page.name}: fence it"
        )


@pytest.mark.parametrize("block", _of("sh"), ids=lambda b: f"{b.page}: {b.text.strip()[:40]}")
def test_a_shell_command_is_one_of_makes_or_names_tests_that_exist(block):
    """What the targets do is what the other tests call; here it is proved that they exist and take these arguments."""
    for line in block.text.splitlines():
        command = line.split("#")[0].split()
        if _PYTEST in line:
            tests = line.split(_PYTEST)[1].split()
            arguments = [sys.executable, "-m", "pytest", "--collect-only", *tests]
            done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block.page}: no test is meant by: {line}"
        elif command:
            assert command[0] == "make", f"{block.page}: mark it `sh production`, or make a target of it: {line}"
            done = subprocess.run(["make", "-n", *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block.page}: {line}: {done.stderr}"


@pytest.mark.parametrize("page", sorted({b.page for b in _of("sql")}))
def test_the_sql_of_a_page_runs_as_who_administers_the_target(page, postgres_server):
    """In the order of the page, as the owner that Supabase's postgres is; the last statements drop all of it."""
    with secured(postgres_server, "supabase") as target:
        target.run("migrations.sql")
        target.migrate()
        target.run("data.sql")
        with psycopg.connect(target.admin, autocommit=True) as connection:
            for block in _of("sql"):
                if block.page == page:
                    connection.execute(block.text)


def test_erasing_a_person_takes_their_before_images_and_no_others(postgres_server):
    [erasure] = [b.text for b in _of("sql") if "UID" in b.text]
    with secured(postgres_server, "superuser") as target:
        target.run("migrations.sql")
        target.migrate()
        target.run("data.sql")
        with psycopg.connect(target.data, autocommit=True) as connection:
            images = {
                "u1": '{"id": "u1", "email": "a@b.c"}',
                "theirs": '{"id": "p1", "author_id": "u1"}',
                "another's": '{"id": "p2", "author_id": "u12"}',
            }
            for key, image in images.items():
                connection.execute(
                    "INSERT INTO dualwrite.repair_journal (run_id, collection, key, action, table_name, row_key, row_before) "
                    "VALUES ('r', 'c', %s, 'update', 't', jsonb_build_array(%s::text), %s)",
                    (key, key, image),
                )
            connection.execute(erasure.replace("UID", "u1"))
            left = connection.execute(
                "SELECT key FROM dualwrite.repair_journal WHERE row_before IS NOT NULL"
            ).fetchall()
    assert left == [("another's",)]


def test_python_and_json_in_the_docs_are_that():
    for block in _of("python"):
        compile(block.text, block.page, "exec")
    for block in _of("json"):
        json.loads(block.text)


def test_what_the_ways_through_the_code_name_is_in_the_file_that_they_name():
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
    for heading in re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        same = found.count(slug)
        found.append(f"{slug}-{same}" if same else slug)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_the_pages_lead_somewhere(page):
    """To a file that exists, and to a heading that this page has."""
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", _FENCE.sub("", page.read_text())):
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
