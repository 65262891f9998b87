"""The Trigger forms: what an operator may choose, with types, bounds and words. Code checks it all again.

Fields stand in the order in which a person decides: what, where, how much. Those have no section, because Airflow unfolds
that group alone; exceptions and fine tuning are folded, and their defaults are right for nearly everybody. A field has a
title of few words and one plain sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow.sdk import Param

from dualwrite.catalog import CATALOG, EXPORT_TIME
from dualwrite.model import choices
from dualwrite.model.parameters import MAX_BILLED_READS, SLICE_DOCUMENTS

EXCUSES = "Differences to accept"
FINE_TUNING = "Fine tuning"
ALARMS = "Alarms"


def _collections(chosen: Sequence[str], description: str) -> Param:
    return Param(
        list(chosen),
        type="array",
        examples=list(CATALOG.names),
        items={"type": "string", "enum": list(CATALOG.names)},
        title="Collections",
        description=description,
    )


def _max_billed_reads() -> Param:
    return Param(
        None,
        type=["null", "integer"],
        minimum=1,
        maximum=MAX_BILLED_READS,
        title="Billed reads at most",
        description="The run stops before it reads more, and leaves the rest not examined; empty means no cap.",
    )


def _slice_documents() -> Param:
    return Param(
        SLICE_DOCUMENTS,
        type="integer",
        minimum=1,
        maximum=MAX_BILLED_READS,
        title="Slices (documents)",
        description="A collection with more documents is cut into slices of at most so many, which several workers examine.",
        section=FINE_TUNING,
    )


def _excuses(everything: str) -> dict[str, Param]:
    return {
        "excuse": Param(
            [],
            type=["null", "array"],
            items={"type": "string", "pattern": "^[^:]+:.+$"},
            title="Excuse",
            description=f"One difference a line, as collection:key ({CATALOG.names[0]}:AbC123); collection:* means {everything}.",
            section=EXCUSES,
        ),
        "excuse_reason": Param(
            None,
            type=["null", "string"],
            title="Reason",
            description="Why you accept them; required where something is excused.",
            section=EXCUSES,
        ),
    }


def gap_form() -> dict[str, Param]:
    """The Trigger form of backfill_gap."""
    return {
        "mode": Param(
            "dry_run",
            enum=list(choices.GAP_MODES),
            values_display={
                "dry_run": "dry run: examine and report, write nothing",
                "review": "review: dry run, then wait for an approval, then write",
                "apply": "apply: write what is missing and stale",
            },
            title="Mode",
            description="A dry run writes nothing; its counts are what an apply would then do.",
        ),
        "update_stale": Param(
            True,
            type="boolean",
            title="Update stale rows",
            description="Bring rows that differ from their document up to date, besides inserting missing ones.",
        ),
        "collections": _collections(
            CATALOG.default_selection, "Parents that a selection needs are added, and named in the report."
        ),
        "scope": Param(
            "window",
            enum=list(choices.GAP_SCOPES),
            values_display={"window": "window: documents written since the export", "all": "all: every document"},
            title="Scope",
            description="All documents also finds edits that no timestamp shows; it costs one read a document.",
        ),
        "since": Param(
            EXPORT_TIME,
            type="string",
            format="date-time",
            title="Since (the export's time)",
            description="With its offset from UTC: a time without one is refused, because local time taken for UTC loses hours.",
        ),
        "margin_hours": Param(
            24,
            type="number",
            minimum=0,
            maximum=24 * 366,
            title="Margin (hours)",
            description="How far before Since to begin; what is there already is read and left alone.",
        ),
        "until": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="Until",
            description="With its offset from UTC; empty means now.",
        ),
        "max_billed_reads": _max_billed_reads(),
        **_excuses("all that an earlier verification left open in it"),
        "page_size": Param(
            5000,
            type="integer",
            minimum=1,
            maximum=50_000,
            title="Page size (documents)",
            description="How many documents are compared and written at a time.",
            section=FINE_TUNING,
        ),
        "explain_up_to": Param(
            250_000,
            type="integer",
            minimum=0,
            maximum=10_000_000,
            title="Explain up to (documents)",
            description="Larger collections are not verified key by key and are reported as not proven; one read a document.",
            section=FINE_TUNING,
        ),
        "slice_documents": _slice_documents(),
        "grace_seconds": Param(
            15,
            type="number",
            minimum=0,
            maximum=3600,
            title="Grace (seconds)",
            description="How much later the verification looks again at what differs: a row may lag its document.",
            section=FINE_TUNING,
        ),
    }


def approval_form() -> dict[str, Param]:
    """What a person may add to an answer of backfill_gap's review."""
    return {
        "reason": Param(
            "",
            type=["null", "string"],
            title="Reason",
            description="Shown in the report beside your name; worth a sentence where you reject.",
        )
    }


