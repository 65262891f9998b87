"""Is this installation ready? One line for each requirement, with the remedy if it isn't met.

Uses the checks that begin a run (`engine/preflight.py`), and the migrations' plan. Writes nothing. It works before
apply_migrations has ever run, on one side if the other can't be reached, and under a role without rights.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata

from dualwrite import migrations, postgres, settings
from dualwrite.engine import check_fields, op_log, preflight
from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Scan, Source
from dualwrite.model.coverage import Coverage, limits
from dualwrite.model.declaration import Catalog
from dualwrite.model.errors import DualWriteError, PreflightError
from dualwrite.model.windows import LONG_AGO, Window
from dualwrite.postgres import Connection, privileges
from dualwrite.postgres.own_schema import SCHEMA
from dualwrite.postgres.remembered import schema, watermarks

MINIMUM = {
    "apache-airflow-task-sdk": (1, 2),
    "apache-airflow-providers-google": (15,),
    "apache-airflow-providers-postgres": (6, 2),
    "apache-airflow-providers-standard": (1, 9),
    "google-cloud-firestore": (2, 20),
    "psycopg": (3, 2, 9),
    "rfc3339-validator": (0, 1, 4),
    "sentry-sdk": (2,),
    "tenacity": (9,),
}
"""The lower bounds of requirements.txt, which isn't deployed everywhere."""

_STALE = timedelta(days=2)
"""A complete comparison is due once a day."""


@dataclass(frozen=True, slots=True)
class Line:
    """The result of one check. `fault`: the problem and its remedy, or None if all is well. `note` adds to an ok: a version,
    an age, or something else worth knowing."""

    what: str
    fault: str | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.fault is not None:
            return f"TO DO  {self.what}: {self.fault}"
        return f"ok     {self.what}{f': {self.note}' if self.note else ''}"


def examine(
    source: Callable[[], Source],
    target: Callable[[], Connection],
    catalog: Catalog,
    *,
    now: datetime | None = None,
) -> Iterator[Line]:
    """The lines, each as soon as it is known. `source` and `target` connect, or raise the reason why they can't.

    Costs one billed read for each index that the catalog needs, and the counts of the sentinel collections (with neither, of the
    first one).
    """
    now = now or datetime.now(UTC)
    yield from versions()
    source_ahead: timedelta | None = None
    try:
        with source() as firestore:
            source_ahead = yield from _source(firestore, catalog)
    except DualWriteError as error:
        yield Line("Firestore", str(error))
    try:
        with target() as connection:
            yield from _target(connection, catalog, source_ahead, now)
    except DualWriteError as error:
        yield Line("Postgres", str(error))
    except postgres.ConnectError as error:
        yield Line(
            "Postgres",
            f"can't connect: {error}. Correct connection {settings.named('supabase_default')}, or start the server.",
        )
    except postgres.Error as error:
        yield Line("Postgres", f"a statement ended in {postgres.condition(error)}. Run the doctor again.")


def versions(installed: Callable[[str], str] = metadata.version) -> Iterator[Line]:
    """One line for each package that the bundle needs: whether it is installed, and new enough."""
    for package, minimum in MINIMUM.items():
        least = ".".join(map(str, minimum))
        try:
            version = installed(package)
        except metadata.PackageNotFoundError:
            yield Line(package, f"it is missing. Install {package}>={least}.")
            continue
        parts = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
        old = parts < minimum
        yield Line(package, f"{version} is too old. Install {package}>={least}." if old else None, version)


# --- Firestore ----------------------------------------------------------------------------------------------------------


