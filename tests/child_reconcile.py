"""One reconciliation that repairs everything, in a process of its own, to be killed by a test."""

from __future__ import annotations

import sys

from tests.support import reconciled

if __name__ == "__main__":
    project, emulator, dsn, slice_documents = sys.argv[1:]
    sys.stdout.write("begin\n")
    sys.stdout.flush()
    reconciled(
        project, emulator, dsn, scope="sweep", repair="all", max_repairs=100_000, max_share=100, liveness_minimum=10**6,
        slice_documents=int(slice_documents),
    )  # fmt: skip
