"""Every command in the documentation is run here, or says that it needs production. So a page can't rot in silence.

`sh production` marks what acts on accounts that no test has. What pages say of files and messages: tests/unit/test_docs.py.
"""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from dev.airflow_home import ROOT
from tests.pages import run_here
from tests.roles import secured

_PYTEST = ".venv/bin/python -m pytest "


@pytest.mark.parametrize("block", run_here("sh"), ids=lambda b: f"{b.page}: {b.text.strip()[:40]}")
def test_a_shell_command_is_makes_or_names_tests_that_exist(block):
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


@pytest.mark.parametrize("page", sorted({b.page for b in run_here("sql")}))
def test_the_sql_of_a_page_runs_as_who_administers_the_target(page, postgres_server):
    """In the order of the page, as the owner that Supabase's postgres is; the last statements drop all of it."""
    with secured(postgres_server, "supabase") as target:
        target.run("migrations.sql")
        target.migrate()
        target.run("data.sql")
        with psycopg.connect(target.admin, autocommit=True) as connection:
            for block in run_here("sql"):
                if block.page == page:
                    connection.execute(block.text)


def test_erasing_a_person_takes_only_their_before_images(postgres_server):
    [erasure] = [b.text for b in run_here("sql") if "UID" in b.text]
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
