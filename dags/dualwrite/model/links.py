"""Pure: links from a difference to where a person looks next: the document, the row, the errors. Templates of an installation,
none by default; the Parity page fills them in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dualwrite import settings
from dualwrite.model.declaration import Collection
from dualwrite.model.errors import ParameterError

VARIABLES = {name: settings.named(f"dualwrite_link_{name}") for name in ("document", "row", "sentry")}
"""What a link leads to, and the Variable that holds its template."""

PLACEHOLDERS = (
    "project", "database", "path", "firebase_path", "id", "collection", "key", "schema", "table", "table_oid", "key_column",
)  # fmt: skip
"""What a template may name. A difference that has no value for one gets no link."""

_LONGEST = 1_000
_HOST = re.compile(r"https://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?(?=[/?#])")
_ALLOWED = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")


def checked(name: str, template: str) -> str:
    """A template as the page may use it. Raises ParameterError if a value could lead elsewhere: the address and the host are the
    template's own, and whatever stands in a placeholder comes after them."""
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
        return "it holds a brace without its pair, a space, or another character that no address has"
    return None


def key_column(collection: Collection) -> str | None:
    """The column that a difference's key is the value of; None where the key has several, or is shown as a digest."""
    tells = collection.keyed_by_path and collection.key_leads_back and all(collection.key_is_ids)
    return collection.key[0].name if tells and len(collection.key) == 1 and collection.entries is None else None


def templates(found: Mapping[str, str | None]) -> dict[str, str]:
    """The Variables' texts, checked; those that are empty or missing are left out."""
    return {name: checked(name, text) for name, text in found.items() if text and text.strip()}
