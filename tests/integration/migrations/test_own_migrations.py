"""A folder of the app's own migrations beside the bundle's, and an installation of before they were told apart."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from dev import schema_snapshot
from dev.airflow_home import ROOT
from dualwrite import migrations, postgres, settings
from dualwrite.migrations.files import folders, list_folders
from dualwrite.model.errors import MigrationError
from tests.migrating import NUMBER, execute, migrator, states
from tests.refusals import coded

OWN = {
    "20260116120000_wishes.sql": "CREATE SCHEMA app;\nCREATE TABLE app.wishes (id TEXT PRIMARY KEY, said TEXT);\n",
    "20270101000000_more.sql": "ALTER TABLE app.wishes ADD COLUMN more INT NOT NULL DEFAULT 0;\n",
}
BUNDLE = len(list((ROOT / "sql/migrations").glob("*.sql")))


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A folder of one's own that the setting names."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, text in OWN.items():
        (folder / name).write_text(text)
    monkeypatch.setenv(settings.MIGRATIONS, str(folder))
    return folder


@pytest.fixture
def another_app(monkeypatch) -> None:
    """A catalog of one's own: migrations ask only whether there is one."""
    monkeypatch.setenv(settings.CATALOG, "my_app.catalog")


def _snapshot(own: Path, dsn: str) -> None:
    """`make snapshot`, on a database of the test's."""
    (own / "snapshot.json").write_text(json.dumps(schema_snapshot.take_own(dsn, own).as_json()))


