"""Templates of links: what a value could make lead elsewhere is refused."""

from __future__ import annotations

import pytest

from dualwrite.model import links
from dualwrite.model.errors import ParameterError
from dualwrite.shipped_catalog import CATALOG

FIREBASE = "https://console.firebase.google.com/project/{project}/firestore/databases/-default-/data/{firebase_path}"
STUDIO = (
    "https://supabase.com/dashboard/project/abc/editor/{table_oid}?schema={schema}&filter={key_column}%3Aeq%3A{key}"
)


@pytest.mark.parametrize("template", [FIREBASE, STUDIO, "https://sentry.example.org:8443/?query=id%3A{id}"])
def test_a_template_with_a_fixed_host_is_taken_as_it_is(template):
    assert links.checked("row", f" {template}\n") == template


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("http://example.org/{key}", "https://"),
        ("javascript:alert(1)//{key}", "https://"),
        ("//example.org/{key}", "https://"),
        ("https://{key}/", "https://"),
        ("https://example.org{key}/", "https://"),
        ("https://example.org:{key}/", "https://"),
        ("https://user@example.org/{key}", "https://"),
        ("https://example.org", "https://"),
        ("https://example.org/{content}", "{content}"),
        ("https://example.org/{key.__class__}", "brace"),
        ("https://example.org/{key", "brace"),
        ("https://example.org/a b", "a space"),
        ('https://example.org/"onclick=', "character"),
        ("https://example.org/\\evil", "character"),
        ("https://example.org/\x00", "character"),
        ("https://example.org/" + "a" * 1000, "1,000"),
    ],
)
def test_a_template_that_could_lead_elsewhere_is_refused(template, fault):
    with pytest.raises(ParameterError) as refused:
        links.checked("document", template)
    assert "Variable dualwrite_link_document can't be used" in str(refused.value)
    assert fault in str(refused.value)
    assert "Admin, Variables" in str(refused.value)


def test_an_empty_variable_is_no_link():
    assert links.templates({"document": None, "row": " ", "sentry": STUDIO}) == {"sentry": STUDIO}


def test_a_key_names_a_column_only_where_it_is_its_value():
    found = {c.name: links.key_column(c) for c in CATALOG}
    assert (found["posts"], found["users"]) == ("id", "id")
    assert found["blocks"] is None, "two columns"
    assert found["user_board_permissions"] is None, "an entry of a document"
