"""Run as a child process and killed at work: applies the whole gap in small pages, over and over."""

from __future__ import annotations

import sys

from tests.support import apply

if __name__ == "__main__":
    project, emulator, dsn = sys.argv[1:]
    sys.stdout.write("begin\n")
    sys.stdout.flush()
    apply(project, emulator, dsn, page_size=5)
