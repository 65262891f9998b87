"""How values travel: times from Postgres, and classes of ours to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format

T = TypeVar("T")

# The loaders ignore the session's DateStyle and TimeZone, because libpq learns of a change one message late.

_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Postgres's: a time travels as microseconds since then."""


class _TimeLoader(Loader):
    """`2026-01-15 21:52:00.123456+00`, as Postgres writes it under STATED.

    A time before year 1 or after year 9999 (infinity too) becomes the first or last instant that Python, and a document, can
    have: a client may write such a time, and the other rows must still be read. Order is kept.
    """

    def load(self, data: Buffer) -> datetime:
        text = bytes(data).decode()
        if text.endswith("BC") or text == "-infinity":
            return _EARLIEST
        if text == "infinity" or text.index("-") > 4:
            return _LATEST
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except OverflowError:  # near the ends, in another time zone
            return _EARLIEST if text.startswith("0001") else _LATEST


class _BinaryTimeLoader(Loader):
    """As _TimeLoader, from the binary form."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        microseconds = int.from_bytes(bytes(data), "big", signed=True)
        try:
            return _EPOCH + timedelta(microseconds=microseconds)
        except OverflowError:
            return _EARLIEST if microseconds < 0 else _LATEST


class _DateLoader(Loader):
    """`2026-01-15`; beyond Python's years as _TimeLoader."""

    def load(self, data: Buffer) -> date:
        text = bytes(data).decode()
        if text.endswith("BC") or text == "-infinity":
            return date.min
        return date.max if text == "infinity" or text.index("-") > 4 else date.fromisoformat(text)


def adapt(connection: psycopg.Connection[Any]) -> None:
    """Makes a connection read times and dates as above."""
    connection.adapters.register_loader("timestamptz", _TimeLoader)
    connection.adapters.register_loader("timestamptz", _BinaryTimeLoader)
    connection.adapters.register_loader("date", _DateLoader)


def register_text(cls: type[T], dump: Callable[[T], bytes]) -> None:
    """Lets psycopg send a class of ours as text, in COPY and as a parameter whose type Postgres infers. `dump`: a value's text."""

    class _TextDumper(Dumper):
        def dump(self, obj: T) -> bytes:
            return dump(obj)

    psycopg.adapters.register_dumper(cls, _TextDumper)


def register_binary_text(cls: type[T], type_name: str, dump: Callable[[T], bytes]) -> None:
    """Lets a binary COPY send a class of ours as a built-in type. `dump`: a value's binary form in that type."""
    info = psycopg.adapters.types[type_name]

    class _BinaryDumper(Dumper):
        format = Format.BINARY
        oid = info.oid

        def dump(self, obj: T) -> bytes:
            return dump(obj)

    psycopg.adapters.register_dumper(cls, _BinaryDumper)
