"""Pure: links from a difference to its document, its row and its errors. Each is an installation's template, none by default;
the Parity page fills them in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dualwrite import settings
from dualwrite.model.declaration import Collection
from dualwrite.model.errors import ParameterError

VARIABLES = {name: settings.named(f"dualwrite_link_{name}") for name in ("document", "row", "sentry")}
"""The Variables that hold the templates, by the link's target."""

PLACEHOLDERS = (
    "project", "database", "path", "firebase_path", "id", "collection", "key", "schema", "table", "table_oid", "key_column",
)  # fmt: skip
"""The names that a template may use. A difference without a value for one of them gets no link."""

_LONGEST = 1_000
_HOST = re.compile(r"https://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?(?=[/?#])")
_ALLOWED = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")


def checked(name: str, template: str) -> str:
    """A template that the page may use, stripped. Raises ParameterError if a value could change the scheme or the host: every
    placeholder must come after them."""
    template = template.strip()
    fault = _fault(template)
    if fault:
        raise ParameterError(
            f"Variable {VARIABLES[name]} can't be used: {fault}. A link begins with https:// and a host, then / or ?, and may "
            f"name {', '.join(f'{{{p}}}' for p in PLACEHOLDERS)}. Correct or delete it under Admin, Variables.",
            code="link-unusable",
        )
    return template


def _fault(template: str) -> str | None:
    if len(template) > _LONGEST:
        return f"it has more than {_LONGEST:,} characters"
    if not _HOST.match(template):
        return "it doesn't begin with https:// and a host"
    parts = re.split(r"\{([a-z_]*)\}", template)
    if unknown := sorted({name for name in parts[1::2] if name not in PLACEHOLDERS}):
        return f"it names {', '.join(f'{{{name}}}' for name in unknown)}"
    if not all(_ALLOWED.fullmatch(text) for text in parts[::2]):
        return "it has an unpaired brace, a space, or another character that no address has"
    return None


def key_column(collection: Collection) -> str | None:
    """The column whose value is a difference's key; None if the key has several columns, or is shown as a digest."""
    tells = collection.keyed_by_path and collection.key_leads_back and all(collection.key_is_ids)
    return collection.key[0].name if tells and len(collection.key) == 1 and collection.entries is None else None


def templates(texts: Mapping[str, str | None]) -> dict[str, str]:
    """The checked templates; empty or missing ones are left out. Raises ParameterError as `checked`."""
    return {name: checked(name, text) for name, text in texts.items() if text and text.strip()}
