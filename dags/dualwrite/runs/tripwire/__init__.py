"""The tripwire, which finds losses between two sweeps by counting: all of it, from the pure part to what a run calls.

`baseline` says how many documents more than rows there were (pure), `counts` asks the target, `tripwire` compares and examines,
`baselines` remembers, and `wire` is a run's part of it. Nothing outside imports this but the looks that call `wire`.
"""
