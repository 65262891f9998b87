"""`make licences`: docs/licences.md, the licences of the Python packages that the image of docker-compose.yaml installs.

Run by the Python of an environment that has them: uv venv v; uv pip install -r requirements-image.txt -c constraints-image.txt.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs/licences.md"
_PIN = re.compile(r"^(?P<name>[a-z0-9][\w.-]*)==(?P<version>[^\s;]+)", re.MULTILINE)

HEAD = """# Licences of what the image installs

This bundle is licensed under Apache-2.0. The image of [Dockerfile](../Dockerfile) adds these Python packages to Airflow's own
image; each comes from PyPI, unchanged, and keeps its licence. `make licences` writes this list from what the packages say of
themselves. Whoever passes the image on passes these on too, with their terms: psycopg is under the LGPL, which wants its source
and the right to replace it, and both are given by installing it as a package of its own.

| licence | packages |
|---|---|
"""


def installed_in_the_image(constraints: str) -> dict[str, str]:
    """Name and version of each package that the image's lock pins."""
    return {pin["name"]: pin["version"] for pin in _PIN.finditer(constraints)}


def licence(name: str) -> str:
    """A package's licence by its own metadata: its SPDX expression, else its classifiers, else its field's first line."""
    said = metadata.metadata(name)
    if "License-Expression" in said:
        return str(said["License-Expression"])
    classified = [
        c.rsplit(" :: ", 1)[-1] for c in said.get_all("Classifier", []) if c.startswith("License :: OSI Approved ::")
    ]
    if classified:
        return ", ".join(classified)
    return next(iter(said.get_all("License", ["it doesn't say"])), "").strip().splitlines()[0][:60]


def main() -> int:
    by_licence: dict[str, list[str]] = defaultdict(list)
    missing = []
    for name, version in installed_in_the_image((ROOT / "constraints-image.txt").read_text()).items():
        try:
            by_licence[licence(name)].append(f"{name} {version}")
        except metadata.PackageNotFoundError:
            missing.append(f"{name} {version}")
    if missing:
        by_licence["not installed where this was written: needed on another platform or Python only"] = missing
    lines = [f"| {kind.replace('|', '/')} | {', '.join(sorted(names))} |" for kind, names in sorted(by_licence.items())]
    FILE.write_text(HEAD + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
