"""Who sees the Parity page if logins and roles are those of Airflow's FAB provider.

Airflow's UI shows plugins' pages only with a right that FAB gives only to Op and Admin: others see neither the entry in the
navigation nor the page. SimpleAuthManager lets everybody see them.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow.configuration import conf

from dualwrite.runs.doctor import Line

ROLES = ("Viewer", "User")
REMEDY = f"airflow roles add-perms {' '.join(ROLES)} --action can_read --resource Plugins"
_CHECK = "Parity page, roles Viewer and User"


def lines() -> Iterator[Line]:
    """The doctor's line; none if the login isn't FAB's."""
    if not conf.get("core", "auth_manager", fallback="").endswith(".FabAuthManager"):
        return
    try:
        lacking = _lacking()
    except Exception as error:  # noqa: BLE001 - Airflow's own database, through interfaces that aren't public
        why = f"it is unknown whether they see it: asking Airflow's database failed with {type(error).__name__}"
        yield Line(_CHECK, f"{why}. Run this, which may be repeated: {REMEDY}")
        return
    yield Line(_CHECK, f"{' and '.join(lacking)} can't see it. Run: {REMEDY}" if lacking else None)


def _lacking() -> list[str]:
    """The ROLES that exist and may not read plugins."""
    from airflow.providers.fab.auth_manager.models import Role
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        roles = session.scalars(select(Role).where(Role.name.in_(ROLES))).unique().all()
        seeing = {role.name for role in roles for p in role.permissions if str(p).lower() == "can read on plugins"}
        return [name for name in ROLES if name in {role.name for role in roles} - seeing]
