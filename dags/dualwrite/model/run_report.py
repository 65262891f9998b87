"""The shapes of what runs report, declared once: as tasks hand it on, as XCom keeps it, and as the Parity page reads it.

All of it is JSON, and a key that isn't here is in no report. Numbers are exact; instants are ISO 8601 text in UTC; ids and
paths may be shortened. A report never holds a document's content.
"""

from __future__ import annotations

from typing import Generic, Literal, NotRequired, TypedDict, TypeVar

VERSION = 3
"""Of all reports. The page shows one of an earlier version in its own words alone."""

Scope = Literal["sweep", "recent", "none"]
"""How much of a collection was compared: every document and row, what was written lately, or nothing but named keys."""


# --- what is wrong ------------------------------------------------------------------------------------------------------


Conf = dict[str, str | float | bool | list[str] | None]
"""Values of a DAG's params, by name."""


class Press(TypedDict):
    """What may help: a DAG to be triggered with these values. `button` is its name on the page, `says` the same in words."""

    dag: str
    conf: Conf
    button: str
    says: str


class Alert(TypedDict):
    """One thing that is wrong.

    `collection` is None if the problem concerns no single one. `kind` is a verdict, or a word for what went wrong
    (not_swept, timed_out, ...). Together they name the standing problem, so that a drift that stays is one issue and not a
    hundred. `text` tells the problem and what to do first; `press`, what to trigger then: None if no run helps.
    """

    collection: str | None
    kind: str
    text: str
    cause: str | None
    press: Press | None


# --- a collection -------------------------------------------------------------------------------------------------------


class Sample(TypedDict):
    """A finding as a report shows it, ids and paths shortened. `key` is its label; `columns` are those that differ;
    `requires` is the document that is gone, because of which it is a difference."""

    key: str
    path: NotRequired[str]
    columns: NotRequired[list[str]]
    reason: NotRequired[str]
    cause: NotRequired[str]
    requires: NotRequired[str]
    excused: NotRequired[bool]


class CollectionResult(TypedDict):
    """What one phase of a run, or several as one, found and wrote in a collection. The fields of CollectionReport say what
    each number counts."""

    collection: str
    phase: str
    outcome: Literal["examined", "not_examined"]
    not_examined: str | None
    counts: dict[str, int]
    """By verdict, all of them."""
    drift: int
    examined: int
    excused: int
    left_alone: int
    excused_counts: dict[str, int]
    """By verdict, those that have any."""
    columns: dict[str, int]
    """In how many stale rows each column differs, the commonest."""
    documents_read: int
    stray: int
    left_out: int
    unlocatable: int
    operations_left: int
    expected: int
    inserted: int
    updated: int
    deleted: int
    parents_inserted: int
    derived_lag: int
    source_count: int | None
    target_count: int | None
    reads_to_verify: int
    proof_reads: int
    billed_reads: int
    seconds: float
    documents_per_second: int | None
    verification: str | None
    slices: int
    reasons: dict[str, int]
    """By "verdict: reason", the commonest."""
    samples: dict[str, list[Sample]]
    """By verdict, a few of each that isn't matching."""


class SliceResult(CollectionResult):
    """Of one slice. `look` holds the keys that it saw (runs/slices/seen_keys.py)."""

    look: int


class TripwireResult(TypedDict):
    """What the counts of a collection led to. `buckets`: stretches of time that were examined because of them."""

    deviation: int
    buckets: int
    calls_sweep: bool
    failed: str | None
    waits_until: str | None


class FirstLook(CollectionResult):
    """Of a reconciliation's first look. `pending`: differences that need a second look; `to_wait_for`: those of them that
    are younger than the grace period, at `looked_at`."""

    scope: Scope
    pending: int
    to_wait_for: int
    looked_at: str
    tripwire: TripwireResult | None
    sweep_failed: str | None


class SecondLook(CollectionResult):
    """Of a second look. `not_looked_at`: open differences beyond max_open_looks; `undecided`: those of them that no run has
    looked at twice yet."""

    not_looked_at: int
    undecided: int


class ReconciledCollection(CollectionResult):
    """A collection in a reconciliation's report: both looks, and what the repair wrote."""

    scope: Scope
    not_looked_at: int
    undecided: int
    tripwire: TripwireResult | None
    sweep_failed: str | None


R = TypeVar("R", bound=CollectionResult)


class StageResult(TypedDict, Generic[R]):
    """What a stage of a reconciliation returns: reports by collection (of a repair, by step: `write.posts`), and the errors of
    the others. `billed_reads`: those of no collection."""

    reports: dict[str, R]
    errors: dict[str, str]
    billed_reads: int


# --- the gate -----------------------------------------------------------------------------------------------------------


class PlannedRows(TypedDict):
    """Rows of one collection that a repair would write, and what this run has written so far; see runs/repair.py."""

    insert: int
    update: int
    delete: int
    unfinished: int
    inserted: int
    updated: int
    deleted: int
    parents: int


