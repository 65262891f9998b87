"""The Trigger forms: what an operator may choose, with types, bounds and words. Code checks it all again."""

from __future__ import annotations

from collections.abc import Sequence

from airflow.sdk import Param

from dualwrite.catalog import CATALOG, EXPORT_TIME
from dualwrite.migrations import migrator as migrations
from dualwrite.runs import backfill, reconcile_plan


def _collections(chosen: Sequence[str], description: str) -> Param:
    return Param(
        list(chosen),
        type="array",
        examples=list(CATALOG.names),
        items={"type": "string", "enum": list(CATALOG.names)},
        title="Collections",
        description=description,
    )


def _excuses(everything: str) -> dict[str, Param]:
    return {
        "excuse": Param(
            [],
            type=["null", "array"],
            items={"type": "string"},
            title="Excuse",
            description="Differences that you accept, one a line, as collection:key (posts:AbC123); collection:* is "
            f"{everything}. They are kept, counted as excused, and fail nothing any more.",
            section="Exceptions",
        ),
        "excuse_reason": Param(
            None,
            type=["null", "string"],
            title="Reason of the excuse",
            description="Required where something is excused.",
            section="Exceptions",
        ),
    }


def gap_form() -> dict[str, Param]:
    """The Trigger form of backfill_gap."""
    return {
        "mode": Param(
            "dry_run",
            enum=list(backfill.MODES),
            values_display={
                "dry_run": "dry run: examine and report, write nothing",
                "review": "review: dry run, then wait for an approval, then write",
                "apply": "apply: write what is missing and stale",
            },
            title="Mode",
        ),
        "update_stale": Param(
            True,
            type="boolean",
            title="Update stale rows",
            description="Besides inserting missing rows, bring rows that differ from their document up to date.",
        ),
        "collections": _collections(
            CATALOG.default_selection, "The parents that a selection needs are added, and the report says which."
        ),
        "scope": Param(
            "window",
            enum=list(backfill.SCOPES),
            values_display={"window": "window: documents written since", "all": "all: every document"},
            title="Scope",
            description="`all` also finds edits and creations that no check field shows; it reads every document once.",
        ),
        "since": Param(
            EXPORT_TIME,
            type="string",
            format="date-time",
            title="Since (the export's time)",
            description_md="An instant **with its offset from UTC**. A time without one is refused: an export time was "
            "once local and taken for UTC, and nine hours of writes nearly fell out of the gap.",
        ),
        "margin_hours": Param(
            24,
            type="number",
            minimum=0,
            maximum=24 * 366,
            title="Margin (hours)",
            description="How far before `since` to begin. What is there already is read and left alone.",
        ),
        "until": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="Until",
            description="Empty: now.",
        ),
        **_excuses("all that an earlier verification left open"),
        "page_size": Param(
            5000,
            type="integer",
            minimum=1,
            maximum=50_000,
            title="Page size (documents)",
            description="How many documents are compared and written at a time.",
            section="Fine tuning",
        ),
        "explain_up_to": Param(
            250_000,
            type="integer",
            minimum=0,
            maximum=10_000_000,
            title="Explain up to (documents)",
            description="After an apply, collections up to this size are verified key by key; larger ones are "
            "reported as not proven. Costs one read a document.",
            section="Fine tuning",
        ),
        "grace_seconds": Param(
            15,
            type="number",
            minimum=0,
            maximum=3600,
            title="Grace (seconds)",
            description="The verification looks a second time at what differs, this much later: a row may lag its "
            "document by seconds while the app writes.",
            section="Fine tuning",
        ),
    }


