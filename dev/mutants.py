"""Finds lines that no test checks: breaks modules one expression at a time and runs the tests that reach the break.

    make mutants                                   all modules below
    make mutants module=classify                   one of them
    make mutants module=judge sample=50            fifty of its mutants, always the same ones

A mutant that no test notices survives: either a test is missing, or the change changes nothing. A mutant under
which no test ends counts as noticed, so a busy machine flatters. When each module was asked last, 92 percent or more were noticed.

It is a program of our own. mutmut 3.8 forks too, and costs a quarter of the CPU where tests need no server (0.26 s a mutant of
classify, ours 1.0), but it names modules by their path, and stops unless the package lies at the root or in src/: a bundle has
it in dags/. Where tests need databases it starts them for each mutant (4.5 s of one of owners, ours 2.6), and it changes
functions only.

The tests run once unchanged, to learn the lines that each reaches. For a mutant, the tests that reach its statement run: first
those that have noticed most others, then the fastest. Each runs in a fork of this process, which has imported slow libraries
and nothing of the bundle; the module is replaced while it is imported, and no file is changed. A process that a test starts
has the original module. dev/mutations.py makes the changes.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from dev import processes
from dev.mutations import Mutant, mutants

ROOT = Path(__file__).resolve().parents[1]
BUDGET_SECONDS = 120.0
"""Limit on the tests for one mutant, by the seconds that they took unchanged; a mutant that outlasts it survives."""

RECORDING_SECONDS = 1800.0
SEED = 20_260_101


@dataclass(frozen=True)
class Subject:
    """A module to mutate, the files and folders of tests/ that must notice, and whether these need databases."""

    module: str
    tests: tuple[str, ...]
    databases: bool = False

    @property
    def path(self) -> Path:
        return ROOT / "dags" / Path(*self.module.split(".")).with_suffix(".py")

    @property
    def source(self) -> str:
        return self.path.read_text()


_PROTOCOL = (
    "unit/test_protocol_parts.py",
    "model/test_real_protocol.py",
    "integration/engine/test_protocol.py",
    "integration/engine/test_deletes.py",
    "integration/postgres/test_bad_rows.py",
    "integration/reconcile/test_repair.py",
)

_REMEMBERED = (
    "integration/postgres/test_run_log.py",
    "integration/reconcile/test_excuses.py",
    "integration/reconcile/test_windows.py",
    "integration/reconcile/test_looking_twice.py",
    "integration/reconcile/test_many_differences.py",
    "integration/reconcile/test_brakes.py",
    "integration/reconcile/test_report_shape.py",
    "integration/reconcile/test_repair.py",
    "integration/postgres/test_pruning.py",
)

_COUNTED = ("unit/test_baseline.py", "integration/runs/test_tripwire.py")

_IN_SLICES = (
    "unit/test_slices.py",
    "integration/runs/test_slices.py",
    "integration/runs/test_slices_beside_others.py",
    "integration/reconcile/test_slices.py",
)

_BILLED = (
    "integration/firestore/test_bill.py",
    "integration/postgres/test_run_log.py",
    "integration/reconcile/test_windows.py",
)

_LOOKED = (
    "integration/engine/test_natural_keys.py",
    "integration/reconcile/test_bad_input.py",
    "integration/reconcile/test_excuses.py",
    "integration/reconcile/test_forged_operations.py",
    "integration/reconcile/test_looking_twice.py",
    "integration/reconcile/test_sides.py",
    "integration/reconcile/test_upgrade.py",
    "integration/reconcile/test_windows.py",
)

_REQUIRED = (
    "unit/test_inserts.py",
    "integration/postgres/test_bad_rows.py",
    "integration/engine/test_deletes.py",
    "integration/engine/test_entries.py",
    "integration/engine/test_large_documents.py",
    "integration/runs/test_backfill.py",
    "integration/engine/test_numeric_ids.py",
    "integration/reconcile/test_forged_operations.py",
    "integration/reconcile/test_repair.py",
)

SUBJECTS: dict[str, Subject] = {
    "windows": Subject("dualwrite.model.windows", ("unit/test_windows.py",)),
    "verdicts": Subject("dualwrite.model.verdicts", ("unit/test_verdicts.py", "unit/test_report.py")),
    "classify": Subject("dualwrite.engine.classify", ("unit/test_classify.py",)),
    "inserts": Subject("dualwrite.engine.inserts", ("unit/test_inserts.py",)),
    "seen": Subject("dualwrite.engine.seen", ("unit/test_seen.py",)),
    "second_look": Subject("dualwrite.engine.second_look", ("unit/test_second_look.py",)),
    "report": Subject("dualwrite.model.report", ("unit/test_report.py", "unit/test_report_shown.py")),
    "mapping": Subject("dualwrite.model.mapping", ("unit/test_values.py", "unit/test_mapping.py")),
    "cell_types": Subject("dualwrite.model.cell_types", ("unit/test_values.py", "unit/test_mapping.py")),
    "cells": Subject("dualwrite.model.cells", ("unit/test_values.py", "unit/test_mapping.py")),
    "document_entries": Subject("dualwrite.model.document_entries", ("unit/test_values.py", "unit/test_mapping.py")),
    "keys": Subject("dualwrite.model.keys", ("unit/test_values.py", "unit/test_mapping.py")),
    "dual_write": Subject(
        "dualwrite.dual_write", ("unit/test_dual_write.py", "integration/mirror/test_dual_write.py"), databases=True
    ),
    "change": Subject(
        "dualwrite.model.change", ("unit/test_dual_write.py", "integration/mirror/test_mirror.py"), databases=True
    ),
    "liveness": Subject("dualwrite.runs.liveness", ("integration/reconcile/test_liveness.py",), databases=True),
    "rounds": Subject("dualwrite.engine.rounds", _PROTOCOL, databases=True),
    "compare_and_set": Subject("dualwrite.engine.compare_and_set", _PROTOCOL, databases=True),
    "deletes": Subject("dualwrite.engine.deletes", _PROTOCOL, databases=True),
    "judge": Subject("dualwrite.engine.judge", _PROTOCOL, databases=True),
    "repair": Subject(
        "dualwrite.runs.repair",
        ("unit/test_repair_plan.py", "integration/reconcile/test_brakes.py", "integration/reconcile/test_repair.py"),
        databases=True,
    ),
    **{
        part: Subject(
            f"dualwrite.firestore.{part}",
            (
                "unit/test_source_errors.py",
                "integration/firestore/test_source_answers.py",
                "integration/firestore/test_source.py",
            ),
            databases=True,
        )
        for part in ("source", "calls", "children", "long_read")
    },
    "failures": Subject("dualwrite.firestore.failures", ("unit/test_source_errors.py",)),
    **{
        part: Subject(f"dualwrite.postgres.remembered.{part}", _REMEMBERED, databases=True)
        for part in ("differences", "excuses", "journal", "run_log", "watermarks")
    },
    "baselines": Subject("dualwrite.runs.tripwire.baselines", _COUNTED, databases=True),
    "tripwire": Subject(
        "dualwrite.runs.tripwire.tripwire",
        (*_COUNTED, "integration/runs/test_tripwire_settles.py"),
        databases=True,
    ),
    "seen_keys": Subject("dualwrite.runs.slices.seen_keys", _IN_SLICES, databases=True),
    "cutter": Subject(
        "dualwrite.runs.slices.cutter", ("unit/test_slices.py", "integration/runs/test_slicing.py"), databases=True
    ),
    "examine": Subject("dualwrite.runs.slices.examine", ("integration/runs/test_slice_looks.py",), databases=True),
    "budget": Subject("dualwrite.firestore.budget", ("unit/test_budget.py",)),
    "record": Subject("dualwrite.runs.record", _BILLED, databases=True),
    "first_look": Subject(
        "dualwrite.runs.first_look",
        ("unit/test_first_look.py", "integration/reconcile/test_first_look.py"),
        databases=True,
    ),
    "reconcile_plan": Subject("dualwrite.runs.reconcile_plan", _LOOKED, databases=True),
    "parents": Subject("dualwrite.engine.parents", ("integration/engine/test_parents.py",), databases=True),
    "owners": Subject("dualwrite.engine.owners", ("integration/engine/test_owners.py",), databases=True),
    "absence": Subject("dualwrite.engine.absence", _REQUIRED, databases=True),
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the mutated module to whoever imports it."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, self._path, "exec"), module.__dict__)


@dataclass
class _Recording:
    """For each of a module's tests, from one run of the unchanged module: the lines it reaches, the seconds it takes."""

    module: str
    lines: dict[str, set[int]]
    seconds: dict[str, float]
    kills: Counter[str] = field(default_factory=Counter)
    """How many mutants a test has noticed so far: the best are asked first."""

    def tests_for(self, mutant: Mutant, *, all_of_them: bool) -> list[str]:
        """The tests that may notice: those that reach its lines; first the best, then those in the file that is named after
        the module, then the fastest. A line that no test reaches by itself is run while the module is imported, or for the
        first test alone (a cache)."""
        own = f"/test_{self.module}.py"
        ranked = sorted(self.seconds, key=lambda test: (-self.kills[test], own not in test, self.seconds[test]))
        reaching = [test for test in ranked if not self.lines[test].isdisjoint(mutant.lines)]
        if all_of_them or not reaching:
            reaching += [test for test in ranked if test not in set(reaching)]
        spent = 0.0
        chosen: list[str] = []
        for test in reaching:
            spent += self.seconds[test]
            if chosen and spent > BUDGET_SECONDS:
                break
            chosen.append(test)
        return chosen