class OperationCounts(TypedDict):
    """What write_ops shows of a stretch of time. None in `total`: it can't be read, or isn't."""

    total: int | None
    by_entity: dict[str, int]
    malformed: int
    unknown_entities: int
    in_the_future: int


class Operations(OperationCounts):
    """With what the tables show of the same minutes."""

    minutes: float
    per_minute: float | None
    documents: int
    arrived: int
    documents_per_minute: float
    problem: str | None


class NamedKeys(TypedDict):
    """What became of the keys that a run names; see runs/repair.py. Each as collection:key."""

    not_open: list[str]
    needs: dict[str, list[str]]


class UndoneRows(TypedDict):
    """What an undo left in a collection as it was: how many rows by reason, and the reason by label of a few. `differing`: rows in
    which the table itself made something else of a column."""

    left: dict[str, int]
    keys: dict[str, str]
    differing: int


class UndoResult(CollectionResult):
    """Of what an undo wrote in a collection."""

    undone: UndoneRows


class UndoneRun(UndoneRows):
    """An undo of a run, over all collections; its `keys` are as collection:key."""

    run_id: str
    deleted: int
    updated: int
    inserted: int


class Gate(TypedDict):
    """What was decided after the second look. With a `problem` nothing is repaired. `undo`: the run that is to be taken back,
    and `left_out` the collections that it wrote and that this run doesn't select."""

    problem: str | None
    problem_kind: str | None
    planned: dict[str, PlannedRows]
    operations: Operations | None
    named: NamedKeys | None
    undo: str | None
    left_out: list[str]
    billed_reads: int


# --- what a whole reconciliation tells -----------------------------------------------------------------------------------


class OpenLine(TypedDict):
    """Open differences that are alike, from whichever run: how many, and since when the first of them."""

    collection: str
    verdict: str
    reason: str | None
    cause: str
    excused: bool
    number: int
    since: str


class OpenGroup(OpenLine):
    """`fails`: the run fails because of these, so they are drift, neither excused nor expected."""

    fails: bool


class WindowJson(TypedDict):
    start: str
    end: str


class Age(TypedDict):
    """Up to when a collection was examined whole, when it was last swept (None: never), and how many hours ago that is."""

    examined_until: str
    swept_at: str | None
    examined_hours: float
    swept_hours: float | None


class PastRun(TypedDict):
    """A run in short form; a number that is 0 is left out. Verdicts' numbers are without those that were excused."""

    run_id: str
    at: str
    examined: NotRequired[int]
    missing: NotRequired[int]
    stale: NotRequired[int]
    extra: NotRequired[int]
    rejected: NotRequired[int]
    excused: NotRequired[int]
    in_flight: NotRequired[int]
    written: NotRequired[int]
    billed: NotRequired[int]
    not_examined: NotRequired[int]


class GivenExcuse(TypedDict):
    """A difference that a person accepted."""

    collection: str
    key: str
    verdict: str
    by: str
    reason: str | None
    since: str


class Intervention(TypedDict):
    """Who had something done; see remembered/interventions.py. `numbers` are by collection, of what wrote rows by action too."""

    dag_id: str
    run_id: str
    kind: str
    by: str
    at: str
    reason: str | None
    numbers: dict[str, int | dict[str, int]]
    journaled: int
    undone: int


class Day(TypedDict):
    """A day (UTC): how many runs compared, whether all were clean (None: there was none), up to three that weren't, and reads."""

    day: str
    runs: int
    clean: bool | None
    not_clean: list[str] | None
    billed: int


class LinkedTable(TypedDict):
    """The table of a collection, for links. `key_column`: the column that a difference's key is the value of, if there is one."""

    schema: str
    table: str
    oid: int | None
    key_column: str | None


class Links(TypedDict):
    """Templates of links by what they lead to, and what fills them in; see model/links.py. `tables`: of collections with open
    differences; none without a template."""

    templates: dict[str, str]
    project: str
    database: str
    tables: dict[str, LinkedTable]


class Listed(TypedDict):
    """How many pages and rows the list of open differences has, of how many differences; see runs/open_list.py."""

    pages: int
    rows: int
    of: int


class RepairedLately(TypedDict):
    """Rows that repairs wrote within a day; see remembered/journal.py."""

    collection: str
    cause: str
    number: int
    unattended: int
    by_this_run: int


class MigrationsStanding(TypedDict):
    """How the target stands to the migrations; `unknown` says why nothing can be told."""

    applied: int
    pending: list[str]
    differences: int
    unknown: str | None


class CoverageResult(TypedDict):
    """Which columns of a collection's table are compared; see model/coverage.py."""

    compared: int
    undeclared: list[str]
    made: list[str]
    uncompared: dict[str, str]


class Check(TypedDict):
    """One line of the checklist. `name` is a fixed word that the page links by; `says` is the evidence, or what is lacking."""

    name: str
    title: str
    ok: bool
    says: str


