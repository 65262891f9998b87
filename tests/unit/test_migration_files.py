"""Files are refused by name and line before anything runs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dev.new_migration import create
from dualwrite.migrations.files import read_file, read_folder, split
from dualwrite.model.errors import MigrationError

REFUSED = {
    "20260101_short.sql": ("SELECT 1;", "named <14 digits>_<name>.sql"),
    "20260101000000_Upper.sql": ("SELECT 1;", "named <14 digits>_<name>.sql"),
    "20260101000000_empty.sql": ("  \n-- nothing\n", "has none"),
    "20260101000001_tail.sql": ("SELECT 1;\n\nSELECT 2", "ends inside a statement begun on line 3"),
    "20260101000002_quote.sql": ("SELECT 1;\nSELECT 'it;\n", "ends inside a quote begun on line 2"),
    "20260101000003_comment.sql": ("SELECT 1;\n/* open /* nested */\n", "ends inside a comment begun on line 2"),
    "20260101000004_dollar.sql": ("DO $x$ BEGIN\n END $y$;", "ends inside a $x$ quote begun on line 1"),
    "20260101000005_commit.sql": ("CREATE TABLE x ();\nCOMMIT;", "line 2"),
    "20260101000006_two.sql": (
        "-- dualwrite: no-transaction\nCREATE INDEX CONCURRENTLY i ON t (a);\nSELECT 1;",
        "one statement a file",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_by_name_and_rule(tmp_path, name):
    text, message = REFUSED[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(MigrationError) as refused:
        read_folder(tmp_path)
    assert name in str(refused.value)
    assert message in str(refused.value)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path):
    (tmp_path / "20260101000000_latin.sql").write_bytes(b"SELECT 1;\nSELECT '\xe9';\n")
    with pytest.raises(MigrationError, match=r"latin\.sql, line 2"):
        read_folder(tmp_path)


def test_two_files_of_one_version_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"20260101000000_{name}.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationError, match="_a.sql and 20260101000000_b.sql"):
        read_folder(tmp_path)


def test_semicolons_in_quotes_comments_and_functions_end_nothing():
    text = """
    -- a; b
    SELECT 'a;''b;', E'it\\'s;', "odd;name" /* ; /* ; */ */;
    CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $body$
    BEGIN
      RETURN 1; -- $other$
    END $body$;
    SELECT $1;
    ;
    """
    statements = split(text, "x")
    assert [s.line for s in statements] == [3, 4, 8]
    assert statements[1].text.endswith("$body$")


def test_the_header_says_that_a_file_runs_outside_a_transaction(tmp_path):
    path = tmp_path / "20260101000000_index.sql"
    path.write_text("-- why\n-- dualwrite: no-transaction\nCREATE INDEX CONCURRENTLY i ON t (a);")
    assert read_file(path).transactional is False
    path.write_text("CREATE INDEX i ON t (a); -- dualwrite: no-transaction\n")
    assert read_file(path).transactional is True


def test_make_migration_makes_a_correctly_named_file_newer_than_all(tmp_path):
    (tmp_path / "20990101000000_future.sql").write_text("SELECT 1;")
    path = create("add_x", tmp_path, datetime(2026, 5, 1, tzinfo=UTC))
    assert path.name == "20990101000001_add_x.sql"
    with pytest.raises(MigrationError, match="has none"):
        read_file(path)  # empty until somebody fills it in
    with pytest.raises(SystemExit, match="made of a-z"):
        create("Add X", tmp_path)
