"""Checks before anything is examined: both sides answer, show all their content, and are as the catalog declares.

With the wrong role, row-level security returns zero rows and no error, and everything would look missing. With the wrong
project, everything would look extra. So a run begins by checking its role and its databases.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations

from dualwrite import postgres, settings
from dualwrite.engine import check_fields, held, sampled
from dualwrite.engine.scans import scans
from dualwrite.firestore.source import Source
from dualwrite.model import share
from dualwrite.model.coverage import Coverage, coverage_of
from dualwrite.model.declaration import (
    Catalog,
    Collection,
    Column,
    CreateTime,
    EntryValue,
    Field,
    two_on_one_table,
)
from dualwrite.model.errors import PreflightError, TargetError
from dualwrite.model.live import can_be_key, fits, is_key
from dualwrite.model.run_report import PreflightResult
from dualwrite.model.windows import Window
from dualwrite.postgres import Connection, live_types, privileges
from dualwrite.postgres.enforced import Index, enforced
from dualwrite.postgres.references import Reference, references_to
from dualwrite.postgres.remembered import schema
from dualwrite.postgres.target import Target
from dualwrite.postgres.visibility import commands_without_policy, tables_hiding_rows

log = logging.getLogger(__name__)

CLOCK_WARN_SECONDS = 60.0
"""Seconds between the clocks of source and target above which a run warns: windows, watermarks and the grace period compare
instants of both sides."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """The results of preflight: counts and names only."""

    role: str
    server: str
    source_time: datetime
    clock_difference_seconds: float
    """The target's clock minus the source's, including the network round trip."""
    estimated_reads: dict[str, int]
    triggers: dict[str, list[str]]
    """Names of the triggers that a run's writes fire, by table."""
    unknown_constraints: dict[str, list[str]]
    """Constraints that refuse rows and aren't in the catalog, by table: unique keys, exclusion constraints, foreign keys."""

    def as_json(self) -> PreflightResult:
        return {
            "role": self.role,
            "server": self.server,
            "source_time": self.source_time.isoformat(),
            "clock_difference_seconds": round(self.clock_difference_seconds, 3),
            "estimated_reads": self.estimated_reads,
            "triggers": self.triggers,
            "unknown_constraints": self.unknown_constraints,
        }


