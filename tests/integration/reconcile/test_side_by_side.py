"""One difference on the table: to the terminal of whoever may read both databases, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable

import pytest

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Source
from dualwrite.model.errors import ParameterError
from dualwrite.postgres.target import Target
from dualwrite.runs import side_by_side
from tests.integration.reconcile.world import attempted, create, edit_that_moves_none, execute, now
from tests.refusals import coded
from tests.worlds import post


@pytest.fixture
def shown(world, emulator, target_dsn) -> Callable[[str], str]:
    def lines(difference: str, width: int = 100) -> str:
        with (
            Source(world.project, emulator_host=emulator) as source,
            Target(lambda: postgres.connect(target_dsn), CATALOG) as target,
        ):
            return "\n".join(side_by_side.shown(source, target, CATALOG, difference, width))

    return lines


def _line(text: str, column: str) -> str:
    [found] = [line for line in text.splitlines() if line[2:].startswith(f"{column} ")]
    return " ".join(found.split())


def test_a_stale_row_stands_beside_its_document(world, target_dsn, run, shown):
    """It shows what differs."""
    edit_that_moves_none(world, target_dsn)
    attempted(target_dsn, "comment:update:cp1")
    run(scope="sweep")
    text = shown("comments:cp1")
    assert _line(text, "content").startswith("≠ content edited ")
    assert not _line(text, "post_id").startswith("≠")
    assert "document  boards/b1/posts/p1/comments/cp1" in text
    assert "open as   stale since" in text
    assert "comment:update:cp1:" in text
    assert "insert by" in text, "the backfill wrote it"


def test_a_row_or_a_document_alone_and_a_rejection_are_shown(world, target_dsn, run, shown):
    create(world, target_dsn)
    world.document("boards/b1/posts/p2").delete()
    world.document("boards/b1/posts/broken").set(post(createdAt=now(), title=7))
    run(scope="sweep")
    assert "row       not there" in shown("posts:new")
    assert "document  boards/b1/posts/p2\n            not there" in shown("posts:p2")
    assert "can't become a row: " in shown("posts:broken")
    with pytest.raises(ParameterError, check=coded("difference-unknown")):
        shown("posts:never")


def test_content_can_not_command_the_terminal(world, target_dsn, run, shown):
    """A title may hold an escape sequence; and a long one is wrapped, not cut."""
    title = "\x1b[2J\x07" + "word " * 60
    world.document("boards/b1/posts/p1").update({"title": title, "updatedAt": now()})
    run()
    text = shown("posts:p1", 80)
    assert not any(c in text for c in "\x1b\x07")
    assert text.count("word") == 60
    execute(target_dsn, "SELECT 1")


def test_it_writes_to_a_terminal_and_to_nothing_else():
    """A pipe or a file would keep what was shown."""
    command = [sys.executable, "-m", "dualwrite.edge.difference", "nothing"]
    environment = {**os.environ, "PYTHONPATH": "dags"}
    piped = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert (piped.returncode, piped.stdout) == (2, "")
    assert "writes to a terminal only" in piped.stderr
    ours, theirs = pty.openpty()
    shown = subprocess.run(
        command, stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment, timeout=120, check=False
    )
    os.close(ours)
    os.close(theirs)
    assert "Name one difference, as collection:key" in shown.stderr
