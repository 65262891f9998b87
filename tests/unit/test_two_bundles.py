"""Settings of two bundles in one Airflow, which share its environment: a file beside dags/ says what each is called."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from dev import roles
from dualwrite import catalog, settings
from dualwrite.migrations.files import bundle_folder, list_folders
from dualwrite.migrations.verify import installed_snapshot
from dualwrite.model.errors import CatalogError
from dualwrite.postgres import own_schema

NAMES = ("backfill_gap", "reconcile_repair", "dual_write_enabled", "firestore_default", "supabase_migrations")


OURS = re.compile(
    r"\b(apply_migrations|backfill_gap|reconcile_dual_writes|reconcile_$|firestore_default|supabase_default|dual_write_enabled|"
    r"dualwrite_link_|dual-write-(parity|green))"
)
DAGS = Path(settings.__file__).parents[1]
TOLD_BY_FORMS = {"gap_params.py", "migration_params.py", "reconcile_params.py"}
"""Descriptions, which forms.py passes through `said`."""


def _bare(path: Path) -> list[str]:
    """Names in Airflow that a file spells out, neither in a docstring nor as `named` or `said` makes them."""
    tree = ast.parse(path.read_text())
    fine = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("named", "said"):
            fine |= set(ast.walk(node))
        if isinstance(node, ast.Subscript):  # keys of reports
            fine |= set(ast.walk(node))
        if isinstance(node, ast.Dict):
            fine |= set(node.keys)
    return [
        f"{path.name}, line {node.lineno}: {node.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node not in fine
        and OURS.search(node.value)
    ]


def test_each_name_in_airflow_is_told_with_its_prefix():
    """DAGs, connections, Variables, assets: one that is spelled out would be shared by two bundles, or tell of the wrong one."""
    found = {line for path in DAGS.rglob("*.py") if path.name not in TOLD_BY_FORMS for line in _bare(path)}
    assert {line for line in found if not line.startswith("settings.py")} == set()


def test_no_statement_spells_the_schema_out():
    """A bundle with a prefix remembers in a schema of its own, and names it and its roles so."""
    made = {
        table
        for file in list_folders([bundle_folder()])
        for table in re.findall(r"CREATE .*TABLE .*\bdualwrite\.(\w+)", file.text)
    }
    assert {"migrations", "runs", "seen_keys"} <= made
    spelled_out = re.compile(rf"\bdualwrite(\.({'|'.join(made)})|_data|_migrations)\b|\b(SCHEMA|schema) dualwrite\b")
    spelled = [
        f"{path.name}, line {node.lineno}: {found[0]}"
        for path in DAGS.rglob("*.py")
        for tree in [ast.parse(path.read_text())]
        for docs in [{node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}]
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs
        for found in [spelled_out.search(node.value)]
        if found
    ]
    assert spelled == []


def test_files_of_a_prefixed_bundle_name_its_schema_and_roles(monkeypatch, tmp_path):
    """Whatever is applied or run by hand: migrations, what they promise, the role files and the one that prunes."""
    monkeypatch.setattr(own_schema, "SCHEMA", "dualwrite_shop")
    texts = roles.role_files(catalog.CATALOG) | {file.label: file.text for file in list_folders([bundle_folder()])}
    texts["promised"] = json.dumps(dict(installed_snapshot().files))
    for name, text in texts.items():
        assert not re.search(r"\bdualwrite(_data|_migrations)?\b(?!:)", text), name
        assert "dualwrite_shop" in text, name
    assert "GRANT USAGE ON SCHEMA dualwrite_shop TO dualwrite_shop_data;" in texts["data.sql"]


@pytest.fixture
def file(monkeypatch, tmp_path):
    """Writes the file of an installation."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    settings.from_file.cache_clear()

    def write(text: str | bytes, at: str = settings.FILE) -> None:
        (tmp_path / at).parent.mkdir(exist_ok=True)
        (tmp_path / at).write_bytes(text if isinstance(text, bytes) else text.encode())

    yield write
    settings.from_file.cache_clear()


def test_without_a_prefix_all_is_called_as_ever(monkeypatch, file):
    monkeypatch.delenv(settings.PREFIX, raising=False)
    assert [settings.named(name) for name in NAMES] == list(NAMES)
    text = "Run apply_migrations; Variable reconcile_<param> of supabase_default."
    assert settings.said(text) == text


def test_two_prefixes_have_two_schemas(monkeypatch, file):
    """And none has the schema without one. A prefix may end in any number of underscores."""
    prefixes = ["", "shop", "shop_", "shop__", "s", "s_1", "s_1_"]
    schemas = []
    for prefix in prefixes:
        monkeypatch.setenv(settings.PREFIX, prefix)
        schemas.append(settings.schema())
    assert schemas == ["dualwrite", *(f"dualwrite_{prefix}" for prefix in prefixes[1:])]


def test_a_prefix_begins_all_names_and_texts(monkeypatch, file):
    monkeypatch.setenv(settings.PREFIX, "shop")
    assert [settings.named(name) for name in NAMES] == [f"shop_{name}" for name in NAMES]
    assert settings.said(
        "[backfill_gap](/dags/backfill_gap), `reconcile_<param>`, supabase_migrations.schema, reconcile all"
    ) == (
        "[shop_backfill_gap](/dags/shop_backfill_gap), `shop_reconcile_<param>`, shop_supabase_migrations.schema, reconcile all"
    )


@pytest.mark.parametrize("place", [settings.FILE, f"dags/{settings.FILE}"])
def test_the_file_alone_counts_where_there_is_one(monkeypatch, file, tmp_path, place):
    """The environment is the other bundle's too."""
    for name in (settings.PREFIX, settings.CATALOG, settings.MIGRATIONS, "DUALWRITE_SOURCE_POOL"):
        monkeypatch.setenv(name, "others")
    file('prefix = "shop"\ncatalog = "own/catalog.py"\ntarget_pool = "shop"\n', place)
    assert settings.prefix() == "shop_"
    assert settings.named_catalog() == "own/catalog.py"
    assert settings.own_migrations() is None
    assert (settings.pool("source"), settings.pool("target")) == ("default_pool", "shop")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prefix = shop", "The settings are TOML.* as docs/deployment.md#two-apps-in-one-airflow shows"),
        (b"prefix = '\xff'", "The settings are TOML"),
        ("prefx = 'shop'", r"dualwrite.toml has 'prefx'\. Correct the file"),
        ("prefix = 1", r"each a text: .* has 'prefix'"),
        ("prefix = 'Shop'", r"A prefix is a lower-case letter.* is 'Shop'\. Correct it"),
        ("prefix = 'a/b'", "A prefix is"),
    ],
)
def test_a_setting_that_cannot_be_used_is_the_import_error(file, text, said):
    file(text)
    with pytest.raises(CatalogError, match=said):
        catalog.load()