def check(  # noqa: PLR0913 - options, each by its name
    source: Source,
    target: Target,
    catalog: Catalog,
    windows: Mapping[str, Window | None],
    *,
    writes: bool,
    remembers: bool = True,
    estimate: bool = True,
    schema_is_checked: bool = False,
    times_of: Iterable[str] | None = None,
) -> Preflight:
    """Checks both sides. `windows`: of the collections to be examined (None: all documents). `writes`: whether the run writes
    rows; `remembers`: whether it keeps anything in dualwrite, which a dry run needn't. `estimate`: whether to count the
    documents to read. `schema_is_checked`: the caller has checked dualwrite itself. `times_of`: the collections whose check
    fields, conditions, functions and ids are checked against a few documents (None: all of `windows`).

    Raises PreflightError with all faults of a side, one a line; TargetError if a retry may connect. Bills counts (one read
    for 1,000 documents), and for `times_of` the few documents that check_fields.look and sampled.look read.
    """
    # Rows that others require are looked at too, and written by a run that writes.
    collections = [catalog[name] for name in catalog.with_parents(windows)]
    try:
        _ = target.connection  # connects now, so that a fault is reported here
    except postgres.ConnectError as error:
        message = (
            f"Can't connect to Postgres: {error}. Check host, port, user and password of connection {settings.named('supabase_default')}, "
            "and that the server is up."
        )
        # If the server is full or is starting up, the task should be retried.
        raise (TargetError if error.passing else PreflightError)(message, code="target-unreachable") from None
    with target.transaction() as connection:
        faults = []
        if not schema_is_checked:
            schema.require_tables(connection)
            faults += schema.missing_grants(connection, writes=remembers)
        faults += [
            *privileges.missing_on_database(connection, "TEMPORARY"),
            *target_faults(connection, catalog, collections, writes=writes),
        ]
        role, server, target_time = identity(connection)
        fired = triggers(connection, collections)
        unknown = unknown_constraints(connection, catalog, collections)
        unseen = unseen_references(connection, collections) if writes else {}
    for sentence in unseen.values():
        log.warning("%s", sentence)
    if fired and writes:
        log.warning(
            "This run's writes fire triggers (a Supabase webhook is one): %s. docs/deployment.md has the remedy",
            "; ".join(f"{table}: {', '.join(names)}" for table, names in fired.items()),
        )
    if unknown and writes:
        log.warning(
            "The catalog doesn't know these constraints, which may refuse rows: %s. Declare them with unique= or references= in "
            "%s if these can express them; a document that a constraint refuses is rejected with its name",
            "; ".join(f"{table}: {', '.join(names)}" for table, names in unknown.items()),
            settings.catalog_file(),
        )
    if faults:
        raise PreflightError(
            "The target is not fit for this run:\n" + "\n".join(f"- {fault}" for fault in faults), code="target-not-fit"
        )
    began = datetime.now(UTC)
    estimates = {
        name: sum(source.count(scan)[0] for scan in scans(catalog[name], windows[name])) for name in windows if estimate
    }
    source_time = check_not_empty(source, target, catalog) or began
    asked = [catalog[name] for name in (windows if times_of is None else times_of)]
    found = [*check_fields.look(source, asked), *sampled.look(source, asked), *sampled.of_other_ids(source, asked)]
    for fault in found:
        if not fault.stops:
            log.warning("%s", fault.text)
    if stopping := [fault.text for fault in found if fault.stops]:
        raise PreflightError(
            "The source is not fit for this run:\n" + "\n".join(f"- {text}" for text in stopping), code="source-not-fit"
        )
    apart = (target_time - source_time).total_seconds() - (began - datetime.now(UTC)).total_seconds()
    if abs(apart) > CLOCK_WARN_SECONDS:
        log.warning(
            "The clocks of source and target are %.0f s apart; windows and grace compensate for it only partly", apart
        )
    return Preflight(role, server, source_time, apart, estimates, fired, unknown)


def target_faults(
    connection: Connection, catalog: Catalog, collections: Sequence[Collection], *, writes: bool
) -> list[str]:
    """The faults of the app's tables for a run that examines them or, with `writes`, writes them; one sentence each."""
    needed = {c.table: ["SELECT"] for c in catalog if c.sentinel}
    needed |= {c.table: ["SELECT", *(["INSERT", "UPDATE", "DELETE"] if writes else [])] for c in collections}
    there = privileges.relations(connection, [*needed, *(c.table for c in catalog)])
    catalog = catalog.with_live(live_types.read(connection.execute, needed))
    collections = [catalog[c.name] for c in collections]
    oids = {c.table: there[c.table] for c in collections if c.table in there}
    columns, uniques = _columns(connection, oids.values()), _uniques(connection, oids.values())
    faults = [
        *_role_faults(connection, writes),
        *privileges.missing_grants(connection, needed, there),
        *privileges.missing_on_types(connection, [(c.table, column.name) for c in collections for column in c.columns]),
        *_hidden(connection, collections, oids, writes=writes),
    ]
    for collection in collections:
        oid = oids.get(collection.table, 0)
        faults += _table_faults(collection, columns.get(oid, {}), uniques.get(oid, []))
    if any(column.via or column.late for collection in collections for column in collection.columns):
        by_table = {table: columns.get(oid, {}) for table, oid in oids.items()}
        on_table = {table: uniques.get(oid, []) for table, oid in oids.items()}
        validated = held.validated_keys(connection, oids)
        for collection in collections:
            faults += held.faults(catalog, collection, by_table, on_table, validated)
    return faults + _overlaps(connection, catalog, {c.name for c in collections}, there)


