"""The DAGs' work: the gap backfill and the reconciliation, each a window and a policy around the engine."""
