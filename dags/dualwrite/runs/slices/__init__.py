"""Slices: how several tasks examine one large collection side by side, from the pure part to the functions that tasks call.

`slice` defines a slice (pure), `cutter` cuts, `scans` gives the queries of one, `examine` looks at one and at the rows that
none of them saw, `seen_keys` keeps the keys they saw in the target, `reports` adds up their reports. The DAGs' tasks call
`backfill` and `sweep`. Only callers of these two import this package; without it, a large collection is examined in one piece.

One mapped task handles the slices of all collections: a list for each would start a process for each in every run.
"""