def reconcile_form() -> dict[str, Param]:
    """The Trigger form of reconcile_dual_writes. A scheduled run takes the Variables reconcile_<name> instead."""
    return {
        "repair": Param(
            "off",
            enum=list(choices.REPAIRS),
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
            enum=list(choices.RECONCILE_SCOPES),
            values_display={
                "recent": "recent: what was written since the last run (and a sweep where one is due)",
                "sweep": "sweep: every document and every row",
            },
            title="Scope",
            description="A sweep also finds what no window sees; it costs one read a document.",
        ),
        "collections": _collections(
            CATALOG.names, "Those left out keep their watermark: the next run looks at them from there."
        ),
        "max_repairs": Param(
            500,
            type="integer",
            minimum=1,
            maximum=1_000_000,
            title="Rows at most",
            description="A repair of more rows than this is refused as a whole.",
        ),
        "max_share": Param(
            5,
            type="number",
            minimum=0,
            maximum=100,
            title="Share of a table at most (%)",
            description="More than 20 updates and deletes in more than this share of a table are refused as a whole.",
        ),
        "max_billed_reads": _max_billed_reads(),
        "max_proof_reads": Param(
            250_000,
            type="integer",
            minimum=0,
            maximum=MAX_BILLED_READS,
            title="Reads to prove a delete (max_proof_reads)",
            description="Before a row is called extra or deleted, all names of its collection are read, up to this many.",
        ),
        **_excuses("all that is open in it now"),
        "unexcuse": Param(
            [],
            type=["null", "array"],
            items={"type": "string", "pattern": "^[^:]+:.+$"},
            title="Take an excuse back",
            description="One a line, as collection:key or collection:*; the difference counts as open again.",
            section=EXCUSES,
        ),
        "minutes": Param(
            30,
            type="integer",
            minimum=1,
            maximum=7 * 24 * 60,
            title="Minutes",
            description="The window begins at each collection's watermark, or this long ago, whichever is earlier.",
            section=FINE_TUNING,
        ),
        "overlap_minutes": Param(
            60,
            type="integer",
            minimum=0,
            maximum=7 * 24 * 60,
            title="Overlap (minutes)",
            description="How much earlier to begin on the documents' side: an offline phone sends late, with old times.",
            section=FINE_TUNING,
        ),
        "grace_seconds": Param(
            120,
            type="number",
            minimum=0,
            maximum=3600,
            title="Grace (seconds)",
            description="How old a difference must be before it is drift: it is looked at twice, this far apart.",
            section=FINE_TUNING,
        ),
        "sweep_every_hours": Param(
            24,
            type="number",
            minimum=0,
            maximum=24 * 366,
            title="Sweep every (hours)",
            description="A collection that was not swept for this long is swept. Costs one read a document.",
            section=FINE_TUNING,
        ),
        "slice_documents": _slice_documents(),
        "liveness_minimum": Param(
            5,
            type="integer",
            minimum=1,
            maximum=1_000_000,
            title="Liveness minimum (documents)",
            description="With at least so many documents written and not one operation in write_ops, dual-write seems off; "
            "so it does for an entity type, with so many created and no operation of that type.",
            section=FINE_TUNING,
        ),
        "max_unattempted_repairs": Param(
            5,
            type="integer",
            minimum=0,
            maximum=1_000_000,
            title="Unattempted repairs a day",
            description="A scheduled run that repairs rows fails when scheduled runs have repaired more than this many rows "
            "within 24 hours that no operation had attempted: a repair must not hide that dual-write is off.",
            section=ALARMS,
        ),
        "max_examined_age_hours": Param(
            6,
            type="number",
            minimum=0,
            maximum=24 * 366,
            title="Oldest complete look (hours)",
            description="A scheduled run fails when any collection, selected or not, was last examined whole longer ago; a manual "
            "one, when a selected one was. 0: never.",
            section=ALARMS,
        ),
        "max_swept_age_hours": Param(
            72,
            type="number",
            minimum=0,
            maximum=24 * 366,
            title="Oldest sweep (hours)",
            description="The same for sweeps; at least twice `sweep_every_hours`. 0: never.",
            section=ALARMS,
        ),
        "write_ops_required": Param(
            True,
            type="boolean",
            title="write_ops must be readable",
            description="The run fails while write_ops can't be read: nobody can tell then whether dual-write is alive.",
            section=ALARMS,
        ),
        "max_open_looks": Param(
            5000,
            type="integer",
            minimum=1,
            maximum=1_000_000,
            title="Open differences looked at",
            description="How many open differences one run looks at again, those seen longest ago first. The others stay "
            "open, and the report counts them. Costs one or two reads each.",
            section=FINE_TUNING,
        ),
    }


def migration_form() -> dict[str, Param]:
    """The Trigger form of apply_migrations."""
    return {
        "mode": Param(
            "dry_run",
            enum=list(choices.MIGRATION_MODES),
            values_display={
                "dry_run": "dry run: execute in one transaction, roll back",
                "apply": "apply: one file after another",
            },
            title="Mode",
            description="A dry run executes every pending file and rolls all of it back. It takes the same locks as an apply, "
            "for two seconds at most; what it can't try, it says.",
        ),
        "web_client": Param(
            "leave",
            enum=list(choices.WEB_CLIENT),
            values_display={
                "leave": "leave as it is (closed, if never opened)",
                "closed": "closed: the anon key has no access",
                "anon": "anon: whoever holds the anon key reads and writes all rows of these tables",
            },
            title="Web client's access to the new tables",
            description="The tables that sql/optional/web_client_anon.sql names. Read that file before you choose anon: the "
            "database can't tell people apart.",
        ),
        "target_version": Param(
            None,
            type=["null", "string"],
            pattern="^[0-9]{14}$",
            title="Target version",
            description="Apply files up to this version; empty means all.",
        ),
        "lock_timeout": Param(
            1,
            type="number",
            minimum=0.05,
            maximum=60,
            title="Lock timeout (seconds)",
            description="How long a statement waits for a lock before it gives way to the app.",
            section=FINE_TUNING,
        ),
        "wait_for_lock": Param(
            60,
            type="number",
            minimum=0,
            maximum=3600,
            title="Wait for lock (seconds)",
            description="How long to keep trying before the run fails and says who held the lock. An index that is built "
            "concurrently waits for the app's transactions for as long; nobody waits behind it.",
            section=FINE_TUNING,
        ),
        "statement_timeout": Param(
            1800,
            type="number",
            minimum=1,
            maximum=24 * 3600,
            title="Statement timeout (seconds)",
            description="How long one statement of an apply may take, such as the building of an index.",
            section=FINE_TUNING,
        ),
    }