class _Recorder:
    """A pytest plugin: which lines of some files each test reaches, in any thread."""

    def __init__(self, paths: Iterable[Path], answer: Path) -> None:
        self._paths, self._answer = frozenset(map(str, paths)), answer
        self._lines: dict[str, dict[str, set[int]]] = {}
        self._seconds: dict[str, float] = {}
        self._current: dict[str, set[int]] = {}

    def pytest_runtest_protocol(self, item: Any) -> None:
        self._current = self._lines.setdefault(item.nodeid, {path: set() for path in self._paths})
        threading.settrace(self._called)
        sys.settrace(self._called)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        lines = {
            test: {path: sorted(reached) for path, reached in by_path.items()} for test, by_path in self._lines.items()
        }
        self._answer.write_text(json.dumps({"lines": lines, "seconds": self._seconds}))

    def _called(self, frame: Any, event: str, argument: object) -> Any:
        return self._reached if frame.f_code.co_filename in self._paths else None

    def _reached(self, frame: Any, event: str, argument: object) -> Any:
        self._current[frame.f_code.co_filename].add(frame.f_lineno)
        return self._reached


class _Chosen:
    """A pytest plugin: runs only these tests, in this order, and reports the one that failed."""

    def __init__(self, tests: Sequence[str], answer: Path) -> None:
        self._tests, self._answer = tests, answer

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        by_name = {item.nodeid: item for item in items}
        items[:] = [by_name[test] for test in self._tests if test in by_name]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._answer.write_text(report.nodeid)