def _overlaps(connection: Connection, catalog: Catalog, names: Container[str], there: Mapping[str, int]) -> list[str]:
    """A fault for each pair of collections, at least one of them in `names`, that share a table (or one's table is a partition
    or child of the other's) without disjoint shares."""
    above = set(
        connection.execute(
            """
            WITH RECURSIVE up (oid, above) AS (
              SELECT o, o FROM unnest(%(tables)s::oid[]) AS t (o)
              UNION
              SELECT up.oid, i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.above
            )
            SELECT oid::int8, above::int8 FROM up WHERE above = ANY(%(tables)s::oid[])
            """,
            {"tables": list(there.values())},
        ).fetchall()
    )
    return [
        two_on_one_table(one.name, other.name, other.table)
        for one, other in combinations([c for c in catalog.collections if c.table in there], 2)
        if (one.name in names or other.name in names)
        and {(there[one.table], there[other.table]), (there[other.table], there[one.table])} & above
        and not share.are_disjoint(one.rows, other.rows)
    ]


def unseen_references(connection: Connection, collections: Sequence[Collection]) -> dict[str, str]:
    """By collection, a sentence with the tables that keep its rows from being deleted, because a delete might change rows that
    this role can't see; and the statements that let it see them."""
    oids = privileges.relations(connection, [c.table for c in collections])
    unproved = [r for r in references_to(connection, oids.values()) if r.unproved]
    if not unproved:
        return {}
    role = postgres.sql.Identifier(identity(connection)[0]).as_string(connection)
    sentences: dict[str, str] = {}
    for collection in collections:
        tables = {r.name: r for r in unproved if r.to == oids.get(collection.table)}
        if not tables:
            continue
        keys = "; ".join(f"{r.name} ({r.constraint}, ON DELETE {r.on_delete})" for r in tables.values())
        remedies = [_shown(connection, r, role) for r in tables.values()]
        sentences[collection.name] = (
            f"Rows of {collection.table} that rows of these tables could reference aren't deleted, because this role can't see "
            f"all of these: {keys}. {' '.join(remedies)}"
        )
    return sentences


def table_oids(connection: Connection, collections: Sequence[Collection]) -> dict[str, int]:
    """By collection, the oid of its table; collections without a table are left out."""
    oids = privileges.relations(connection, [c.table for c in collections])
    return {c.name: oids[c.table] for c in collections if c.table in oids}


def referencing_tables(connection: Connection, collections: Sequence[Collection]) -> dict[str, str]:
    """By collection, a sentence with the tables that have foreign keys to its table."""
    oids = privileges.relations(connection, [c.table for c in collections])
    references = references_to(connection, oids.values()) if oids else []
    sentences: dict[str, str] = {}
    for c in collections:
        if named := [f"{r.name} ({', '.join(r.columns)})" for r in references if r.to == oids.get(c.table)]:
            sentences[c.name] = f"{c.table} is referenced by {', '.join(named)}"
    return sentences


