"""Pure: an alert, one problem of a run with the button to press. Log, Sentry, the Parity page and its links render it."""

from __future__ import annotations

import json
from urllib.parse import quote

from dualwrite import settings
from dualwrite.model.run_report import Alert, Conf, Press
from dualwrite.model.verdicts import DRIFT


def alert(
    text: str, *, kind: str, collection: str | None = None, cause: str | None = None, press: Press | None = None
) -> Alert:
    """`text` says rule, place and remedy; `kind` is a verdict or another word for the problem."""
    return {"collection": collection, "kind": kind, "text": text, "cause": cause, "press": press}


def press(dag: str, conf: Conf, button: str, *, then: str = "") -> Press:
    """A button that triggers a DAG with `conf`. `then` ends its words with the purpose; the alert names the collections."""
    values = [f"{name} = {_word(value)}" for name, value in conf.items() if name != "collections"]
    chosen = f" with {' and '.join(values)}" if values else ""
    return {"dag": dag, "conf": conf, "button": button, "says": f"trigger {dag}{chosen}{then and f' {then}'}"}


def _word(value: object) -> str:
    return "empty" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


def line(alert: Alert, page: str = "") -> str:
    """An alert in one line. `page`: the Parity page's address; a link to it opens the form of reconcile_dual_writes with the
    button's values. Alerts for other DAGs have words only."""
    wanted = alert["press"]
    if wanted is None:
        return alert["text"] + (f" at {page}" if page and alert["kind"] in DRIFT else "")
    return f"{alert['text'].removesuffix('.')}; {wanted['says']}{_at(page, wanted)}"


def _at(page: str, wanted: Press) -> str:
    if not page or wanted["dag"] != settings.named("reconcile_dual_writes"):
        return ""
    return f" at {page}{'&' if '?' in page else '?'}conf={quote(json.dumps(wanted['conf'], separators=(',', ':')))}"
