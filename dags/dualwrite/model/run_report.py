"""The shapes of runs' reports, declared once: between tasks, in XCom, and on the Parity page.

All of them are JSON, and reports have no other keys. Numbers are exact; instants are ISO 8601 texts in UTC; ids and paths may
be shortened. A report never holds a document's content.
"""

from __future__ import annotations

from typing import Generic, Literal, NotRequired, TypedDict, TypeVar

VERSION = 3
"""The version of all reports. Of an earlier one, the page shows only its texts."""

Scope = Literal["sweep", "recent", "none"]
"""How much of a collection was compared: every document and row, recent writes, or only named keys."""


# --- alerts -------------------------------------------------------------------------------------------------------------


Conf = dict[str, str | float | bool | list[str] | None]
"""Values of a DAG's params, by name."""


class Press(TypedDict):
    """A button that triggers a DAG with these values. `button`: its name on the page; `says`: the same in words."""

    dag: str
    conf: Conf
    button: str
    says: str


class Alert(TypedDict):
    """One problem.

    `collection` is None if the problem concerns no single one. `kind` is a verdict, or another word for the problem
    (not_swept, timed_out, ...). Both together identify a lasting problem, which Sentry shows as one issue. `text` has the
    problem and its remedy; `press` the button to use then, None if no run helps.
    """

    collection: str | None
    kind: str
    text: str
    cause: str | None
    press: Press | None


# --- a collection -------------------------------------------------------------------------------------------------------


class Sample(TypedDict):
    """A finding as a report shows it, with shortened ids and paths. `key`: its label; `columns`: those that differ;
    `requires`: the path of the required document that is gone."""

    key: str
    path: NotRequired[str]
    columns: NotRequired[list[str]]
    reason: NotRequired[str]
    cause: NotRequired[str]
    requires: NotRequired[str]
    excused: NotRequired[bool]


class CollectionResult(TypedDict):
    """The report of one phase of a run, or of several added up, in a collection. CollectionReport describes the numbers."""

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
    order_decides: int
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
    """By "verdict: reason", the most frequent ones."""
    samples: dict[str, list[Sample]]
    """By verdict, a few of each that isn't matching."""


class SliceResult(CollectionResult):
    """The report of one slice. `look`: the number under which the target keeps its seen keys (runs/slices/seen_keys.py)."""

    look: int


class TripwireResult(TypedDict):
    """The tripwire's result for a collection. `deviation`: documents too many or (negative) too few; `buckets`: how many
    stretches of time were examined because of that."""

    deviation: int
    buckets: int
    calls_sweep: bool
    failed: str | None
    waits_until: str | None


class FirstLook(CollectionResult):
    """The report of a first look. `pending`: differences that need a second look; `to_wait_for`: those of them that were
    younger than the grace period at `looked_at`."""

    scope: Scope
    pending: int
    to_wait_for: int
    looked_at: str
    tripwire: TripwireResult | None
    sweep_failed: str | None


class SecondLook(CollectionResult):
    """The report of a second look. `not_looked_at`: open differences beyond max_open_looks; `undecided`: those of them that no
    run has looked at twice yet."""

    not_looked_at: int
    undecided: int


class ReconciledCollection(CollectionResult):
    """A collection in a reconciliation's report: both looks, and the repair's writes."""

    scope: Scope
    not_looked_at: int
    undecided: int
    tripwire: TripwireResult | None
    sweep_failed: str | None


R = TypeVar("R", bound=CollectionResult)


class TaskResult(TypedDict, Generic[R]):
    """The result of a task of a reconciliation: reports by collection (for a repair, by step: `write.posts`), and the errors of
    the others. `billed_reads`: those for no collection."""

    reports: dict[str, R]
    errors: dict[str, str]
    billed_reads: int


# --- the gate -----------------------------------------------------------------------------------------------------------


class PlannedRows(TypedDict):
    """Rows of one collection that a repair would write, and those that this run has written so far; see runs/repair.py."""

    insert: int
    update: int
    delete: int
    unfinished: int
    inserted: int
    updated: int
    deleted: int
    parents: int


class OperationCounts(TypedDict):
    """Counts of write_ops in a stretch of time. `total` is None if the table can't be read, or if the catalog declares no
    operations."""

    total: int | None
    by_entity: dict[str, int]
    malformed: int
    unknown_entities: int
    in_the_future: int


class Operations(OperationCounts):
    """With counts of documents, and of rows that arrived by themselves, in the same minutes."""

    minutes: float
    per_minute: float | None
    documents: int
    arrived: int
    documents_per_minute: float
    problem: str | None


class NamedKeys(TypedDict):
    """Named keys that a run can't repair; see runs/repair.py. Each as collection:key."""

    not_open: list[str]
    needs: dict[str, list[str]]


class UndoneRows(TypedDict):
    """Rows of a collection that an undo left as they are: how many by reason, and a few labels with their reason. `differing`:
    rows that were taken back, but in which a trigger of the table changed a column."""

    left: dict[str, int]
    keys: dict[str, str]
    differing: int


class UndoResult(CollectionResult):
    """The report of an undo in a collection."""

    undone: UndoneRows


class UndoneRun(UndoneRows):
    """An undo of a run, over all collections; its `keys` are as collection:key."""

    run_id: str
    deleted: int
    updated: int
    inserted: int


class Gate(TypedDict):
    """The decision after the second look. With a `problem`, nothing is written. `undo`: the run to be taken back; `left_out`:
    collections that it wrote and that aren't selected."""

    problem: str | None
    problem_kind: str | None
    problem_code: str | None
    planned: dict[str, PlannedRows]
    operations: Operations | None
    named: NamedKeys | None
    undo: str | None
    left_out: list[str]
    billed_reads: int


