"""Fills an emulator and a Postgres with the small world, in their state after the export. Once: a target that has its tables
is left alone.

As a command it serves docker-compose.yaml's profile local; FIRESTORE_EMULATOR_HOST and DUALWRITE_TARGET name the two.
"""

from __future__ import annotations

import os

import psycopg
from google.cloud import firestore

from dev import seed
from dev.airflow_home import ROOT

PROJECT = "demo-writing-club"
"""An emulator takes any project; Firebase uses demo-... for one that exists only there."""


def fill(target: str) -> seed.World:
    """Writes the small world: its documents to the emulator that FIRESTORE_EMULATOR_HOST names, its rows to `target`
    (a URI, as a role that may make tables)."""
    world = seed.small()
    with psycopg.connect(target) as connection:
        if connection.execute("SELECT to_regclass('public.users') IS NULL").fetchone() == (True,):
            connection.execute((ROOT / "sql/local/phase1.sql").read_text())
            world.load_target(connection)
    world.load_source(firestore.Client(project=PROJECT))
    return world


def main() -> None:
    target = os.environ["DUALWRITE_TARGET"]
    hosts = (os.environ["FIRESTORE_EMULATOR_HOST"].split(":")[0], psycopg.conninfo.conninfo_to_dict(target)["host"])
    if set(hosts) - {"127.0.0.1", "localhost"}:
        raise SystemExit(f"fill: emulator and target must be on loopback: they are {hosts[0]} and {hosts[1]}.")
    with psycopg.connect(target, autocommit=True) as connection:
        for role in ("anon", "authenticated", "service_role"):
            if connection.execute("SELECT to_regrole(%s) IS NULL", (role,)).fetchone() == (True,):
                connection.execute(psycopg.sql.SQL("CREATE ROLE {} NOLOGIN").format(psycopg.sql.Identifier(role)))
    world = fill(target)
    print(f"fill: {len(world.documents):,} documents, {sum(map(len, world.rows.values())):,} rows")


if __name__ == "__main__":
    main()