def _status(
    subject: Subject, tree: ast.Module | None, files: Sequence[str], plugin: object, limit: float
) -> int | None:
    """pytest's exit code, None if it doesn't end. In a fork, so that each run starts without the bundle imported."""
    child = os.fork()
    if child == 0:
        _run_tests(subject, tree, files, plugin)
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _run_tests(subject: Subject, tree: ast.Module | None, files: Sequence[str], plugin: object) -> None:
    import pytest

    status = 1
    try:
        os.setpgid(0, 0)  # ends what a test started, too
        nowhere = os.open(os.devnull, os.O_WRONLY)
        log = os.environ.get("MUTANTS_LOG")
        nowhere = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else nowhere
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        # Also those that this process imported to start the databases: a module that is there already is never replaced.
        for name in [name for name in sys.modules if name.partition(".")[0] in ("dualwrite", "tests")]:
            del sys.modules[name]
        if tree is not None:
            sys.meta_path.insert(0, _Finder(subject.module, subject.path, tree))
        # No plugin but the one that pyproject.toml configures; the tests of pure modules need no conftest.py either.
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", "--tb=short", "-m", "not soak"]
        options += [] if subject.databases else ["--noconftest"]
        status = int(pytest.main([*options, *files], plugins=[plugin]))
    finally:
        os._exit(status)


def _recorded(subject: Subject, folder: Path) -> _Recording | None:
    """The tests of the unchanged module, or None if they fail. Modules that have the same tests share a run of them."""
    answer = folder / f"recording-{hash(subject.tests)}"
    if not answer.exists():
        paths = [other.path for other in SUBJECTS.values() if other.tests == subject.tests]
        files = [f"tests/{test}" for test in subject.tests]
        if _status(subject, None, files, _Recorder(paths, answer), RECORDING_SECONDS) != 0:
            answer.unlink(missing_ok=True)
            return None
    recorded = json.loads(answer.read_text())
    lines = {test: set(reached[str(subject.path)]) for test, reached in recorded["lines"].items()}
    return _Recording(subject.module.rsplit(".", 1)[-1], lines, recorded["seconds"])