def _source(source: Source, catalog: Catalog) -> Generator[Line, None, timedelta | None]:
    """Lines about documents, indexes and check fields. Returns how far Firestore's clock is ahead of ours; None if no
    query was answered."""
    ahead: timedelta | None = None
    for collection in catalog:
        if collection.sentinel:
            [scan] = scans(collection, None)
            number, moment = source.count(scan)
            ahead = moment - datetime.now(UTC)
            fault = (
                None
                if number
                else f"it has no documents. Check the project of connection {settings.named('firestore_default')}."
            )
            yield Line(f"Firestore {source.project}, {collection.name}", fault, f"{number:,} documents")
    for scan in _indexed(catalog):
        what = f"Firestore index {scan.collection_id}.{scan.check_field}"
        try:
            _, moment = source.count(scan)
        except DualWriteError as error:
            yield Line(what, str(error))
        else:
            ahead = moment - datetime.now(UTC)
            yield Line(what)
    for collection in catalog:
        what = f"Firestore check fields of {collection.name}"
        answers = check_fields.look(source, [collection])
        blind = " ".join(answer.text for answer in answers if answer.stops)
        yield Line(what, blind or None, " ".join(answer.text for answer in answers))
    if ahead is None:  # neither a sentinel nor a check field: any answer tells the time
        for scan in (scan for collection in list(catalog)[:1] for scan in scans(collection, None)):
            ahead = source.count(scan)[1] - datetime.now(UTC)
    return ahead


def _indexed(catalog: Catalog) -> Iterable[Scan]:
    """One empty query for each index: a count over an empty window needs the index too, and bills one read."""
    seen = {}
    for collection in catalog:
        for scan in scans(collection, Window(LONG_AGO, LONG_AGO)):
            if scan.check_field is not None:
                seen[scan.collection_id, scan.check_field] = scan
    return seen.values()


# --- Postgres -------------------------------------------------------------------------------------------------------------


def _target(connection: Connection, catalog: Catalog, source_ahead: timedelta | None, now: datetime) -> Iterator[Line]:
    with postgres.transaction(connection, read_only=True):
        role, server, moment = preflight.identity(connection)
    target_ahead = moment - datetime.now(UTC)
    yield Line("Postgres", note=f"{server}, as {role}")
    yield _tls(connection)
    if source_ahead is None:
        yield Line("clocks", "Firestore's is unknown, so they can't be compared. See the lines above.")
    else:
        apart = (target_ahead - source_ahead).total_seconds()
        bad = abs(apart) > preflight.CLOCK_WARN_SECONDS
        yield Line(
            "clocks", f"{apart:.0f} s apart. Correct the target's." if bad else None, f"{abs(apart):.1f} s apart"
        )
    made = yield from _migrations(connection)
    yield from _tables(connection, catalog)
    yield _write_ops(connection, catalog)
    if made:
        yield _age(connection, catalog, now)


def _write_ops(connection: Connection, catalog: Catalog) -> Line:
    if not any(c.operations for c in catalog):
        return Line("write_ops", note="not needed: the catalog declares no operations")
    with postgres.transaction(connection, read_only=True):
        readable = op_log.is_readable(connection)
    if readable:
        return Line("write_ops")
    return Line(
        "write_ops",
        "it can't be read, so nothing shows why a row differs, or which keys clients tried to write. GRANT SELECT ON write_ops "
        "to the role, which must see all of its rows.",
    )


def _tls(connection: Connection) -> Line:
    info = connection.info
    if postgres.is_local(info.host):
        return Line("TLS", note="not needed on this machine")
    if not connection.pgconn.ssl_in_use:
        return Line("TLS", 'the connection is plain. Add {"sslmode": "verify-full", "sslrootcert": ...} to its extra.')
    mode = info.get_parameters().get("sslmode", "prefer")
    if mode != "verify-full":
        return Line(
            "TLS",
            f"sslmode is {mode}, so the server's identity is not checked. Set verify-full, and sslrootcert to its CA.",
        )
    return Line("TLS", note="verify-full")


