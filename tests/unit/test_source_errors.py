"""What the reader does about an error of Firestore's, and what it says of it."""

from __future__ import annotations

import time

import grpc
import pytest

from dualwrite.firestore.failures import Retries, explained
from dualwrite.firestore.wire import channel_options
from dualwrite.model.documents import can_be_asked
from dualwrite.model.errors import SourceError

RETRIED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "ABORTED")


class Failed(grpc.RpcError):
    def __init__(self, code: str, details: str | None = "its own words") -> None:
        super().__init__()
        self._code, self._details = grpc.StatusCode[code], details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Now, and after it each sleep. Sleeping takes no time."""
    found = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: found[0])
    monkeypatch.setattr(time, "sleep", found.append)
    return found


@pytest.mark.parametrize("code", [c.name for c in grpc.StatusCode])
def test_an_error_that_may_pass_is_waited_out_any_other_raised(code, clock):
    """Any other is raised at once."""
    retries = Retries("reading comments")
    if code in RETRIED:
        retries.give_up_or_wait(Failed(code))
        assert len(clock) == 2
    else:
        with pytest.raises(SourceError, match=f"reading comments ended in {code}: its own words"):
            retries.give_up_or_wait(Failed(code))
        assert len(clock) == 1


def test_waits_double_up_to_eight_seconds(clock):
    """They begin anew after progress."""
    retries = Retries("reading comments")
    for n in range(8):
        retries.give_up_or_wait(Failed("UNAVAILABLE"))
        assert 0.5 * min(8.0, 0.2 * 2**n) <= clock[-1] <= min(8.0, 0.2 * 2**n), n
    retries.progress()
    retries.give_up_or_wait(Failed("UNAVAILABLE"))
    assert 0.1 <= clock[-1] <= 0.2


def test_patience_ends_thirty_seconds_after_the_first_failure(clock):
    """The first since the last progress."""
    retries = Retries("reading comments")
    retries.give_up_or_wait(Failed("UNAVAILABLE"))
    clock[0] += 29.9
    retries.give_up_or_wait(Failed("UNAVAILABLE"))
    clock[0] += 0.1
    with pytest.raises(SourceError):
        retries.give_up_or_wait(Failed("UNAVAILABLE"))
    retries.progress()
    retries.give_up_or_wait(Failed("UNAVAILABLE"))
    clock[0] += 29.9
    retries.give_up_or_wait(Failed("UNAVAILABLE"))


@pytest.mark.parametrize(
    ("code", "details", "told"),
    [
        (
            "PERMISSION_DENIED",
            "no",
            "no. Give the account of connection firestore_default the role roles/datastore.viewer",
        ),
        ("UNAUTHENTICATED", "no", "Check the key of connection firestore_default."),
        ("UNAVAILABLE", "no", "or that the emulator runs at FIRESTORE_EMULATOR_HOST."),
        ("NOT_FOUND", "no", "Check the project and database of connection firestore_default."),
        ("UNKNOWN", " spaces ", "ended in UNKNOWN: spaces. Run again."),
        ("UNKNOWN", None, "ended in UNKNOWN: . Run again."),
        ("FAILED_PRECONDITION", "The query requires an INDEX.", "deploy docs/firestore.indexes.json"),
        (
            "FAILED_PRECONDITION",
            "This requires a licence.",
            "licence.. Correct the cause that it names, and run again.",
        ),
        ("FAILED_PRECONDITION", "No such index.", "Correct the cause that it names, and run again."),
    ],
)
def test_an_error_says_firestores_own_words_and_the_remedy(code, details, told):
    assert told in str(explained(Failed(code, details), "reading comments"))


@pytest.mark.parametrize(
    ("path", "can"),
    [("boards/b", True), ("boards/b/posts/p", True), ("boards", False), ("boards/b/posts", False), ("", False),
     ("boards/", False), ("boards/..", False), ("boards//posts/p", False), ("boards/__x__", False),
     ("boards/__id7__", True), ("boards/__id-7__/posts/p", True), ("__id7__/b", False), ("boards/b/__id7__/c", False)],
)  # fmt: skip
def test_only_a_document_that_firestore_allows_is_asked_for(path, can):
    assert can_be_asked(path) is can


def test_firestore_is_asked_whether_it_lives_the_emulator_is_not():
    """The emulator's server ends a connection that asks it as often as Google's own client asks Firestore."""
    assert ("grpc.keepalive_time_ms", 30_000) in channel_options(emulator=False)
    with_the_emulator = [name for name, _ in channel_options(emulator=True)]
    assert not [name for name in with_the_emulator if "keepalive" in name]
    assert "grpc.max_receive_message_length" in with_the_emulator
