"""What two looks compare must be the same in every process and session."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from dualwrite import postgres
from dualwrite.catalog import CATALOG
from dualwrite.postgres.target import Target
from tests.support import one, reconciled
from tests.worlds import club, post, put

ROOT = Path(__file__).resolve().parents[3]
FINGERPRINT = """
import sys
from datetime import UTC, datetime
from dualwrite.catalog import CATALOG
from dualwrite.firestore.source import Source
from dualwrite.model.mapping import map_document
with Source(sys.argv[1], emulator_host=sys.argv[2]) as source:
    document = source.get(["boards/b1/posts/p1"], CATALOG["posts"].fields)["boards/b1/posts/p1"]
    [row] = map_document(CATALOG["posts"], document)
    print(row.fingerprint)
"""
CONTENT = {
    "type": "doc",
    "attrs": {f"name{i}": i for i in range(40)},
    "content": [{"text": "가", "marks": {"b": 1, "a": 2}}],
}


def test_a_documents_fingerprint_is_the_same_for_any_hash_seed(firestore, emulator):
    """A post with content_json, in processes of their own."""
    put(firestore, {"boards/b1/posts/p1": post(contentJson=CONTENT)})
    found = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT, firestore.project, emulator],
            env={**os.environ, "PYTHONPATH": str(ROOT / "dags"), "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1


def test_a_lost_post_with_json_is_drift_at_the_second_look(firestore, emulator, target_dsn):
    club(firestore, emulator, target_dsn)
    now = datetime.now(UTC)
    put(firestore, {"boards/b1/posts/p1": post(contentJson=CONTENT, createdAt=now, updatedAt=now)})
    script = "import sys; from tests.support import reconciled; reconciled(*sys.argv[1:4], between=sys.exit)"
    # The first look in a process of its own, that ends before the second.
    subprocess.run(
        [sys.executable, "-c", script, firestore.project, emulator, target_dsn],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'dags'}:{ROOT}", "PYTHONHASHSEED": "7"}, cwd=ROOT, check=True,
    )  # fmt: skip
    assert one(target_dsn, "SELECT reason FROM dualwrite.open_differences") == "first_look"
    assert reconciled(firestore.project, emulator, target_dsn).counts("posts") == {"missing": 1}


def test_a_rows_digest_depends_on_no_setting_of_the_session(firestore, emulator, target_dsn):
    """Neither on TimeZone nor on DateStyle."""
    club(firestore, emulator, target_dsn, {"boards/b1/posts/p1": post()})
    found = set()
    for options in ("-c TimeZone=Asia/Seoul -c DateStyle=German", "-c TimeZone=UTC", "-c DateStyle=SQL,DMY"):
        with Target(lambda options=options: postgres.connect(target_dsn, options=options), CATALOG) as target:
            found.add(target.versions(CATALOG["posts"], [("p1",)])[("p1",)][1])
            found.add(target.versions(CATALOG["users"], [("u1",)])[("u1",)][1])
    assert len(found) == 2


def test_two_documents_of_one_id_have_the_same_verdicts_each_run(firestore, emulator, target_dsn):
    """They lie on two boards."""
    club(firestore, emulator, target_dsn, {"boards/b1/posts/p1": post()})
    put(firestore, {"boards/b2/posts/p1": post(title="the other")})
    said = [reconciled(firestore.project, emulator, target_dsn, scope="sweep") for _ in range(2)]
    assert [s.counts("posts") for s in said] == [{"duplicate": 1}] * 2
    firestore.document("boards/b1/posts/p1").update({"title": "edited"})
    said = [reconciled(firestore.project, emulator, target_dsn, scope="sweep") for _ in range(3)]
    assert [s.counts("posts") for s in said] == [{"duplicate": 1, "stale": 1}] * 3
    assert [len(s.alerts) for s in said] == [1, 1, 1]
    assert reconciled(firestore.project, emulator, target_dsn, scope="sweep", repair="all", max_share=100).alerts == []
    with psycopg.connect(target_dsn) as connection:
        assert connection.execute("SELECT board_id, title FROM posts").fetchall() == [("b1", "edited")]
