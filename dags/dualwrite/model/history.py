"""The shape of a key's history: an XCom of a run that names keys, which the Parity page reads. Instants are ISO 8601 texts in
UTC. It holds no content of a document or a row."""

from __future__ import annotations

from typing import TypedDict


class Written(TypedDict):
    """A write of ours at a key, as the journal has it. `undo`: it took another write back."""

    at: str
    action: str
    run_id: str
    confirmed: bool
    undo: bool


class OpenKey(TypedDict):
    """An open difference. `run_id`: the run that saw it last."""

    verdict: str
    reason: str | None
    cause: str | None
    columns: list[str]
    path: str | None
    since: str
    last_seen: str
    run_id: str
    excused_by: str | None
    excuse_reason: str | None
    excused_at: str | None


class KeyHistory(TypedDict):
    """The history of a key; see runs/history.py. `open`: None if nothing is open there. `written`: the latest first."""

    collection: str
    key: str
    open: OpenKey | None
    written: list[Written]