def _verified(dsn: str, steps: list[migrations.Step]) -> list[str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return migrations.verify(connection, steps)


def _tables(dsn: str, schema: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {n for (n,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,))}


def test_an_own_catalog_makes_no_table_of_the_shipped_app(own, another_app, empty_dsn):
    steps = migrator(empty_dsn).run()
    assert states(steps) == ["applied"] * (BUNDLE + len(OWN))
    assert [s.version for s in steps] == sorted(s.version for s in steps), "one order"
    assert _tables(empty_dsn, "public") == set()
    assert _tables(empty_dsn, "app") == {"wishes"}
    assert states(migrator(empty_dsn).run()) == ["applied"] * len(steps)


def test_ones_own_files_are_verified_by_a_snapshot_of_their_own(own, another_app, empty_dsn, phase1_dsn):
    execute(phase1_dsn, "DROP TABLE IF EXISTS app.wishes")
    _snapshot(own, phase1_dsn)
    assert set(json.loads((own / "snapshot.json").read_text())["files"]) == {name.removesuffix(".sql") for name in OWN}
    steps = migrator(empty_dsn).run()
    assert _verified(empty_dsn, steps) == []
    execute(empty_dsn, "ALTER TABLE app.wishes DROP COLUMN said")
    assert _verified(empty_dsn, steps) == ["app.wishes.said: column missing (promised text)"]
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        report = migrations.build_report(connection, migrations.MigrationParams(), "r", [], [])
    assert report["web_client_tables"] == [], "they are the shipped app's"
    (own / "snapshot.json").unlink()
    assert "20260116120000_wishes: no snapshot.json says what it promises; run `make snapshot`" in _verified(
        empty_dsn, steps
    )


def test_an_own_snapshot_builds_on_the_tables_of_production(own, another_app, empty_dsn):
    (own / "local").mkdir()
    (own / "local/phase1.sql").write_text("CREATE TABLE public.there (id INT);\n")
    (own / "20270102000000_alter.sql").write_text("ALTER TABLE there ADD COLUMN a INT;\n")
    taken = schema_snapshot.take_own(empty_dsn, own)
    assert taken.files["20270102000000_alter"]["public.there"]["column"] == {"a": "integer"}


def test_beside_the_shipped_catalog_ones_own_folder_comes_on_top(own, phase1_dsn):
    steps = migrator(phase1_dsn).run()
    assert states(steps) == ["applied"] * (NUMBER + len(OWN))
    assert {"drafts", "reviews"} <= _tables(phase1_dsn, "public")


def test_a_new_bundle_file_may_be_older_than_the_apps_newest(own, another_app, empty_dsn, tmp_path):
    """The app's files are dated as it likes: the bundle's next version must not have to wait for a newer date, nor theirs."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "20260101000000_a.sql").write_text("CREATE SCHEMA ours;\n")
    among = [bundle, own]
    one = migrations.Migrator(
        lambda: postgres.connect(empty_dsn), migrations.MigrationParams(mode="apply"), "run", among=among
    )
    one.run()
    (bundle / "20260102000000_b.sql").write_text("CREATE TABLE ours.b (a INT);\n")
    assert states(one.run()) == ["applied"] * 4
    (bundle / "20260101120000_c.sql").write_text("CREATE TABLE ours.c (a INT);\n")
    with pytest.raises(MigrationError, match="older than 20260102000000"):
        one.run()


def test_a_version_in_two_folders_is_refused_with_both_places(own, another_app, empty_dsn):
    taken = next((ROOT / "sql/migrations").glob("*.sql")).name[:14]
    (own / f"{taken}_x.sql").write_text("SELECT 1;\n")
    with pytest.raises(
        MigrationError,
        check=coded("migration-version-twice"),
        match=f"(own|migrations)/{taken}.* and (own|migrations)/{taken}",
    ):
        migrator(empty_dsn).run()


def test_a_missing_folder_of_ones_own_is_named_with_its_setting(own, another_app, empty_dsn, monkeypatch):
    monkeypatch.setenv(settings.MIGRATIONS, str(own / "gone"))
    with pytest.raises(
        MigrationError, match="own/gone.*DUALWRITE_MIGRATIONS", check=coded("own-migrations-folder-missing")
    ):
        migrator(empty_dsn).run()


def test_the_shipped_apps_web_client_is_refused_beforehand(own, another_app, empty_dsn):
    """Nothing is applied."""
    with pytest.raises(MigrationError, check=coded("web-client-of-shipped-catalog")):
        migrator(empty_dsn, web_client="anon").run()
    assert _tables(empty_dsn, "dualwrite") == set()


def test_the_shipped_app_with_its_catalog_moved_names_its_folder(phase1_dsn, another_app, monkeypatch):
    """Its files are applied already: without their folder the ledger holds a file that is gone, and says what to do."""
    monkeypatch.delenv(settings.CATALOG)
    migrator(phase1_dsn).run()
    monkeypatch.setenv(settings.CATALOG, "my_app.catalog")
    with pytest.raises(MigrationError, match="its file is gone.*name that in DUALWRITE_MIGRATIONS"):
        migrator(phase1_dsn).run()
    monkeypatch.setenv(settings.MIGRATIONS, "sql/shipped_app")
    steps = migrator(phase1_dsn).run()
    assert states(steps) == ["applied"] * NUMBER
    assert _verified(phase1_dsn, steps) == []


HELD = {
    "20260115000000_add_drafts_reviews": "fa0a4a0d6c4088f9251793d6af5eea02b1fea05c888d83d6ba8b08b1122f65ea",
    "20260115000100_dualwrite_schema": "04d02888b4d719d8a9878d8c19a0d5a39a795b73ac7c79a1343792faf3567966",
    "20260115000300_close_dualwrite": "4f2e0f3cab7ac140a861f20b88b048e97b06eb544b431d962219544e300736c0",
    "20260116000000_excuses_and_causes": "1bfc544fc2ab4293dc560fe81fc19f46c0b672b2073a9372b1c8f5031e4148f6",
    "20260117000000_count_baselines": "ebcea232d15c8f695fd5d74fbc4bc7b487383ca95cd3cde37807eb7bce944c6c",
    "20260118000000_slices": "dd36a2e0fe8f5f50f442ec2b3216c28ba8533eeffed9df40c48b47b0b04aa403",
    "20260127000000_bounds": "51cea3b068751c7444e8fceb0299108943b8cdcfd4d2239f6e7b34d901fa9cb3",
}
"""What the ledger of an installation says whose migrations lay in one folder: each file's sha256."""


def test_an_old_installation_upgrades_without_a_step_by_hand(phase1_dsn, tmp_path):
    """The shipped app's file lay among the bundle's: what the ledger holds is the same files with the same hashes."""
    one = tmp_path / "migrations"
    one.mkdir()
    for file in list_folders(folders()):
        if file.label in HELD:
            (one / file.path.name).write_bytes(file.path.read_bytes())
    ledger = "SELECT xmin::text, version || '_' || name, sha256 FROM dualwrite.migrations ORDER BY version LIMIT %s"
    migrator(phase1_dsn, one).run()
    with psycopg.connect(phase1_dsn, autocommit=True) as connection:
        before = connection.execute(ledger, (len(HELD),)).fetchall()
        assert {label: sha256 for _, label, sha256 in before} == HELD
        steps = migrator(phase1_dsn).run()
        assert states(steps) == ["applied"] * NUMBER
        assert connection.execute(ledger, (len(HELD),)).fetchall() == before, "nothing was applied again"
    assert _verified(phase1_dsn, steps) == []
