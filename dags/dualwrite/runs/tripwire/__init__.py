"""The tripwire, which finds losses between two sweeps by counting, from the pure part to the functions that a run calls.

`baseline` holds how many more documents than rows there were (pure), `counts` counts rows, `tripwire` compares and examines,
`baselines` stores baselines, and `wire` is called by a run. Outside, only runs import `wire` and `baselines`.
"""