def _notices(subject: Subject, mutant: Mutant, recording: _Recording, folder: Path) -> bool:
    """Whether a test fails, or none of them ends."""
    tests = recording.tests_for(mutant, all_of_them=not subject.databases)
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    answer = folder / f"failed-{threading.get_ident()}"
    answer.unlink(missing_ok=True)
    limit = 30.0 + 4 * sum(recording.seconds[test] for test in tests)
    status = _status(subject, mutant.tree, files, _Chosen(tests, answer), limit)
    if status and answer.exists():
        recording.kills[answer.read_text()] += 1
    return status != 0


@contextlib.contextmanager
def _databases(folder: Path) -> Iterator[None]:
    """One emulator and one Postgres for all runs; the fixtures of tests/conftest.py take them from the environment."""
    from dev import emulator, postgres_server
    from tests.conftest import prepare

    given = os.environ.get("DUALWRITE_TEST_EMULATOR")  # one for many
    with contextlib.nullcontext(given) if given else emulator.emulator(folder) as host, postgres_server.server() as uri:
        os.environ["DUALWRITE_TEST_EMULATOR"] = host
        os.environ["DUALWRITE_TEST_POSTGRES"] = prepare(uri)
        yield


def _measured(short: str, folder: Path, sample: int, jobs: int) -> bool:
    """Prints one module's survivors and its share; whether that is enough."""
    subject = SUBJECTS[short]
    recording = _recorded(subject, folder)
    if recording is None:
        print(f"{short}: its tests fail without any change; fix that first")
        return False
    lines = subject.source.splitlines()
    chosen = list(mutants(subject.source))
    number = len(chosen)
    if sample and sample < number:
        chosen = random.Random(SEED).sample(chosen, sample)
    began = time.monotonic()
    noticed = 0

    def ask(mutant: Mutant) -> tuple[Mutant, bool]:
        return mutant, _notices(subject, mutant, recording, folder)

    with ThreadPoolExecutor(jobs) as threads:
        for mutant, seen in threads.map(ask, chosen):
            noticed += seen
            if not seen:
                line = lines[mutant.line - 1].strip()[:100]
                print(f"  {short}:{mutant.line}: {mutant.change}: {line}", flush=True)
    share = 100 * noticed / len(chosen)
    of_all = "" if len(chosen) == number else f", a sample of {number}"
    seconds = time.monotonic() - began
    print(f"{short}: {noticed} of {len(chosen)} noticed{of_all}, {share:.1f} %, {seconds:.0f} s", flush=True)
    return share >= 90


def main(arguments: Sequence[str]) -> int:
    """Prints the survivors and the share that was noticed; returns 1 if a module is below 90 percent."""
    # Slow, and not ours: imported once, before the forks.
    import google.cloud.firestore_v1  # noqa: F401
    import hypothesis
    import psycopg  # noqa: F401
    import pytest  # noqa: F401

    parser = argparse.ArgumentParser(prog="mutants")
    parser.add_argument("modules", nargs="*", help=f"all, or some of {', '.join(SUBJECTS)}")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants of each module, drawn with a fixed seed")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    wanted = parser.parse_args(arguments)
    if unknown := sorted(set(wanted.modules) - set(SUBJECTS)):
        parser.error(f"{', '.join(unknown)}: no such module here. Give some of {', '.join(SUBJECTS)}.")
    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    slow = [hypothesis.HealthCheck.too_slow]  # not a mutant's fault
    quick = hypothesis.settings(
        derandomize=True, database=None, deadline=None, max_examples=20, suppress_health_check=slow
    )
    hypothesis.settings.register_profile("mutants", quick)
    hypothesis.settings.load_profile("mutants")
    shorts = wanted.modules or list(SUBJECTS)
    processes.keep_temporary_files_in_memory()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-")))
        if any(SUBJECTS[short].databases for short in shorts):
            stack.enter_context(_databases(folder))
        enough = [_measured(short, folder, wanted.sample, wanted.jobs) for short in shorts]
    return int(not all(enough))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
