"""A parameter is declared once: the form, the check and the JSON between tasks all follow from that."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dualwrite.catalog import CATALOG
from dualwrite.model import gap_params
from dualwrite.model.errors import ParameterError
from dualwrite.model.gap_params import GapParams
from dualwrite.model.migration_params import MigrationParams
from dualwrite.model.reconcile_params import BY_A_PERSON, ReconcileParams
from tests.refusals import coded

NOW = datetime(2026, 2, 1, tzinfo=UTC)
GIVEN = {"collections": ["posts", "boards"], "since": "2026-01-15T21:52:00+09:00"}
ALL = (GapParams, ReconcileParams, MigrationParams)


def _given(params):
    return {name: value for name, value in GIVEN.items() if name in params.form()}


@pytest.mark.parametrize("params", ALL)
def test_the_forms_defaults_pass_the_check(params):
    defaults = {name: field["default"] for name, field in params.form().items() if "default" in field}
    assert params.checked({**defaults, **_given(params)}, CATALOG) == params.checked(_given(params), CATALOG)


@pytest.mark.parametrize("params", ALL)
def test_each_bound_and_choice_of_the_form_is_one_of_the_check(params):
    for name, field in params.form().items():
        inside: list[Any] = list(field.get("enum", []))
        outside: list[Any] = ["something else"] if "enum" in field else []
        if "minimum" in field:
            inside += [field["minimum"], field["maximum"]]
            outside += [field["minimum"] - 1, field["maximum"] + 1, str(field["minimum"]), True]
        for value in inside:
            assert getattr(params.checked({**_given(params), name: value}, CATALOG), name) == value
        for value in outside:
            with pytest.raises(ParameterError, match=f"{name} must be .*{value!r}. Correct it"):
                params.checked({**_given(params), name: value}, CATALOG)


@pytest.mark.parametrize("params", ALL)
def test_parameters_survive_the_way_to_another_task(params):
    given = dict(_given(params))
    if "excuse" in params.form():
        given |= {"excuse": ["posts:a:b"], "excuse_reason": "r", "max_billed_reads": 7}
    begun = gap_params.parse(given, CATALOG, NOW) if params is GapParams else params.checked(given, CATALOG)
    assert params.model_validate(json.loads(json.dumps(begun.model_dump(mode="json")))) == begun


def test_what_is_settled_when_a_run_begins_is_not_in_the_form():
    assert "added" not in GapParams.form()
    with pytest.raises(ParameterError, match="added", check=coded("parameter-unknown")):
        GapParams.checked({**GIVEN, "added": ["users"]}, CATALOG)


def test_a_window_ends_at_the_same_moment_in_every_task_of_a_run():
    begun = gap_params.parse({**GIVEN, "margin_hours": 2}, CATALOG, NOW)
    later = GapParams.model_validate(begun.model_dump(mode="json"))
    assert later.window == begun.window
    assert begun.window.end == NOW
    assert begun.window.start == datetime(2026, 1, 15, 12, 52, tzinfo=UTC) - timedelta(hours=2)
    future = gap_params.parse({**GIVEN, "until": "2999-01-01T00:00:00Z"}, CATALOG, NOW)
    assert future.window.end == NOW


def test_a_selection_is_kept_in_the_catalogs_order():
    assert ReconcileParams.checked({"collections": ["posts", "boards"]}, CATALOG).collections == ("boards", "posts")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"page_size": 5.5}, "page_size must be a whole number from 1 to 50,000: it is 5.5. Correct it."),
        ({"update_stale": "yes"}, "update_stale must be true or false: it is 'yes'. Correct it."),
        ({"since": None}, "since must be an instant, for example .*: it is None. Correct it."),
        (
            {"excuse": [5], "excuse_reason": "r"},
            "Each line of excuse must be collection:key, for example .*: 5 is not.",
        ),
        ({"excuse": ["posts:x"], "excuse_reason": "  "}, "excuse_reason is required with excuse"),
        ({"excuse": ["posts:x"]}, "excuse_reason is required with excuse"),
        ({"excuse_reason": 5}, "excuse_reason must be text: it is 5. Correct it."),
        ({"collections": "posts"}, "collections must be a list of names: it is 'posts'. Choose from boards, users"),
    ],
)
def test_a_fault_is_told_with_rule_place_and_remedy(given, message):
    with pytest.raises(ParameterError, match=message):
        gap_params.parse({**GIVEN, **given}, CATALOG, NOW)


def test_an_emptied_list_of_excuses_is_none_given():
    assert gap_params.parse({**GIVEN, "excuse": None}, CATALOG, NOW).excuses == ()


def test_what_only_a_person_gives_is_a_parameter():
    assert set(BY_A_PERSON) < set(ReconcileParams.form())


@pytest.mark.parametrize("given", [{"n\n\x1b[31mo\u202e": 1}, {"excuse": ["\x07:\x1b[2J"], "excuse_reason": "x"}])
def test_what_was_given_stands_in_an_error_as_one_line(given):
    """A key of a run's conf reaches the log, and the terminal of whoever reads it."""
    with pytest.raises(ParameterError) as refused:
        ReconcileParams.checked(given, CATALOG)
    assert str(refused.value).isprintable()
