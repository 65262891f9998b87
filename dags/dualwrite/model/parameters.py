"""Pure: checks of a run's parameters that several DAGs share. The form checks too, but not what comes by API or CLI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dualwrite.model.declaration import Catalog
from dualwrite.model.errors import ParameterError

MAX_BILLED_READS = 10_000_000_000
SLICE_DOCUMENTS = 250_000
"""Documents above which a collection is cut into slices, where nobody says otherwise."""


def refuse_unknown(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Airflow takes any key of a run's conf in silence: a misspelt one would be ignored."""
    known = list(known)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ParameterError(
            f"Only the form's parameters are taken: {', '.join(unknown)} is none of them. Known: {', '.join(known)}."
        )


def choice(given: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    value = given.get(name)
    if value not in choices:
        raise ParameterError(f"{name} is one of {', '.join(choices)}: it is {value!r}. Correct it.")
    return str(value)


def number(given: Mapping[str, Any], name: str, least: float, most: float) -> float:
    value = given.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ParameterError(f"{name} is a number from {least:,} to {most:,}: it is {value!r}. Correct it.")
    return value


def cap(given: Mapping[str, Any], name: str, most: float) -> int | None:
    """A whole number that may be left empty: None, no cap."""
    if given.get(name) is None:
        return None
    return int(number(given, name, 1, most))


def boolean(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if not isinstance(value, bool):
        raise ParameterError(f"{name} is true or false: it is {value!r}. Correct it.")
    return value


def collections(given: Mapping[str, Any], catalog: Catalog) -> tuple[str, ...]:
    """The chosen collections, in the catalog's order."""
    wanted = given.get("collections")
    if not isinstance(wanted, list) or not wanted:
        raise ParameterError(
            f"Collections are a list of names: collections is {wanted!r}. Choose from {', '.join(catalog.names)}."
        )
    for name in wanted:
        catalog[name]
    return tuple(name for name in catalog.names if name in wanted)


def excuses(
    given: Mapping[str, Any], name: str = "excuse", collections: Iterable[str] | None = None
) -> list[tuple[str, str]]:
    """`collection:key` texts as (collection, key). With `collections`, others are refused."""
    texts = given.get(name) or []
    if not isinstance(texts, list):
        raise ParameterError(f"{name} is a list of collection:key: it is {texts!r}. Correct it.")
    known = None if collections is None else set(collections)
    found = []
    for text in texts:
        collection, colon, key = str(text).partition(":")
        if not colon or not key or not collection or (known is not None and collection not in known):
            among = f" Collections are {', '.join(sorted(known))}." if known is not None else ""
            raise ParameterError(
                f"A difference is named as collection:key in {name}: {text!r} is not. Write for example collection:AbC123.{among}"
            )
        found.append((collection, key))
    return found


def reason(given: Mapping[str, Any], needed: bool) -> str | None:
    """The reason of an excuse; needed where something is excused."""
    text = given.get("excuse_reason") or None
    if needed and not (isinstance(text, str) and text.strip()):
        raise ParameterError("Whoever excuses a difference says why: excuse_reason is empty. Fill it in.")
    return text
