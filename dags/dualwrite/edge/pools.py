"""The Airflow pools of the tasks, with which an operator limits how many run at a time without editing a DAG file. They are read
when DAG files are parsed, so set them for the dag-processor, the scheduler and the workers alike.
"""

from __future__ import annotations

from dualwrite import settings

SOURCE_POOL = settings.pool("source")
"""Pool for tasks that read Firestore. Each holds one stream and one Postgres connection (`compare`: four of each)."""

TARGET_POOL = settings.pool("target")
"""Pool for tasks that use Postgres alone, with one connection each."""
