"""`make difference name=posts:AbC123`: one difference side by side, on the connections of the environment, or else on those of a
running `make up`."""

from __future__ import annotations

import sys

from dev import on_connections


def main() -> int:
    return on_connections.run("difference", sys.argv[1:], example=" posts:AbC123")


if __name__ == "__main__":
    sys.exit(main())
