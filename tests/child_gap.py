"""One backfill in slices, applied and then verified, in a process of its own, to be killed by a test."""

from __future__ import annotations

import sys

from tests import in_slices
from tests.support import gap_run

if __name__ == "__main__":
    project, emulator, dsn, run_id, slice_documents, *collections = sys.argv[1:]
    with gap_run(
        project,
        emulator,
        dsn,
        run_id=run_id,
        collections=collections,
        slice_documents=int(slice_documents),
        page_size=20,
    ) as run:
        sys.stdout.write("begin\n")
        sys.stdout.flush()
        in_slices.gap(run, dry=False)
        in_slices.verification(run)
