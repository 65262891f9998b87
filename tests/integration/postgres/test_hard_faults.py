"""Faults of the server below us: no connections left, a full disk, a pooler that restarts, a second Airflow by mistake.
docs/runbook.md says what an operator sees of each."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path

import psycopg
import pytest

from dev import postgres_server as server_module
from dev import processes
from dualwrite import postgres
from dualwrite.dual_write import DualWriter, Outcome
from dualwrite.edge.errors import without_content, worth_a_retry
from dualwrite.engine import judge
from dualwrite.model.errors import Defect
from dualwrite.postgres import session
from tests import faults, in_slices
from tests.faults import COLLECTIONS, Broken, Told
from tests.migrating import execute, transaction_pooler
from tests.soak import sized
from tests.support import gap_run, one
from tests.wire import Message, wire

KINDS = ("backfill", "repair")
kinds = pytest.mark.parametrize("kind", KINDS)


def _age(fixture_name: str, config: pytest.Config) -> str:
    """One world for the suite's tests; in the soak one for each: after half an hour no window shows its last writes any more, so
    that a run sends less than was counted."""
    return "function" if config.getoption("markexpr") == "soak" else "module"


@pytest.fixture(scope=_age)
def broken(emulator, postgres_server):
    with faults.made(emulator, postgres_server) as target:
        yield target


@pytest.fixture(scope=_age)
def right(broken) -> Callable[[str], dict[str, list[str]]]:
    return faults.undisturbed(partial(_run, broken), broken)


def _run(broken: Broken, kind: str, dsn: str, run_id: str = "run") -> Told:
    """A whole run, its larger collections in slices: staging, looks, writes, their journal, seen keys, verification, op log."""
    if kind == "repair":
        return broken.run(kind, dsn, slice_documents=4, side_by_side=1, run_id=run_id)
    with gap_run(
        broken.client.project, broken.emulator, dsn,
        collections=COLLECTIONS, scope="all", run_id=run_id, slice_documents=4, page_size=2,
    ) as run:  # fmt: skip
        found, _ = in_slices.gap(run, dry=False)
        checked, _ = in_slices.verification(run)
    return faults.told(found, checked)


def _nothing_wrong(dsn: str, before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    """Each row is as it was, or as it should be."""
    for table, found in faults.rows(dsn).items():
        assert set(found) <= {*before[table], *after[table]}, table


def _converges(broken: Broken, kind: str, dsn: str, after: dict[str, list[str]]) -> None:
    """One run finishes what another left. (That the next finds nothing to do: test_killed_at_each_step.py.)"""
    assert _run(broken, kind, dsn, "next").alerts == []
    assert faults.rows(dsn) == after
    assert faults.unconfirmed(dsn) == 0
    assert one(dsn, "SELECT (SELECT count(*) FROM dualwrite.looks) + (SELECT count(*) FROM dualwrite.seen_keys)") == 0
    twice = one(
        dsn,
        "SELECT count(*) FROM (SELECT FROM dualwrite.repair_journal GROUP BY collection, key HAVING count(*) > 1) _",
    )
    assert twice == 0, "a key was written twice"


def _what_it_says(broken: Broken, kind: str, dsn: str, run_id: str = "run") -> str:
    """Runs, and returns what it tells, nothing if it ended well. An error that ends it is worth a retry."""
    try:
        alerts = _run(broken, kind, dsn, run_id).alerts
    except Exception as error:  # noqa: BLE001 - all that a task may end with
        clear = without_content(error)
        assert worth_a_retry(clear), clear
        assert not isinstance(clear, Defect), clear
        alerts = [str(clear)]
    return " ".join(alerts)


class _Messages:
    """Calls `act` once, before the message that `at` describes: by its number, or by a text in it."""

    def __init__(self, at: int | str, act: Callable[[], object]) -> None:
        self._at, self._act = at, act
        self._lock = threading.Lock()
        self.number = self.alone = 0
        """Of messages, and of those that were sent outside a transaction: each begins one, or is one."""
        self._begun = False
        self._over = threading.Event()

    def __call__(self, message: Message) -> None:
        with self._lock:
            self.number += 1
            self.alone += message.alone
            here = self._is_here(message)
            if self._begun or not here:
                return
            self._begun = True
        try:
            self._act()
        finally:
            self._over.set()

    def _is_here(self, message: Message) -> bool:
        return self.number == self._at if isinstance(self._at, int) else self._at in message.text

    @property
    def acted(self) -> bool:
        """Whether it has acted. Waits where it is at it: what it breaks may end a run at once."""
        return self._begun and self._over.wait(60)


class _Transactions(_Messages):
    """As _Messages, before the transaction of this number."""

    def _is_here(self, message: Message) -> bool:
        return message.alone and self.alone == self._at


@pytest.fixture(scope=_age)
def sent(broken) -> Callable[[str], _Messages]:
    """What an undisturbed run sends."""

    @cache
    def by(kind: str) -> _Messages:
        counted = _Messages(0, lambda: None)
        with broken.target() as dsn, wire(dsn, before=counted) as wired:
            _run(broken, kind, wired)
        return counted

    return by


def _moment(number: int) -> int:
    """Any number up to this one."""
    at = random.randint(1, number)
    sys.stdout.write(f"\nat {at} of {number}\n")
    return at


def _moments(number: int, of: int) -> list[int]:
    """So many numbers, evenly from the first to the last."""
    return sorted({1 + n * (number - 1) // (of - 1) for n in range(of)})


# --- connections exhausted ----------------------------------------------------------------------------------------------


@contextmanager
def _crowded(dsn: str) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """The DSN under a role; what takes its connections away, and lets it make no new one; and what ends that."""

    def refuse() -> None:
        execute(
            dsn,
            "ALTER ROLE crowded CONNECTION LIMIT 0",
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'crowded'",
        )

    def admit() -> None:
        execute(dsn, "ALTER ROLE crowded CONNECTION LIMIT -1")

    execute(
        dsn,
        "DROP ROLE IF EXISTS crowded",
        "CREATE ROLE crowded LOGIN BYPASSRLS",
        "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public, dualwrite TO crowded",
        "GRANT USAGE ON SCHEMA dualwrite TO crowded",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA dualwrite TO crowded",
    )
    try:
        yield dsn.replace("postgres@", "crowded@"), refuse, admit
    finally:
        execute(dsn, "DROP OWNED BY crowded", "DROP ROLE crowded")


@pytest.mark.parametrize("kind", KINDS[1:])
def test_connections_refused_for_a_moment_cost_nothing(broken, right, sent, kind, caplog):
    """A pool that is used up for a moment, where our connections were closed between transactions: each is made again."""
    after = right(kind)
    with broken.target() as dsn, _crowded(dsn) as (crowded, refuse, admit):
        turns = iter(range(10**6))
        every = sent(kind).number // 16
        admitting: list[threading.Timer] = []

        def now_and_then(message: Message) -> None:
            if message.alone and next(turns) % every == 1:
                refuse()
                admitting.append(threading.Timer(0.3, admit))
                admitting[-1].start()

        try:
            with wire(crowded, before=now_and_then) as wired:
                assert _run(broken, kind, wired).alerts == []
        finally:
            for timer in admitting:
                timer.join()
        refusals = [r for r in caplog.records if "after ConnectError" in r.getMessage()]
        assert refusals
        assert faults.rows(dsn) == after
        assert faults.unconfirmed(dsn) == 0


def _refused_for_good(broken: Broken, kind: str, after: dict[str, list[str]], at: int) -> None:
    with broken.target() as dsn:
        before = faults.rows(dsn)
        with _crowded(dsn) as (crowded, refuse, _), pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "RECONNECT_SECONDS", 0.3)
            refused = _Messages(at, refuse)
            with wire(crowded, before=refused) as wired:
                text = _what_it_says(broken, kind, wired)
        assert refused.acted
        if text:
            assert "too many connections for role" in text or "Error" in text or "AdminShutdown 57P01" in text, (
                at,
                text,
            )
        else:  # all was done by then, but for removing what slices saw, which the next run does
            assert (faults.rows(dsn), faults.unconfirmed(dsn)) == (after, 0), at
        _nothing_wrong(dsn, before, after)
        _converges(broken, kind, dsn, after)


@kinds
def test_connections_refused_for_good_end_in_clear_words(broken, right, sent, kind):
    """The run says so, wrote nothing wrong, and moved no watermark past what it hasn't kept: the next one converges."""
    _refused_for_good(broken, kind, right(kind), _moment(sent(kind).number))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@kinds
