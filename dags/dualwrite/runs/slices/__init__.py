"""How several tasks examine one large collection side by side: all of it, from the pure part to what a DAG's tasks call.

`slice` says what a slice is (pure), `cutter` cuts, `scans` says what to read of one, `examine` looks at one and at the rows that
none of them saw, `seen_keys` keeps in the target what they saw, `reports` adds them up. `backfill` and `sweep` are what the DAGs
call. Nothing outside imports this but those who call the two; without it a large collection is examined in one piece.
"""
