"""The Parity page, in Airflow's navigation and on each DAG run: are Firestore and Supabase equal?

The page is static; its data comes through Airflow's own REST API with the viewer's session, so it shows only what that
viewer may see. It needs no connection to either database. Every route requires a login and the right to
read the DAG, of one bundle if there are several; Airflow itself leaves a plugin's routes open to everybody.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

DAG_ID = "reconcile_dual_writes"
OURS = re.compile(rf"([a-z][a-z0-9_]*_)?{DAG_ID}")
"""The DAG of any bundle, with its prefix."""
SWITCH = "dual_write_enabled"
PREFIX = "/parity"
WEB = Path(__file__).with_name("parity_web")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    # Nothing inline, nothing from another host, framed by Airflow alone.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",  # validated each time by ETag, so a new version shows at once
}


@cache
def _app() -> Any:
    """The routes. Their imports take seconds, and only the API server needs them."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails, VariableDetails
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import Depends, FastAPI, HTTPException, Query
    from fastapi.responses import FileResponse

    def may_read(user: Any = Depends(get_user)) -> None:  # noqa: B008 - FastAPI's own way; it answers 401 without login
        """Raises 403 unless the viewer may read the DAG of some bundle; the files are the same for all. The DAGs are listed only if
        the viewer may not read the one without a prefix."""
        manager = get_auth_manager()
        may = manager.is_authorized_dag(method="GET", details=DagDetails(id=DAG_ID), user=user)
        if not may and not any(map(OURS.fullmatch, manager.get_authorized_dag_ids(user=user))):
            raise HTTPException(403, f"The Parity page is for those who may read {DAG_ID}.")

    app = FastAPI(
        title="Parity",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(may_read)],
        redirect_slashes=False,  # a redirect would lead to any host that the request names
    )

    @app.get("/may")
    def may(
        prefix: str = Query("", pattern=r"^([a-z][a-z0-9_]{0,39})?$"),
        user: Any = Depends(get_user),  # noqa: B008 - FastAPI's own way
    ) -> dict[str, Any]:
        """The viewer's name, for the sign-off, and rights: the page shows no button that Airflow would refuse. `prefix`: the page's
        bundle's, if this Airflow has several."""
        of_bundle = f"{prefix}_" if prefix else ""
        asks, dag = get_auth_manager().is_authorized_dag, DagDetails(id=of_bundle + DAG_ID)
        sets, variable = get_auth_manager().is_authorized_variable, VariableDetails(key=of_bundle + SWITCH)
        return {
            "trigger": asks(method="POST", access_entity=DagAccessEntity.RUN, details=dag, user=user),
            "unpause": asks(method="PUT", details=dag, user=user),
            "switch": all(sets(method=method, details=variable, user=user) for method in ("GET", "PUT", "POST")),
            "name": user.get_name(),
        }

    @app.get("/")
    @app.get("/{name}")
    def asset(name: str = "index.html") -> FileResponse:
        """A file of the page; 404 for any other name."""
        files = {path.name: path for path in WEB.iterdir() if path.suffix in TYPES}
        if name not in files:
            raise HTTPException(404, "The Parity page has no such file.")
        return FileResponse(files[name], media_type=TYPES[files[name].suffix], headers=HEADERS)

    return app


class DualWriteParity(AirflowPlugin):
    """Registers the page with Airflow."""

    name = "dual_write_parity"

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        return [{"app": _app(), "url_prefix": PREFIX, "name": "Parity"}]

    @property
    def external_views(self) -> list[dict[str, Any]]:
        base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + PREFIX
        return [
            {"name": "Parity", "href": f"{base}/", "destination": "nav", "url_route": "parity", "nav_top_level": True},
            # Airflow shows this view on every DAG's runs; for other DAGs the page says that it isn't about them. Its name differs
            # from the first view's, because both are links on the page of a run.
            {
                "name": "Report",
                "href": f"{base}/?dag_id={{DAG_ID}}&run_id={{RUN_ID}}",
                "destination": "dag_run",
                "url_route": "parity-run",
            },
        ]
