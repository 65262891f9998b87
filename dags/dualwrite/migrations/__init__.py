"""Applies sql/migrations: files and their rules, the plan, the migrator, and what the files promise."""

from dualwrite.migrations.migrator import Migrator
from dualwrite.migrations.params import MODES, PARAMETERS, WEB_CLIENT, MigrationParams, parse
from dualwrite.migrations.plan import Step, make_plan
from dualwrite.migrations.report import DAG_ID, build_report, described, standing, verdict
from dualwrite.migrations.verify import verify

__all__ = [
    "DAG_ID",
    "MODES",
    "PARAMETERS",
    "WEB_CLIENT",
    "MigrationParams",
    "Migrator",
    "Step",
    "build_report",
    "described",
    "make_plan",
    "parse",
    "standing",
    "verdict",
    "verify",
]
