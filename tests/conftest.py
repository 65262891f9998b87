"""Real parts for all tests: the official Firestore emulator, Postgres 18 (and 15), a database and a project for each."""

from __future__ import annotations

import gc
import os
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

import psycopg
import pytest
from _pytest.terminal import TerminalReporter
from google.cloud import firestore as firestore_library
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from dev import emulator as emulator_module
from dev import postgres_server as server_module
from dev import processes
from dualwrite.firestore.source import Source
from dualwrite.migrations.files import folders, list_folders
from tests.databases import administrated, clone, database

ROOT = Path(__file__).resolve().parents[1]

# Two shared cores: time per example says nothing here. A run that must be complete tries the same examples each time, so that what
# fails there is of the change; all others go on looking.
settings.register_profile(
    "shared_machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("DUALWRITE_TEST_SKIPS") == "refused",
)
settings.load_profile("shared_machine")


def pytest_configure(config: pytest.Config) -> None:
    """Temporary files in memory, and with several processes (-n), one emulator for all: Java warms up once."""
    processes.keep_temporary_files_in_memory()
    gc.disable()  # until all is imported and collected: nearly all of that stays
    if config.getoption("numprocesses", None) and "DUALWRITE_TEST_EMULATOR" not in os.environ:
        parts = ExitStack()
        folder = parts.enter_context(tempfile.TemporaryDirectory(prefix="dualwrite-emulator-"))
        os.environ["DUALWRITE_TEST_EMULATOR"] = parts.enter_context(emulator_module.emulator(Path(folder)))
        config.add_cleanup(parts.close)


MAY_BE_LEFT_OUT = {
    "mounting a tiny file system is not allowed here": "a container without the right to mount",
    "this machine has only its loopback address": "a container without a network",
}
"""By its reason: a test that `.ci/run` may leave out, and where. Whatever else is left out fails it (DUALWRITE_TEST_SKIPS)."""


def _left_out(config: pytest.Config) -> Counter[str]:
    """How many tests were left out, by reason."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    return Counter(str(r.longrepr[2] if isinstance(r.longrepr, tuple) else r.longrepr) for r in reports)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run that had to be complete and wasn't."""
    if os.environ.get("DUALWRITE_TEST_SKIPS") != "refused" or hasattr(session.config, "workerinput"):
        return
    reasons = [reason.removeprefix("Skipped: ") for reason in _left_out(session.config)]
    if session.exitstatus == 0 and any(reason not in MAY_BE_LEFT_OUT for reason in reasons):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """What was left out, and why: a green run says what it didn't look at."""
    for reason, tests in _left_out(config).items():
        terminalreporter.write_line(f"left out: {tests} of the tests, {reason.removeprefix('Skipped: ')}")


def pytest_collection_finish() -> None:
    """What is there by now stays: to look at it again took garbage collections 4 % of this process's time, and 3 more with
    Python's own threshold of 700 objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


class _Scopes(LoadScopeScheduling):
    """A process takes a file at a time, and whole folders where Airflow is started once for all of their files."""

    ALONE = (
        "tests/e2e/test_parity_page.py",  # beside an API that is a stub
        "tests/dags/test_image.py",  # in an Airflow of its own
        "tests/dags/test_oldest_airflow.py",
    )

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        folder = file.rsplit("/", 1)[0]
        return folder if folder in ("tests/dags", "tests/e2e") and file not in self.ALONE else file


@pytest.hookimpl(optionalhook=True)  # `make mutants` loads no plugin that it doesn't need
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _Scopes(config, log)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of the Firestore emulator."""
    given = os.environ.get("DUALWRITE_TEST_EMULATOR")  # one for many processes or runs
    own = emulator_module.emulator
    with nullcontext(given) if given else own(tmp_path_factory.mktemp("emulator")) as host:
        os.environ["FIRESTORE_EMULATOR_HOST"] = host
        # gRPC shares a connection between channels that are open at once: while these are, no other makes one anew.
        with (
            Source("kept-open", emulator_host=host) as source,
            closing(firestore_library.Client(project="kept-open")) as client,
        ):
            source.get(["c/d"])
            client.document("c/d").get()
            yield host
        os.environ.pop("FIRESTORE_EMULATOR_HOST", None)


@pytest.fixture
def firestore(emulator: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[firestore_library.Client]:
    """An empty Firestore database of the test's own."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator)  # another one may be running beside it
    client = firestore_library.Client(project=f"t{uuid.uuid4().hex[:12]}")
    yield client
    client.close()


def _template(uri: str, name: str, *files: Path) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(database(uri, name)) as connection:
        for file in files:
            connection.execute(file.read_text())


def prepare(uri: str) -> str:
    _template(uri, "phase1", ROOT / "sql/local/phase1.sql")
    _template(uri, "migrated", ROOT / "sql/local/phase1.sql", *(f.path for f in list_folders(folders())))
    return uri


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URI of a Postgres 18 server, as superuser."""
    if given := os.environ.get("DUALWRITE_TEST_POSTGRES"):  # prepared, and one for many runs
        with administrated(given):
            yield given
        return
    with server_module.server() as uri, administrated(prepare(uri)):
        yield uri


@pytest.fixture(scope="session")
def postgres15_server() -> Iterator[str]:
    """URI of a Postgres 15 server, where Debian's binaries are there."""
    if not server_module.DEBIAN_15.is_dir():
        pytest.skip("no Postgres 15 on this machine: apt-get install postgresql-15")
    with server_module.server(binaries=server_module.DEBIAN_15) as uri, administrated(prepare(uri)):
        yield uri


@pytest.fixture
def empty_dsn(postgres_server: str) -> Iterator[str]:
    """An empty database."""
    yield from clone(postgres_server, "template1")


@pytest.fixture
def phase1_dsn(postgres_server: str) -> Iterator[str]:
    """A database with the tables that production has, before any migration of ours."""
    yield from clone(postgres_server, "phase1")


@pytest.fixture
def target_dsn(postgres_server: str) -> Iterator[str]:
    """A database as apply_migrations leaves it."""
    yield from clone(postgres_server, "migrated")


@pytest.fixture(scope="module")
def unparented_dsn(postgres_server: str) -> Iterator[str]:
    """A migrated database whose foreign keys are off: for tests about values, not about parents."""
    for uri in clone(postgres_server, "migrated"):
        with psycopg.connect(uri, autocommit=True) as open_connection:
            for (table,) in open_connection.execute(
                "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' GROUP BY 1"
            ).fetchall():
                open_connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        yield uri


@pytest.fixture
def connection(target_dsn: str) -> Iterator[psycopg.Connection]:
    """A connection to the migrated database, autocommit."""
    with psycopg.connect(target_dsn, autocommit=True) as open_connection:
        yield open_connection