def reconcile_form() -> dict[str, Param]:
    """The Trigger form of reconcile_dual_writes. A scheduled run takes the Variables reconcile_<name> instead."""
    return {
        "repair": Param(
            "off",
            enum=list(reconcile_plan.REPAIRS),
            values_display={
                "off": "off: look and report, write nothing",
                "missing": "missing: insert rows that are missing",
                "missing_and_stale": "missing and stale: and update rows that differ",
                "all": "all: and delete rows whose documents are gone",
            },
            title="Repair",
            description="Pressing Trigger is the approval: nobody is asked again.",
        ),
        "scope": Param(
            "recent",
            enum=list(reconcile_plan.SCOPES),
            values_display={
                "recent": "recent: what was written since the last run (and a sweep where one is due)",
                "sweep": "sweep: every document and every row",
            },
            title="Scope",
        ),
        "collections": _collections(
            CATALOG.names, "Those left out keep their watermark, so the next run looks at them from there."
        ),
        "max_repairs": Param(
            500,
            type="integer",
            minimum=1,
            maximum=1_000_000,
            title="Brake: rows (max_repairs)",
            description="A repair of more rows than this is refused as a whole.",
        ),
        "max_share": Param(
            5,
            type="number",
            minimum=0,
            maximum=100,
            title="Brake: share of a table (max_share, %)",
            description="More than 20 updates and deletes that are more than this share of a table are refused as a whole.",
        ),
        **_excuses("all that is open in it now"),
        "unexcuse": Param(
            [],
            type=["null", "array"],
            items={"type": "string"},
            title="Take an excuse back",
            description="As collection:key, or collection:*.",
            section="Exceptions",
        ),
        "minutes": Param(
            30,
            type="integer",
            minimum=1,
            maximum=7 * 24 * 60,
            title="Minutes",
            description="The window begins at each collection's watermark, or this long ago, whichever is earlier.",
            section="Fine tuning",
        ),
        "overlap_minutes": Param(
            60,
            type="integer",
            minimum=0,
            maximum=7 * 24 * 60,
            title="Overlap (minutes)",
            description="How much earlier to begin on the documents' side: an offline phone sends late, with old times.",
            section="Fine tuning",
        ),
        "grace_seconds": Param(
            120,
            type="number",
            minimum=0,
            maximum=3600,
            title="Grace (seconds)",
            description="How old a difference must be before it is drift: it is looked at twice, this far apart.",
            section="Fine tuning",
        ),
        "sweep_every_hours": Param(
            24,
            type="number",
            minimum=0,
            maximum=24 * 366,
            title="Sweep every (hours)",
            description="A collection that was not swept for this long is swept. Costs one read a document.",
            section="Fine tuning",
        ),
        "liveness_minimum": Param(
            5,
            type="integer",
            minimum=1,
            maximum=1_000_000,
            title="Liveness minimum (documents)",
            description="With at least so many documents written and not one operation in write_ops, dual-write seems off.",
            section="Fine tuning",
        ),
    }


def migration_form() -> dict[str, Param]:
    """The Trigger form of apply_migrations."""
    return {
        "mode": Param(
            "dry_run",
            enum=list(migrations.MODES),
            values_display={
                "dry_run": "dry run: execute in one transaction, roll back",
                "apply": "apply: one file after another",
            },
            title="Mode",
        ),
        "web_client": Param(
            "leave",
            enum=list(migrations.WEB_CLIENT),
            values_display={
                "leave": "leave as it is (closed, if never opened)",
                "closed": "closed: the anon key has no access",
                "anon": "anon: whoever holds the anon key reads and writes all drafts and reviews",
            },
            title="Web client's access to drafts and reviews",
            description_md="People sign in with Firebase, so the database can't tell them apart. "
            "Read `sql/optional/web_client_anon.sql` before you choose **anon**.",
        ),
        "target_version": Param(
            None,
            type=["null", "string"],
            pattern="^[0-9]{14}$",
            title="Target version",
            description="Apply up to this version. Empty: all.",
        ),
        "lock_timeout": Param(
            1,
            type="number",
            minimum=0.05,
            maximum=60,
            title="Lock timeout (seconds)",
            description="How long a statement waits for a lock before it gives way to the app.",
        ),
        "wait_for_lock": Param(
            60,
            type="number",
            minimum=0,
            maximum=3600,
            title="Wait for lock (seconds)",
            description="How long to keep trying before the run fails and says who held the lock.",
        ),
    }
