"""Files are refused by name and line before anything runs."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dev.new_migration import create
from dualwrite.migrations.files import read_file, read_folders, sql_folder
from dualwrite.migrations.parser import split
from dualwrite.migrations.rules import created_objects
from dualwrite.model.errors import MigrationError
from tests.refusals import coded

REFUSED = {
    "20260101_short.sql": ("SELECT 1;", "not named <14 digits>_<name>.sql"),
    "20260101000000_Upper.sql": ("SELECT 1;", "not named <14 digits>_<name>.sql"),
    "20260101000000_empty.sql": ("  \n-- nothing\n", "has none"),
    "20260101000001_tail.sql": ("SELECT 1;\n\nSELECT 2", "ends inside a statement begun on line 3"),
    "20260101000002_quote.sql": ("SELECT 1;\nSELECT 'it;\n", "ends inside a quote begun on line 2"),
    "20260101000003_comment.sql": ("SELECT 1;\n/* open /* nested */\n", "ends inside a comment begun on line 2"),
    "20260101000004_dollar.sql": ("DO $x$ BEGIN\n END $y$;", "ends inside a $x$ quote begun on line 1"),
    "20260101000005_commit.sql": ("CREATE TABLE x ();\nCOMMIT;", "line 2 begins or ends a transaction"),
    "20260101000007_copy.sql": ("SELECT 1;\nCOPY t (a) FROM stdin;", "line 2 copies from or to a client"),
    "20260101000008_psql.sql": ("SELECT 1;\n\\connect app\nSELECT 2;", "line 2 is a command of psql's"),
    "20260101000009_parenthesis.sql": ("SELECT (1;\nSELECT 2;", "ends inside a statement begun on line 1"),
    "20260101000006_two.sql": (
        "-- dualwrite: no-transaction\nCREATE INDEX CONCURRENTLY i ON t (a);\nSELECT 1;",
        "holds one statement",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_by_name_and_rule(tmp_path, name):
    text, message = REFUSED[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(MigrationError) as refused:
        read_folders([tmp_path])
    assert name in str(refused.value)
    assert message in str(refused.value)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path):
    (tmp_path / "20260101000000_latin.sql").write_bytes(b"SELECT 1;\nSELECT '\xe9';\n")
    with pytest.raises(MigrationError, match=r"latin\.sql, line 2", check=coded("migration-not-utf8")):
        read_folders([tmp_path])


def test_two_files_of_one_version_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"20260101000000_{name}.sql").write_text("SELECT 1;")
    with pytest.raises(
        MigrationError, match=r"_a\.sql and \S+/20260101000000_b\.sql", check=coded("migration-version-twice")
    ):
        read_folders([tmp_path])


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


def test_a_semicolon_in_the_header_does_not_hide_the_marker(tmp_path):
    path = tmp_path / "20260101000000_index.sql"
    path.write_text("-- Needed soon; see the runbook\n/* a; b */\n-- dualwrite: no-transaction\nVACUUM t;")
    assert read_file(path).transactional is False


@pytest.mark.parametrize(
    "text",
    [
        "CREATE FUNCTION f() RETURNS INT LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END;",
        "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END;",
        "CREATE FUNCTION begin() RETURNS INT LANGUAGE sql AS 'SELECT 1';",
        "DO $본문$ BEGIN PERFORM 1; END $본문$;",
        "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b);",
        "SELECT a$1, b$x$c FROM t;",
        "SELECT U&'d\\0061t;a', e'it\\';', 'a''b;', \"a\"\";b\";",
    ],
)
def test_a_statement_that_holds_semicolons_stays_one(text):
    assert [s.text for s in split(f"-- first\n{text}\nSELECT 2;", "x")] == [text[:-1], "SELECT 2"]


def test_a_carriage_return_ends_a_comment_and_a_line():
    """As it does for Postgres. With LF alone as a line's end, the statement after it was part of the comment."""
    statements = split("-- a note\rDROP TABLE t;\r\nSELECT 2;\nSELECT 3;", "x")
    assert [(s.line, s.text) for s in statements] == [(2, "DROP TABLE t"), (3, "SELECT 2"), (4, "SELECT 3")]


def test_line_ends_and_a_byte_order_mark_dont_change_the_sha256(tmp_path):
    path = tmp_path / "20260101000000_a.sql"
    kinds = (b"-- a\nSELECT 1;\n", b"-- a\r\nSELECT 1;\r\n", b"\xef\xbb\xbf-- a\r\nSELECT 1;\n")
    found = set()
    for raw in kinds:
        path.write_bytes(raw)
        found.add(read_file(path).sha256)
    assert found == {hashlib.sha256(kinds[0]).hexdigest()}


def test_git_keeps_line_ends_as_they_are(tmp_path):
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run(
        ["git", "check-attr", "eol", "sql/shipped_app/20260115000000_add_drafts_reviews.sql"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.strip().endswith("eol: lf")


def test_what_other_programs_leave_in_the_folder_blocks_nothing(tmp_path):
    (tmp_path / "20260101000000_a.sql").write_text("SELECT 1;")
    (tmp_path / ".DS_Store").write_bytes(b"\x00\xff")
    (tmp_path / "._20260101000000_a.sql").write_bytes(b"\x00\xff")
    (tmp_path / "README.md").write_text("what these are")
    assert [f.path.name for f in read_folders([tmp_path])] == ["20260101000000_a.sql"]
    (tmp_path / "20260101000001_b.SQL").write_text("SELECT 1;")
    with pytest.raises(MigrationError, match=r"b\.SQL", check=coded("migration-misnamed")):
        read_folders([tmp_path])


def test_what_a_file_creates_is_told_by_kind_and_place():
    text = """
    CREATE TABLE a (x INT); CREATE TABLE IF NOT EXISTS b (x INT); CREATE TEMP TABLE c (x INT);
    CREATE UNIQUE INDEX I ON app.t (x); CREATE INDEX ON t (x); CREATE OR REPLACE VIEW v AS SELECT 1;
    DROP VIEW w; CREATE VIEW w AS SELECT 1; CREATE MATERIALIZED VIEW "M" AS SELECT 1; CREATE SEQUENCE app.s;
    SET LOCAL search_path = app; CREATE TABLE somewhere (x INT); CREATE TABLE public.d (x INT);
    """
    assert [str(c) for c in created_objects(split(text, "x"))] == [
        "table a", "index app.i", "view M", "sequence app.s", "table d",
    ]  # fmt: skip


def test_the_sql_folder_is_found_beside_the_dags_or_inside_them(tmp_path):
    """If it is at neither place, it is said to be missing."""
    package = tmp_path / "dags" / "dualwrite" / "migrations" / "files.py"
    package.parent.mkdir(parents=True)
    with pytest.raises(MigrationError, match="/sql nor in .*/dags/sql", check=coded("migrations-folder-missing")):
        sql_folder(package)
    inside = tmp_path / "dags" / "sql"
    (inside / "migrations").mkdir(parents=True)
    assert sql_folder(package) == inside
    (tmp_path / "sql").symlink_to(inside)
    assert sql_folder(package) == tmp_path / "sql"


def test_make_migration_makes_a_well_named_file_newer_than_all(tmp_path):
    (tmp_path / "20990101000000_future.sql").write_text("SELECT 1;")
    path = create("add_x", tmp_path, datetime(2026, 5, 1, tzinfo=UTC))
    assert path.name == "20990101000001_add_x.sql"
    with pytest.raises(MigrationError, check=coded("migration-empty")):
        read_file(path)  # empty until somebody fills it in
    with pytest.raises(SystemExit, match="made of a-z"):
        create("Add X", tmp_path)