def _migrations(connection: Connection) -> Generator[Line, None, bool]:
    """Lines about pending migrations and the schema. Returns whether the schema is complete and the role may use it."""
    try:
        steps = migrations.make_plan(connection, migrations.MigrationParams())
    except (DualWriteError, postgres.Error) as error:
        words = postgres.condition(error) if isinstance(error, postgres.Error) else str(error)
        yield Line("migrations", f"the ledger can't be read: {words}. See {settings.role_file('data.sql')}.")
        return False
    refused = [f"{step.version}_{step.name}: {step.reason}" for step in steps if step.state == "refused"]
    waiting = [f"{s.version}_{s.name}" for s in steps if s.state in ("pending", "interrupted")]
    if refused:
        yield Line("migrations", "refused: " + "; ".join(refused) + ".")
    elif waiting:
        yield Line(
            "migrations",
            f"pending: {', '.join(waiting)}. Run the DAG {settings.named('apply_migrations')} with mode=apply.",
        )
    else:
        yield Line("migrations", note=f"{len(steps)} applied")
    try:
        with postgres.transaction(connection, read_only=True):
            schema.require_tables(connection)
            missing = [
                *schema.missing_grants(connection, writes=True),
                *privileges.missing_on_database(connection, "TEMPORARY"),
            ]
    except PreflightError:
        return False
    except postgres.Error as error:
        yield Line(
            f"schema {SCHEMA}",
            f"{postgres.condition(error)}. Grant the role what {settings.role_file('data.sql')} says.",
        )
        return False
    for fault in missing:
        yield Line(f"schema {SCHEMA}", fault)
    return not missing


def _tables(connection: Connection, catalog: Catalog) -> Iterator[Line]:
    """Each collection's table: there, as declared, visible, writable; and what its triggers would do."""
    for collection in catalog:
        writing: list[str] = []
        covered: Mapping[str, Coverage] = {}
        try:
            with postgres.transaction(connection, read_only=True):
                faults = preflight.target_faults(connection, catalog, [collection], writes=False)
                writing = preflight.target_faults(connection, catalog, [collection], writes=True) if not faults else []
                covered = preflight.coverage(connection, [collection])
        except postgres.Error as error:
            faults = [f"{postgres.condition(error)}. Grant the role what {settings.role_file('data.sql')} says."]
        for fault in faults:
            yield Line(f"table {collection.table}", fault)
        note = "read only: " + " ".join(writing) if writing else ""
        if not faults:
            yield Line(f"table {collection.table}", note=note)
            yield Line(f"columns of {collection.name}", note=covered[collection.name].sentence())
        if limit := limits(collection):
            yield Line(f"rows of {collection.name}", note=limit)
    with postgres.transaction(connection, read_only=True):
        fired = preflight.triggers(connection, list(catalog))
        unseen = preflight.unseen_references(connection, list(catalog))
    for name, sentence in unseen.items():
        yield Line(f"deletes in {catalog[name].table}", sentence)
    number = sum(map(len, fired.values()))
    listed = "; ".join(f"{table}: {', '.join(names)}" for table, names in fired.items())
    yield Line("triggers", note=f"{number} fire on what a run writes: {listed}" if number else "none")


def _age(connection: Connection, catalog: Catalog, now: datetime) -> Line:
    """The age of the oldest of the collections' last complete comparisons."""
    with postgres.transaction(connection, read_only=True):
        ages = watermarks.ages(connection)
    swept = {name: at for name, age in ages.items() if (at := age["swept_at"])}
    never = [name for name in catalog.names if name not in swept]
    if never:
        return Line(
            "last complete comparison",
            f"never for {', '.join(never)}. Run {settings.named('backfill_gap')} with mode=apply, or {settings.named('reconcile_dual_writes')} with scope=sweep.",
        )
    oldest, name = min((datetime.fromisoformat(swept[name]), name) for name in catalog.names)
    age = f"{(now - oldest).total_seconds() / 3600:.1f} h ago ({name})"
    late = now - oldest > _STALE
    return Line(
        "last complete comparison", f"{age}. Unpause {settings.named('reconcile_dual_writes')}." if late else None, age
    )
