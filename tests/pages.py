"""The pages of the documentation, and the fenced blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dev.airflow_home import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "plugins/README.md")), *DOCS]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@dataclass(frozen=True)
class Block:
    page: str  # from the root
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.split()[0] if self.info else ""


BLOCKS = [
    Block(page.relative_to(ROOT).as_posix(), info.strip(), text)
    for page in PAGES
    for info, text in FENCE.findall(page.read_text())
]


def run_here(language: str) -> list[Block]:
    """The blocks of a language that aren't for production alone."""
    return [b for b in BLOCKS if b.language == language and "production" not in b.info]