def _shown(connection: Connection, reference: Reference, role: str) -> str:
    """The statements that let a role see all rows of the referencing table."""
    schema, table = (
        postgres.sql.Identifier(*name).as_string(connection)
        for name in ((reference.schema,), (reference.schema, reference.table))
    )
    statements = (
        [] if reference.granted else [f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {table} TO {role};"]
    )
    if reference.filtered:
        statements.append(
            f"ALTER ROLE {role} BYPASSRLS; or CREATE POLICY dualwrite_sees ON {table} FOR SELECT TO {role} USING (true);"
        )
    return " ".join(statements)


def coverage(connection: Connection, collections: Sequence[Collection]) -> dict[str, Coverage]:
    """By collection, which columns of its table are compared. Collections without a visible table are left out."""
    live: dict[str, dict[str, bool]] = {}
    for table, column, kind in live_types.read(connection.execute, [c.table for c in collections]):
        live.setdefault(table, {})[column] = kind.generated
    return {c.name: coverage_of(c, live[c.table]) for c in collections if c.table in live}


def triggers(connection: Connection, collections: Sequence[Collection]) -> dict[str, list[str]]:
    """Names of the triggers that our inserts, updates and deletes fire, by table. Supabase's webhooks are triggers. Those of
    foreign keys are internal, and disabled ones don't fire: both are left out."""
    oids = privileges.relations(connection, [c.table for c in collections])
    rows = connection.execute(
        """
        SELECT tgrelid, array_agg(tgname::text ORDER BY tgname) FROM pg_trigger
        WHERE tgrelid = ANY(%s::oid[]) AND NOT tgisinternal AND tgenabled IN ('O', 'A')
          AND tgtype & 28 <> 0 -- on INSERT, DELETE or UPDATE
        GROUP BY tgrelid
        """,
        (list(oids.values()),),
    ).fetchall()
    fired = dict(rows)
    return {c.table: fired[oids[c.table]] for c in collections if oids.get(c.table) in fired}


def unknown_constraints(
    connection: Connection, catalog: Catalog, collections: Sequence[Collection]
) -> dict[str, list[str]]:
    """Constraints that refuse rows and that the catalog doesn't know, by table. A dry run tries most of them; only an apply
    shows refusals by triggers, by constraints on a default's value, or by a table that the role can't see."""
    live = enforced(connection, privileges.relations(connection, [c.table for c in collections]))
    unknown = {
        c.table: [
            *(
                f"{i.name} ({'exclusion' if i.exclusion else 'unique'})"
                for i in live[c.table].unknown_indexes(c)
                if not _made_by_itself(c, i)
            ),
            *(f"{k.name} (foreign key)" for k in live[c.table].unknown_foreign_keys(catalog, c)),
        ]
        for c in collections
        if c.table in live
    }
    return {table: names for table, names in unknown.items() if names}


def _made_by_itself(collection: Collection, index: Index) -> bool:
    """Whether a unique key has only columns that the catalog leaves to their defaults, such as the table's own id."""
    return index.columns is not None and not set(index.columns) & {c.name for c in collection.columns}


def identity(connection: Connection) -> tuple[str, str, datetime]:
    """Our role, the server's version, and its clock."""
    row = connection.execute(
        "SELECT current_user::text, current_setting('server_version'), clock_timestamp()"
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def _role_faults(connection: Connection, writes: bool) -> list[str]:
    row = connection.execute(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on', "
        "current_setting('session_replication_role') = 'replica', current_setting('server_encoding')"
    ).fetchone()
    assert row is not None
    replica, read_only, unguarded, encoding = row
    faults = []
    if replica or read_only:  # a fault for a dry run too, which stages pages in a temporary table
        faults.append(
            "The server is read-only: "
            + (
                f"it is a replica. Point connection {settings.named('supabase_default')} at the primary."
                if replica
                else "default_transaction_read_only is on for the server, the database or the role. Supabase sets it when the disk "
                "is nearly full: enlarge it, or free space."
            )
        )
    if writes and unguarded:
        faults.append(
            "Foreign keys and triggers are off: session_replication_role is replica for the role or the database. "
            "ALTER ROLE or ALTER DATABASE ... RESET session_replication_role."
        )
    if encoding != "UTF8":
        faults.append(
            f"The database's encoding is {encoding}, which can't hold all characters of a document. Move its tables to a database "
            "in UTF8."
        )
    return faults


def _hidden(
    connection: Connection, collections: Sequence[Collection], oids: Mapping[str, int], *, writes: bool
) -> list[str]:
    """Faults of row-level security: it hides rows from us or, with `writes`, lets us write none."""
    hidden = tables_hiding_rows(connection, oids.values())
    role = identity(connection)[0] if hidden else ""
    shut = commands_without_policy(connection, oids.values()) if writes else {}
    role = role or (identity(connection)[0] if shut else "")
    closed = [
        f"Row-level security of table {c.table} lets role {role} {' and '.join(shut[oids[c.table]])} no row. Connect as a role "
        "that bypasses it (ALTER ROLE ... BYPASSRLS), as the table's owner, or give the role a policy for all commands "
        f"({settings.role_file('data.sql')} does)."
        for c in collections
        if oids.get(c.table) in shut
    ]
    return closed + [
        f"Row-level security of table {collection.table} hides rows from role {role}. "
        "Connect as a role that bypasses it (ALTER ROLE ... BYPASSRLS), as the table's owner, or give the role a "
        f"policy that shows it every row ({settings.role_file('data.sql')} does)."
        for collection in collections
        if oids.get(collection.table) in hidden
    ]


def _columns(connection: Connection, tables: Iterable[int]) -> dict[int, dict[str, tuple[str, bool, bool]]]:
    """By table (oid) and column: type, whether NOT NULL (and valid), whether the server fills it in by itself."""
    rows = connection.execute(
        """
        SELECT attrelid, attname::text, format_type(atttypid, NULL),
               attnotnull AND NOT EXISTS ( -- since Postgres 18, NOT NULL ... NOT VALID allows old rows with nulls
                 SELECT FROM pg_constraint n
                 WHERE n.conrelid = attrelid AND n.contype = 'n' AND n.conkey = ARRAY[attnum] AND NOT n.convalidated
               ),
               atthasdef OR attidentity <> '' OR attgenerated <> ''
        FROM pg_attribute
        WHERE attrelid = ANY(%s::oid[]) AND attnum > 0 AND NOT attisdropped
        ORDER BY attrelid, attnum
        """,
        (list(tables),),
    ).fetchall()
    by_table: dict[int, dict[str, tuple[str, bool, bool]]] = {}
    for table, name, *described in rows:
        by_table.setdefault(table, {})[name] = tuple(described)
    return by_table


def _uniques(connection: Connection, tables: Iterable[int]) -> dict[int, list[tuple[list[str], str | None]]]:
    """By table (oid), its unique indexes: their sorted columns, and the predicate of a partial one. Left out: columns that an
    index only includes, indexes on expressions, and deferrable ones."""
    rows = connection.execute(
        """
        SELECT i.indrelid, array_agg(a.attname::text ORDER BY a.attname), pg_get_expr(i.indpred, i.indrelid)
        FROM pg_index i
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1])
        WHERE i.indrelid = ANY(%s::oid[]) AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indexprs IS NULL
        GROUP BY i.indexrelid, i.indrelid, i.indpred
        """,
        (list(tables),),
    ).fetchall()
    by_table: dict[int, list[tuple[list[str], str | None]]] = {}
    for table, columns, predicate in rows:
        by_table.setdefault(table, []).append((columns, predicate))
    return by_table


def _table_faults(
    collection: Collection,
    live: Mapping[str, tuple[str, bool, bool]],
    uniques: Sequence[tuple[Sequence[str], str | None]],
) -> list[str]:
    """Faults of the live table, its columns and unique indexes, against the catalog."""
    table, catalog = collection.table, settings.catalog_file()
    if not live:
        return [
            f"Table {table} is missing, or the role can't see it: the role may lack USAGE on its schema. Run the "
            f"DAG {settings.named('apply_migrations')}, grant USAGE, or correct the table's name in {catalog} (without a schema it is public)."
        ]
    faults = []
    for column in collection.columns:
        if column.name not in live:
            faults.append(f"Column {table}.{column.name} is missing. Add it, or correct {catalog}.")
        else:
            faults += _type_faults(table, column, is_written=column.name in collection.written_columns)
            if column.name in collection.rows:
                faults += _share_faults(table, column, collection.rows[column.name])
    faults += [
        f"Column {table}.{column.name} is part of the key and not NOT NULL (or NOT VALID): a row with NULL there has no key, so "
        f"it could not be compared, and no verdict would show it. Correct such rows, then ALTER TABLE {table} ALTER COLUMN "
        f"{column.name} SET NOT NULL; or choose another key in {catalog}."
        for column in collection.key
        if column.name in live and not live[column.name][1]
    ]
    declared = {c.name for c in collection.columns}
    for name, (_, not_null, has_default) in live.items():
        if not_null and not has_default and name not in declared:
            faults.append(
                f"Column {table}.{name} is NOT NULL without a default, and {catalog} doesn't declare it. "
                "Declare it there, or give it a default if no document holds its value."
            )
    faults += [
        f"Columns ({', '.join(unique)}) of {table} need a unique index: on exactly these, without WHERE, not "
        f"deferrable. Create it, or correct the key in {catalog}"
        + (
            "."
            if whole
            else ", or leave it out of unique=: a document that another index refuses is rejected, with its name."
        )
        for unique, whole in [(tuple(c.name for c in collection.key), True), *((u, False) for u in collection.unique)]
        if not _has_unique(uniques, unique, whole=whole)
    ]
    return faults


def _remedy(column: Column, catalog: str) -> str:
    """The remedy if a document's value doesn't fit the column."""
    if column.references and column.type == "text":
        return f"If the texts are ids, convert them in {catalog}: Field(...) >> text. Otherwise correct type= there."
    return f"Convert it in {catalog} (Field(...) >> integer, number, boolean, iso_time, epoch_milliseconds, ...), or correct type= there."


def _type_faults(table: str, column: Column, *, is_written: bool) -> list[str]:
    """Faults of the column's live type against its declared type and role."""
    place, live, catalog = f"Column {table}.{column.name}", column.live, settings.catalog_file()
    if live.generated:
        return [f"{place} is generated by Postgres (identity or generated). Remove it from {catalog}."]
    if not fits(column.type, column.named, is_id=not isinstance(column.origin, Field | CreateTime | EntryValue)):
        return [
            f"{place} is of type {live.name}, and {catalog} says that documents hold {column.type}, which can't be given to it. "
            + _remedy(column, catalog)
        ]
    if (column.role == "key" or column.references) and not can_be_key(column.named):
        return [
            f"{place} is of type {live.name}. A key, or a column that references one, is text, a whole number, a uuid, a date, "
            "a boolean or an enum, or, beside the document's id, a time that keeps milliseconds, because a row's key must lead back "
            "to its document."
        ]
    if is_written and live.kind != "timestamptz":
        return [
            f"{place} is of type {live.name}, and written_columns of {catalog} name it: windows compare it with instants, so it "
            f"must be timestamptz. ALTER TABLE {table} ALTER COLUMN {column.name} TYPE timestamptz, or take it out of written_columns."
        ]
    return []


def _share_faults(table: str, column: Column, value: share.Value) -> list[str]:
    """Faults of a share's value: it must be written as the column's type writes it, so that no row is in two shares."""
    text, live = share.text_of(value), column.live
    if text is None or (is_key(live, text) and not live.collated):
        return []
    return [
        f"Column {table}.{column.name} is of type {live.name}, and rows= of {settings.catalog_file()} gives it {value!r}, which isn't how "
        "Postgres writes a value of this type. A share has texts, whole numbers, uuids, dates, booleans or enums, and no "
        "nondeterministic collation. Correct rows=."
    ]


def _has_unique(uniques: Sequence[tuple[Sequence[str], str | None]], columns: tuple[str, ...], *, whole: bool) -> bool:
    """Whether a unique index is on exactly these columns, in any order.

    A partial index doesn't count, because it lets two rows share a key. Unless `whole`, one counts that leaves out only rows
    with a null in one of its columns, because nulls never equal each other.
    """
    return any(
        predicate is None or (not whole and _only_leaves_nulls_out(predicate, columns))
        for on, predicate in uniques
        if list(on) == sorted(columns)
    )


def _only_leaves_nulls_out(predicate: str, columns: tuple[str, ...]) -> bool:
    """Whether an index's predicate, as Postgres prints it, is `(a IS NOT NULL)`, or several of these joined by AND."""
    null_tests = {f"{name} IS NOT NULL" for column in columns for name in (column, f'"{column}"')}
    return all(part.strip("() ") in null_tests for part in predicate.split(" AND "))


def check_not_empty(source: Source, target: Target, catalog: Catalog) -> datetime | None:
    """Raises PreflightError if a sentinel collection has no documents or no rows: on a live system both have some, so the run
    looks at the wrong database.

    Returns the source's clock at the last count; None without sentinels.
    """
    moment: datetime | None = None
    for collection in catalog:
        if not collection.sentinel:
            continue
        [scan] = scans(collection, None)
        documents, moment = source.count(scan)
        rows = target.count(collection)
        if documents and rows:
            continue
        where, other, check = (
            (
                "Firestore",
                "project or database",
                f"project and database of connection {settings.named('firestore_default')}",
            )
            if not documents
            else (
                f"table {collection.table}",
                "database or role",
                f"host, database and role of connection {settings.named('supabase_default')}",
            )
        )
        raise PreflightError(
            f"Collection {collection.name} is empty in {where} ({documents:,} documents, {rows:,} rows), so this may be the "
            f"wrong {other}: on a live system it never is. Check the {check}. (A first load of all data is not a gap "
            "backfill.)",
            code="sentinel-empty",
        )
    return moment