def test_connections_refused_from_any_message_on(broken, right, sent, kind):
    for at in _moments(sent(kind).number, sized(50)):
        _refused_for_good(broken, kind, right(kind), at)


@pytest.mark.parametrize("kind", KINDS[:1])
def test_no_connection_left_of_max_connections_is_said(broken, right, kind, monkeypatch):
    """The limit of the whole server: others have taken all that is left for roles that are no superuser."""
    monkeypatch.setattr(session, "RECONNECT_SECONDS", 0.3)
    with broken.target() as dsn, _crowded(dsn) as (crowded, _, _):
        with ExitStack() as others:
            with suppress(psycopg.OperationalError):
                while True:
                    others.enter_context(closing(psycopg.connect(crowded)))
            text = _what_it_says(broken, kind, crowded)
        assert "Can't connect to Postgres" in text
        assert "slots are reserved" in text or "too many clients" in text
        assert faults.rows(dsn) != right(kind)
        assert _run(broken, kind, crowded).alerts == []
        assert faults.rows(dsn) == right(kind)


# --- a full disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(postgres_server) -> Iterator[Path]:
    """A file system of 40 MB, a tablespace of the server's."""
    if shutil.which("mount") is None:
        pytest.skip("mounting a tiny file system is not allowed here")
    folder = Path(tempfile.mkdtemp(prefix="dualwrite-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("mounting a tiny file system is not allowed here")
    try:
        folder.chmod(0o755)
        space = folder / "space"
        space.mkdir()
        if (user := server_module.unprivileged()) is not None:
            shutil.chown(space, user.pw_uid, user.pw_gid)
        execute(postgres_server, f"CREATE TABLESPACE small LOCATION '{space}'")
        try:
            yield folder
        finally:
            execute(postgres_server, "DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def _on(disk: Path, broken: Broken) -> Iterator[str]:
    """A copy of the target on that disk."""
    execute(
        broken.server,
        f"CREATE DATABASE on_small TEMPLATE {broken.name} TABLESPACE small STRATEGY file_copy",
    )
    try:
        yield broken.server.rsplit("/", 1)[0] + "/on_small"
    finally:
        execute(broken.server, "DROP DATABASE on_small WITH (FORCE)")


def _full_disk(broken: Broken, disk: Path, kind: str, after: dict[str, list[str]], at: int | str, room: int = 0) -> str:
    """A run whose disk has only so many bytes left from a message on; what it said. Then one with room."""
    filler = disk / "filler"

    def fill() -> None:
        size = 1 << 16
        with filler.open("wb") as file:
            while shutil.disk_usage(disk).free > room:
                file.write(bytes(min(size, shutil.disk_usage(disk).free - room)))
                file.flush()

    with _on(disk, broken) as dsn, pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "LONGEST_PAUSE_SECONDS", 0.05)  # nobody makes room between two attempts
        before = faults.rows(dsn)
        filled = _Messages(at, fill)
        try:
            with wire(dsn, before=filled) as wired:
                text = _what_it_says(broken, kind, wired)
        finally:
            filler.unlink(missing_ok=True)
        assert filled.acted
        assert not text or "DiskFull" in text or "TargetError" in text, text
        _nothing_wrong(dsn, before, after)
        _converges(broken, kind, dsn, after)
        return text


@pytest.mark.parametrize(
    ("kind", "work"),
    [("backfill", "COPY"), ("backfill", "dualwrite.repair_journal"), ("repair", "dualwrite.runs")],
    ids=["staged", "written", "recorded"],
)
def test_a_full_disk_is_nobodys_fault_and_loses_nothing(broken, right, small_disk, kind, work):
    """However far the run came: no row is rejected for it, no page is lost, and no watermark moved past what wasn't kept."""
    said = _full_disk(broken, small_disk, kind, right(kind), work)
    assert "DiskFull 53100" in said
    assert "The server's disk is full. Give it room, then run again" in said


@pytest.mark.soak
@pytest.mark.timeout(3600)
@kinds
def test_a_disk_that_is_full_after_any_number_of_pages(broken, right, small_disk, kind):
    said = [_full_disk(broken, small_disk, kind, right(kind), 1, pages * 8192) for pages in range(0, 200, 5)]
    assert any(said)
    assert not all(said)


# --- a pooler that restarts ----------------------------------------------------------------------------------------------


@contextmanager
def _pooler(dsn: str, folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The DSN of a pooler, and what kills it and starts it again."""
    port = processes.free_port()
    running = ExitStack()

    def start() -> str:
        return running.enter_context(transaction_pooler(dsn, folder, port))

    def restart() -> None:
        running.close()
        start()

    try:
        yield start(), restart
    finally:
        running.close()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_pooler_that_restarts_between_transactions(broken, right, sent, kind, tmp_path):
    """That costs nothing: a BEGIN that finds no connection is begun again on a new one."""
    every = sent(kind).number // 16
    with broken.target() as dsn, _pooler(dsn, tmp_path) as (pooled, restart):
        turns = iter(range(10**6))

        def now_and_then(message: Message) -> None:
            if message.alone and next(turns) % every == 1:
                restart()

        with wire(pooled, before=now_and_then) as wired:
            assert _run(broken, kind, wired).alerts == []
        assert next(turns) > 3 * every
        assert faults.rows(dsn) == right(kind)
        assert faults.unconfirmed(dsn) == 0


def _pooler_restarts(broken: Broken, kind: str, after: dict[str, list[str]], at: int | str, folder: Path) -> None:
    with broken.target() as dsn:
        before = faults.rows(dsn)
        with _pooler(dsn, folder) as (pooled, restart):
            restarted = _Messages(at, restart)
            with wire(pooled, before=restarted) as wired:
                _what_it_says(broken, kind, wired)
            assert restarted.acted
            _nothing_wrong(dsn, before, after)
        _converges(broken, kind, dsn, after)


@pytest.mark.parametrize(
    ("kind", "work"),
    [
        ("backfill", "COPY"),
        ("backfill", "dualwrite.repair_journal"),
        ("backfill", "dualwrite.watermarks"),
        ("repair", "write_ops"),
    ],
    ids=["look", "write", "verification", "op-log"],
)
def test_a_pooler_that_restarts_in_the_middle_of(broken, right, kind, work, tmp_path):
    """A transaction that loses its connection ends in clear words, or is told of its collection; the next run converges."""
    _pooler_restarts(broken, kind, right(kind), work, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@kinds
def test_a_pooler_that_restarts_at_any_message(broken, right, sent, kind, tmp_path):
    for at in _moments(sent(kind).number, sized(50)):
        _pooler_restarts(broken, kind, right(kind), at, tmp_path)


def test_a_pooler_that_restarts_under_the_helper(target_dsn, tmp_path):
    """At each message of a write: it is not told as written where it isn't, and the next is made on a new connection."""
    execute(target_dsn, "INSERT INTO boards (id, title) VALUES ('b1', 'b')")
    with _pooler(target_dsn, tmp_path) as (pooled, restart):
        outcomes, at = Counter[Outcome](), 0
        while at < 40:
            at += 1
            restarted = _Messages(at, restart)
            with (
                wire(pooled, before=restarted) as wired,
                closing(DualWriter(lambda wired=wired: postgres.connect(wired), timeout=20.0)) as writer,
            ):
                fields = {"nickname": "n"}
                told = writer.mirror(f"users/u{at}", before=None, after=fields)
                there = one(target_dsn, "SELECT count(*) FROM users WHERE id = %s", f"u{at}")
                assert told is not Outcome.WRITTEN or there == 1
                assert told in (Outcome.WRITTEN, Outcome.FAILED)
                outcomes[told] += 1
                if not restarted.acted:
                    break
                assert writer.mirror(f"users/v{at}", before=None, after=fields) is Outcome.WRITTEN
        assert outcomes == {Outcome.FAILED: at - 1, Outcome.WRITTEN: 1}


# --- two Airflows --------------------------------------------------------------------------------------------------------

PAIRS = [("backfill", "backfill"), ("repair", "repair"), ("backfill", "repair"), ("repair", "backfill")]
pairs = pytest.mark.parametrize("pair", PAIRS, ids="-".join)


def _one_inside_another(broken: Broken, pair: tuple[str, str], after: dict[str, list[str]], at: int, same: bool) -> str:
    """A run that is held up before a transaction while another run begins and ends; returns what both said. `same`: both have
    one id, as scheduled runs of the same minute have."""
    outer, inner = pair
    said: list[str] = []
    with broken.target() as dsn:
        before = faults.rows(dsn)

        def another() -> None:
            said.append(_what_it_says(broken, inner, dsn, "one" if same else "two"))
            _nothing_wrong(dsn, before, after)

        held = _Transactions(at, another)
        with wire(dsn, before=held) as wired:
            said.append(_what_it_says(broken, outer, wired, "one"))
        assert held.acted
        _nothing_wrong(dsn, before, after)
        _converges(broken, "repair" if "repair" in pair else outer, dsn, after)
    return f"inner: {said[0]}; outer: {said[1]}"


@pytest.mark.parametrize(
    ("pair", "same"), [(PAIRS[0], False), (PAIRS[1], True), (PAIRS[2], False)], ids=["backfills", "repairs", "both"]
)
def test_two_airflows_one_run_inside_another(broken, right, sent, pair, same):
    """Whatever the one has read, the other changes: no write is wrong or done twice, and what it can't go on with it says."""
    at = _moment(sent(pair[0]).alone)
    sys.stdout.write(_one_inside_another(broken, pair, right(max(pair)), at, same) + "\n")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("same", [False, True], ids=["two-ids", "one-id"])
@pairs
def test_two_airflows_one_run_inside_another_anywhere(broken, right, sent, pair, same):
    for at in _moments(sent(pair[0]).alone, sized(25)):
        sys.stdout.write(f"{at}: {_one_inside_another(broken, pair, right(max(pair)), at, same)}\n")


@pytest.mark.parametrize("pair", PAIRS[1:3], ids="-".join)
def test_two_airflows_side_by_side(broken, right, pair):
    """At the same moment, in their own time: their locks meet too."""
    after = right(max(pair))
    with broken.target() as dsn:
        before = faults.rows(dsn)
        both = threading.Barrier(2)

        def work(kind: str, run_id: str) -> str:
            both.wait()
            return _what_it_says(broken, kind, dsn, run_id)

        with ThreadPoolExecutor(2) as threads:
            sys.stdout.write(f"{list(threads.map(work, pair, ('one', 'two')))}\n")
        _nothing_wrong(dsn, before, after)
        _converges(broken, max(pair), dsn, after)