class Ready(TypedDict):
    """Whether reads may be switched."""

    answer: bool
    checks: list[Check]


class Parity(TypedDict):
    """Whether source and target are equal, and the oldest of the sweeps that say so."""

    equal: bool
    why_not: list[str]
    oldest_sweep: str | None


class Rules(TypedDict):
    """What the page has to know of verdicts and repairs, so that it has no rule of its own."""

    drift: list[str]
    """The verdicts that are drift, in the order in which a person reads them."""
    repairs: dict[str, dict[str, str]]
    """By value of the param repair: what it does to rows, by verdict (insert, update, delete)."""


class RunFacts(TypedDict):
    """What is known at the end of a reconciliation."""

    version: int
    dag_id: str
    run_id: str
    at: str
    repair: str
    compares: bool
    """Whether it looked at what was written, or at everything; else only at what its `keys` name."""
    named: NamedKeys | None
    undo: str | None
    """The run that was to be taken back, what became of that, why it failed, and the collections that were left out."""
    undone: UndoneRun | None
    undo_failed: str | None
    undo_left_out: list[str]
    dual_write_enabled: bool
    windows: dict[str, WindowJson | None]
    problem: str | None
    problem_kind: str | None
    gate: Literal["examined", "not_examined"]
    operations: Operations | None
    operations_declared: bool
    planned: dict[str, PlannedRows]
    not_repaired: dict[str, str]
    """By step and collection (`write.posts`), why it isn't done."""
    repaired_lately: list[RepairedLately]
    billed_reads: int
    collections: list[ReconciledCollection]
    open: list[OpenGroup]
    open_columns: dict[str, dict[str, int]]
    """In how many open stale rows, excused ones left out, each column differs, by collection."""
    ages: dict[str, Age]
    declared: list[str]
    """All collections of the catalog."""
    history: list[PastRun]
    """Newest first."""
    excuses: list[GivenExcuse]
    """The latest."""
    interventions: list[Intervention]
    """The latest."""
    days: list[Day]
    """Today first."""
    price: float
    """Dollars for 100,000 billed reads."""
    clean_days: int
    migrations: MigrationsStanding
    coverage: dict[str, CoverageResult]
    references: dict[str, dict[str, str]]
    """By reason and collection: which tables keep extra rows from being deleted."""
    links: Links


class RunReport(RunFacts):
    """A reconciliation's report: the facts, and what follows from them."""

    rules: Rules
    ready: Ready
    verdict: str
    """The run in one sentence."""
    alerts: list[Alert]
    """Why the run fails; empty if it succeeds."""
    press: Press | None
    """What repairs all that is open and can be repaired."""
    parity: Parity
    listed: Listed | None
    samples_shown: int
    """Of each verdict of a collection at most."""


# --- the other DAGs, and a run without a report --------------------------------------------------------------------------


class Answer(TypedDict):
    """What a person answered to an approval."""

    chosen: list[str]
    by: str | None
    reason: str | None


Approval = Literal["approved", "rejected", "unanswered"]
"""How a review ended. Unanswered: its dry run failed, or nobody could be asked."""


class PreflightResult(TypedDict):
    """What the checks before a run found; see engine/preflight.py."""

    role: str
    server: str
    source_time: str
    clock_difference_seconds: float
    estimated_reads: dict[str, int]
    triggers: dict[str, list[str]]
    unknown_constraints: dict[str, list[str]]


class GapPlan(TypedDict):
    """What a backfill's tasks agree on. `params` are GapParams as JSON."""

    params: dict[str, object]
    preflight: PreflightResult
    coverage: dict[str, CoverageResult]
    billed_reads: int


class GapReport(TypedDict):
    """A backfill's report. `collections`: of each phase gap, then those of phase verify."""

    version: int
    dag_id: str
    run_id: str
    mode: Literal["dry_run", "review", "apply"]
    scope: str
    window: WindowJson
    added_parents: list[str]
    approval: Approval | None
    answer: Answer | None
    billed_reads: int
    estimated_reads: int | None
    """What an apply would bill after this dry run; None if that isn't known."""
    collections: list[CollectionResult]
    coverage: dict[str, CoverageResult]
    rules: Rules
    verdict: str
    alerts: list[Alert]
    samples_shown: int


class MigrationStep(TypedDict):
    """A migration file and where it stands; see migrations/plan.py."""

    version: str
    name: str
    state: str
    reason: str | None


class MigrationsReport(TypedDict):
    """`differences`: None if the tables were never compared."""

    version: int
    dag_id: str
    run_id: str
    mode: str
    steps: list[MigrationStep]
    web_client: str | None
    web_client_tables: list[str]
    differences: list[str] | None
    verdict: str
    alerts: list[Alert]


class StoppedReport(TypedDict):
    """Of a run of which nothing can be told but why."""

    version: int
    dag_id: str
    run_id: str
    at: str
    stopped: str
    verdict: str
    alerts: list[Alert]


Report = RunReport | GapReport | MigrationsReport | StoppedReport