# --- a whole reconciliation ----------------------------------------------------------------------------------------------


class OpenLine(TypedDict):
    """A group of open differences, from any run: how many, and since when the oldest is open."""

    collection: str
    verdict: str
    reason: str | None
    cause: str
    excused: bool
    number: int
    since: str


class OpenGroup(OpenLine):
    """`fails`: whether the run fails because of these: they are drift, neither excused nor expected."""

    fails: bool


class WindowJson(TypedDict):
    start: str
    end: str


class Age(TypedDict):
    """When a collection was last completely compared, when it was last swept (None: never), and how many hours ago."""

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
    """An excused difference."""

    collection: str
    key: str
    verdict: str
    by: str
    reason: str | None
    since: str


class Intervention(TypedDict):
    """An action by a person or a schedule; see remembered/interventions.py. `numbers`: by collection; for writes, by action
    too."""

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
    """A day (UTC): how many runs compared, whether all were clean (None: no run), up to three that weren't, and billed reads."""

    day: str
    runs: int
    clean: bool | None
    not_clean: list[str] | None
    billed: int


class LinkedTable(TypedDict):
    """The table of a collection, for links. `key_column`: the column whose value is a difference's key, if there is one."""

    schema: str
    table: str
    oid: int | None
    key_column: str | None


class Links(TypedDict):
    """Templates of links by their target, and the values that fill them in; see model/links.py. `tables`: of collections with
    open differences; empty without templates."""

    templates: dict[str, str]
    project: str
    database: str
    tables: dict[str, LinkedTable]


class Listed(TypedDict):
    """How many pages and rows the list has, `of` how many open differences; see runs/open_list.py."""

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
    """The migrations' state in the target; `unknown`: why it isn't known."""

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
    """One line of the checklist. `name`: a fixed word that the page links by; `says`: the evidence, or the lack of it."""

    name: str
    title: str
    ok: bool
    says: str


class Ready(TypedDict):
    """Whether the app's reads may be switched to the target, and why (not)."""

    answer: bool
    checks: list[Check]


class Parity(TypedDict):
    """Whether source and target are equal, why not, and when the oldest of the last sweeps was."""

    equal: bool
    why_not: list[str]
    oldest_sweep: str | None


class Rules(TypedDict):
    """The rules of verdicts and repairs that the page needs, so that it has none of its own."""

    drift: list[str]
    """The verdicts that are drift, in the order in which a person reads them."""
    repairs: dict[str, dict[str, str]]
    """By value of the param repair: its action (insert, update, delete) by verdict."""


class RunFacts(TypedDict):
    """The facts at the end of a reconciliation."""

    version: int
    dag_id: str
    run_id: str
    at: str
    repair: str
    compares: bool
    """Whether it compared windows or swept; otherwise it looked only at its named keys, or at nothing."""
    named: NamedKeys | None
    undo: str | None
    """The run to be taken back; then the result, why it failed, and the collections left out."""
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
    """Why a step wasn't done, by step and collection (`write.posts`)."""
    repaired_lately: list[RepairedLately]
    billed_reads: int
    collections: list[ReconciledCollection]
    open: list[OpenGroup]
    open_columns: dict[str, dict[str, int]]
    """By collection and column, the number of open stale rows, without excused ones, in which the column differs."""
    ages: dict[str, Age]
    declared: list[str]
    """All collections of the catalog."""
    parents_not_compared: list[str]
    """Collections that the compared ones reference, directly or not, and that the run left out."""
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
    """By reason and collection: a sentence with the tables that keep extra rows from being deleted."""
    links: Links


class RunReport(RunFacts):
    """A reconciliation's report: the facts, and the conclusions from them."""

    rules: Rules
    ready: Ready
    verdict: str
    """The run in one sentence."""
    alerts: list[Alert]
    """Why the run fails; empty if it succeeds."""
    press: Press | None
    """A button that repairs all open differences that a repair can end; None if there are none."""
    parity: Parity
    listed: Listed | None
    samples_shown: int
    """The most samples of a verdict of a collection."""


# --- the other DAGs, and a run without a report --------------------------------------------------------------------------


class Answer(TypedDict):
    """A person's answer to an approval."""

    chosen: list[str]
    by: str | None
    reason: str | None


Approval = Literal["approved", "rejected", "unanswered"]
"""How a review ended. "unanswered": its dry run failed, or the question failed or got no answer."""


class PreflightResult(TypedDict):
    """The results of the checks before a run; see engine/preflight.py."""

    role: str
    server: str
    source_time: str
    clock_difference_seconds: float
    estimated_reads: dict[str, int]
    triggers: dict[str, list[str]]
    unknown_constraints: dict[str, list[str]]


class GapPlan(TypedDict):
    """The facts that a backfill's tasks share. `params`: GapParams as JSON."""

    params: dict[str, object]
    preflight: PreflightResult
    coverage: dict[str, CoverageResult]
    billed_reads: int


class GapReport(TypedDict):
    """A backfill's report. `collections`: the reports of phase gap, then those of phase verify."""

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
    """The reads that an apply would bill after this dry run; None if unknown."""
    collections: list[CollectionResult]
    coverage: dict[str, CoverageResult]
    rules: Rules
    verdict: str
    alerts: list[Alert]
    samples_shown: int


class MigrationStep(TypedDict):
    """A migration file and its state; see migrations/plan.py."""

    version: str
    name: str
    state: str
    reason: str | None


class MigrationsReport(TypedDict):
    """A report of apply_migrations. `differences`: None if the tables were not compared."""

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
    """The report of a run that stopped early; `stopped` says why."""

    version: int
    dag_id: str
    run_id: str
    at: str
    stopped: str
    verdict: str
    alerts: list[Alert]


Report = RunReport | GapReport | MigrationsReport | StoppedReport
