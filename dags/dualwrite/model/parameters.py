"""Pure: the declaration and the check of a run's parameters. Each DAG's are one class: gap_params.py, reconcile_params.py,
migration_params.py.

A field is declared once, with its default, bounds, choices and words. The Trigger form, the check of values from the API, the
CLI or a Variable, and the JSON between a run's tasks follow from that. A field without a title is not in the form: it is set
when the run begins. Fields are in the order in which a person decides: what, where, how much. These have no section, because
Airflow unfolds only that group; exceptions and fine tuning are folded, and their defaults suit nearly everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.config import JsonDict

from dualwrite.model.declaration import Catalog
from dualwrite.model.errors import ParameterError
from dualwrite.model.windows import instant

EXCUSES: JsonDict = {"section": "Differences to accept"}
FINE_TUNING: JsonDict = {"section": "Fine tuning"}
ALARMS: JsonDict = {"section": "Alarms"}

MAX_BILLED_READS = 10_000_000_000


class Params(BaseModel):
    """The parameters of one run, checked. Types are strict: 5 is no text, and "5" no number."""

    model_config = ConfigDict(frozen=True, strict=True)

    @classmethod
    def checked(cls, given: Mapping[str, Any], catalog: Catalog | None = None) -> Self:
        """The given parameters of a run, checked. Raises ParameterError with the first fault."""
        form = _form(cls)
        # Airflow accepts any key of a run's conf silently: a misspelt one would be ignored.
        if unknown := sorted(set(given) - set(form)):
            raise ParameterError(
                f"Unknown parameter: {', '.join(unknown)}. Correct the name, or leave it out. Known: {', '.join(form)}.",
                code="parameter-unknown",
            )
        try:
            return cls.model_validate(given, context={"catalog": catalog})
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
        name, *inside = fault["loc"]
        field = form[str(name)]
        value = None if fault["type"] == "missing" else fault["input"]
        raise ParameterError(
            f"{name} must be {_rule(field)}: it is {value!r}. Correct it."
            if not inside
            else f"Each line of {name} must be {_rule(field['items'])}: {value!r} is not. Correct it.",
            code="parameter-out-of-range",
        )

    @classmethod
    def form(cls) -> dict[str, dict[str, Any]]:
        """The JSON schema of each field of the form; `type` is a list if the field may be left empty."""
        return deepcopy(_form(cls))


@cache  # a class's form never changes, and pydantic builds a whole schema for it
def _form(params: type[Params]) -> dict[str, dict[str, Any]]:
    form = {}
    for name, field in params.model_json_schema()["properties"].items():
        if params.model_fields[name].title is not None:
            kind, *empty = field.pop("anyOf", [{}])
            form[name] = {**kind, **field}
            if empty:
                form[name]["type"] = ["null", kind["type"]]
    return form


def _rule(field: Mapping[str, Any]) -> str:
    """The values that a field takes, in words."""
    if "enum" in field:
        return f"one of {', '.join(field['enum'])}"
    if "minimum" in field:
        kind = "a whole number" if "integer" in field["type"] else "a number"
        return f"{kind} from {field['minimum']:,} to {field['maximum']:,}"
    if field.get("format") == "date-time":
        return "an instant, for example 2026-01-15T21:52:00+00:00"
    if field.get("pattern") == DIFFERENCE:
        return "collection:key, for example collection:AbC123"
    if "pattern" in field:
        return f"text of the form {field['pattern']}"
    return "true or false" if field["type"] == "boolean" else "a list" if "array" in field["type"] else "text"


# --- fields that several DAGs have ---------------------------------------------------------------------------------------


def _declared(value: Any, info: ValidationInfo) -> tuple[str, ...]:
    """The chosen collections, in the catalog's order."""
    catalog = (info.context or {}).get("catalog")
    if catalog is None:  # another task has checked it
        return tuple(value)
    if not isinstance(value, list | tuple) or not value:
        raise ParameterError(
            f"collections must be a list of names: it is {value!r}. Choose from {', '.join(catalog.names)}.",
            code="collections-malformed",
        )
    for name in value:
        catalog[name]
    return tuple(name for name in catalog.names if name in value)


def _instant(value: Any, info: ValidationInfo) -> datetime | None:
    return value if value is None or isinstance(value, datetime) else instant(value, str(info.field_name))


def _with_reason(value: str | None, info: ValidationInfo) -> str | None:
    if info.data.get("excuse") and not (value and value.strip()):
        raise ParameterError(
            "excuse_reason is required with excuse: it is empty. Write why you accept the differences.",
            code="excuse-without-reason",
        )
    return value


DIFFERENCE = "^[^:]+:.+$"
EACH_DIFFERENCE = "One a line, as collection:key ({collection}:AbC123), or collection:verdict ({collection}:missing); collection:* means "
"""The form replaces {collection} with the name of a collection."""

Instant = Annotated[datetime, BeforeValidator(_instant)]
"""With its offset from UTC; kept as UTC."""

Collections = Annotated[tuple[str, ...], BeforeValidator(_declared), Field(title="Collections")]

_Listed = Annotated[
    tuple[Annotated[str, Field(pattern=DIFFERENCE)], ...],
    BeforeValidator(lambda value: () if value is None else value),  # the form sends None for an empty list
]
Differences = Annotated[_Listed, Field(strict=False, json_schema_extra={"type": ["null", "array"]})]
Accepted = Annotated[_Listed, Field(strict=False, json_schema_extra={**EXCUSES, "type": ["null", "array"]})]
"""Each as collection:key, collection:verdict, or collection:* for all of a collection (see named.py)."""

ExcuseReason = Annotated[
    str | None,
    AfterValidator(_with_reason),
    Field(
        title="Reason",
        description="Why you accept them; required with Excuse.",
        json_schema_extra=EXCUSES,
        validate_default=True,
    ),
]

MaxBilledReads = Annotated[
    int | None,
    Field(
        ge=1,
        le=MAX_BILLED_READS,
        title="Max. billed reads",
        description="The run reads no more than this, and reports the rest as not examined. Empty: no cap.",
    ),
]


def pairs(differences: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`collection:key` texts as (collection, key)."""
    return tuple((collection, key) for collection, _, key in (text.partition(":") for text in differences))


def refuse_unknown_collections(differences: Iterable[tuple[str, str]], known: Iterable[str]) -> None:
    """Raises ParameterError if a difference names an unknown collection."""
    known = sorted(known)
    for name, key in differences:
        if name not in known:
            raise ParameterError(
                f"Unknown collection: {name!r} in {name}:{key}. Choose from {', '.join(known)}.",
                code="difference-of-unknown-collection",
            )


SliceDocuments = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_BILLED_READS,
        title="Slice size (documents)",
        description="A collection with more documents than this is cut into slices of at most this many, shared among several tasks.",
        json_schema_extra=FINE_TUNING,
    ),
]

MaxReadsPerSecond = Annotated[
    float | None,
    Field(
        ge=1,
        le=MAX_BILLED_READS,
        title="Max. reads per second",
        description="Reads that each task process makes a second, on average. Empty: no limit.",
        json_schema_extra=FINE_TUNING,
    ),
]

MaxRowsPerSecond = Annotated[
    float | None,
    Field(
        ge=1,
        le=MAX_BILLED_READS,
        title="Max. rows per second",
        description="Rows that each task process compares or writes a second, on average. Empty: no limit.",
        json_schema_extra=FINE_TUNING,
    ),
]
