"""Applies the migrations: files and their rules, the plan, the migrator, and the files' promises."""

from dualwrite.migrations.migrator import Migrator
from dualwrite.migrations.plan import Step, make_plan
from dualwrite.migrations.report import DAG_ID, build_report, described, keep_person, standing
from dualwrite.migrations.verify import verify
from dualwrite.model.migration_params import MigrationParams

__all__ = [
    "DAG_ID",
    "MigrationParams",
    "Migrator",
    "Step",
    "build_report",
    "described",
    "keep_person",
    "make_plan",
    "standing",
    "verify",
]
