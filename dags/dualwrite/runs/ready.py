"""Pure: may the app's reads be switched to the target? A checklist over a reconciliation's report, each line with its
evidence in words.

Every line must hold. An unknown counts as no: if write_ops can't be read, dual-write is not proved alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta

from dualwrite import settings
from dualwrite.model.render import moment
from dualwrite.model.run_report import Check, MigrationsStanding, Ready, RunFacts
from dualwrite.model.verdicts import DRIFT, Verdict

SWEPT_WITHIN = timedelta(hours=24)
CLEAN_DAYS = 14


def checklist(whole: RunFacts, collections: Sequence[str], derived: Iterable[str], days: int = CLEAN_DAYS) -> Ready:
    """The checklist, and whether all its lines hold.

    `whole`: the run's facts; `collections`: all of the catalog; `derived`: those whose rows are entries of other
    collections' documents, such as permissions, without which nobody may read anything; `days`: clean days required.
    """
    checks = [
        _swept(whole, collections),
        _no_drift(whole),
        _clean_days(whole, days),
        _no_rejections(whole),
        _migrations(whole["migrations"]),
        _alive(whole),
        _derived(whole, list(derived)),
    ]
    return {"answer": all(c["ok"] for c in checks), "checks": checks}


def swept_at(whole: RunFacts, collections: Iterable[str]) -> dict[str, str | None]:
    """When each collection was last swept (ISO 8601); None for never."""
    ages = {name: whole["ages"].get(name) for name in collections}
    return {name: age["swept_at"] if age else None for name, age in ages.items()}


def clean_streak(days: Iterable[tuple[date, bool]], today: date) -> int:
    """How many days in a row, today included, had runs and no drift. A day without a run ends the row. `days`: each with
    whether it was clean, newest first."""
    streak, expected = 0, today
    for day, clean in days:
        if day != expected or not clean:
            break
        streak, expected = streak + 1, expected - timedelta(days=1)
    return streak


def _check(name: str, title: str, ok: bool, says: str) -> Check:
    return {"name": name, "title": title, "ok": ok, "says": says}


def _swept(whole: RunFacts, collections: Sequence[str]) -> Check:
    now, title = datetime.fromisoformat(whole["at"]), "A full sweep within a day"
    swept = swept_at(whole, collections)
    late = [n for n, at in swept.items() if at is None or now - datetime.fromisoformat(at) > SWEPT_WITHIN]
    lost = [c["collection"] for c in whole["collections"] if c["not_examined"]]
    if late:
        return _check("swept", title, False, f"Not swept within a day: {', '.join(late)}.")
    if lost:
        return _check("swept", title, False, f"The last run could not examine {', '.join(lost)}.")
    oldest = min(at for at in swept.values() if at is not None)
    return _check("swept", title, True, f"All {len(collections)} collections; the oldest sweep is of {moment(oldest)}.")


def _no_drift(whole: RunFacts) -> Check:
    number = _open(whole, DRIFT - {Verdict.REJECTED})
    says = (
        f"{number:,} open. Repair or excuse."
        if number
        else "Nothing is missing, stale or extra, except what was excused."
    )
    return _check("drift", "No open drift", not number, says)


def _clean_days(whole: RunFacts, days: int) -> Check:
    streak = whole["clean_days"]
    title = f"{days} clean days in a row"
    if streak >= days:
        return _check(
            "clean", title, True, f"{streak:,} days with runs, and no drift in any of them but what was excused."
        )
    return _check(
        "clean",
        title,
        False,
        f"{streak:,} so far. A day without a run, or with drift that nobody had excused, starts the count again.",
    )


def _no_rejections(whole: RunFacts) -> Check:
    number = _open(whole, {Verdict.REJECTED})
    says = (
        f"{number:,} can't become rows. Correct the documents, or excuse them."
        if number
        else "Every document has become a row, or was excused."
    )
    return _check("rejected", "No rejection without an excuse", not number, says)


def _migrations(standing: MigrationsStanding) -> Check:
    title = "Every migration verified"
    if standing["unknown"]:
        return _check("migrations", title, False, f"Unknown: {standing['unknown']}")
    if standing["pending"]:
        return _check("migrations", title, False, f"Not applied: {', '.join(standing['pending'])}.")
    if standing["differences"]:
        return _check("migrations", title, False, f"The tables differ in {standing['differences']:,} places.")
    return _check(
        "migrations", title, True, f"{standing['applied']:,} applied, and the tables are as the migrations promise."
    )


def _alive(whole: RunFacts) -> Check:
    title, activity = "Dual-write is alive", whole["operations"]
    if not whole["dual_write_enabled"]:
        return _check("alive", title, False, f"Variable {settings.named('dual_write_enabled')} is false.")
    if whole["problem"]:
        return _check("alive", title, False, whole["problem"])
    if not activity or (activity["total"] is None and whole["operations_declared"]):
        return _check("alive", title, False, "Unknown: write_ops can't be read.")
    arrived, minutes = activity["arrived"], f"in the last {activity['minutes']:g} minutes"
    if not arrived:
        return _check("alive", title, False, f"No row arrived by itself {minutes}.")
    rows = "row" if arrived == 1 else "rows"
    said = "" if activity["total"] is None else f"; write_ops has {activity['total']:,} operations"
    return _check("alive", title, True, f"{arrived:,} {rows} arrived by themselves {minutes}{said}.")


def _derived(whole: RunFacts, derived: Sequence[str]) -> Check:
    title = "Collections made from other documents are equal"
    if not derived:
        return _check("derived", title, True, "The catalog has none.")
    differing = sorted({line["collection"] for line in whole["open"] if line["collection"] in derived})
    never = [name for name, at in swept_at(whole, derived).items() if at is None]
    if differing:
        return _check("derived", title, False, f"They differ (excused or not): {', '.join(differing)}.")
    if never:
        return _check("derived", title, False, f"Never swept: {', '.join(never)}.")
    return _check("derived", title, True, f"{', '.join(derived)}: nothing differs, nothing is excused.")


def _open(whole: RunFacts, verdicts: Iterable[str]) -> int:
    wanted = set(verdicts)
    return sum(line["number"] for line in whole["open"] if line["verdict"] in wanted and not line["excused"])
