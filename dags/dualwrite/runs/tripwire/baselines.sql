-- dualwrite.count_baselines: a line for each collection that was compared whole.

-- name: load
-- A collection's baseline.
SELECT field, edges, differences, untimed, sweep_called_at, sweep_due, stray, counted_at,
  coalesce(counted_seconds, 0) AS counted_seconds, updated_at
FROM dualwrite.count_baselines WHERE collection = %(collection)s;

-- name: save
-- Keeps a baseline in place of the one before. When a sweep was last called for stays, if this one doesn't say.
INSERT INTO dualwrite.count_baselines AS b (
  collection, field, edges, differences, untimed, sweep_called_at, sweep_due, stray, counted_at, counted_seconds, run_id
)
VALUES (
  %(collection)s, %(field)s, %(edges)s, %(differences)s, %(untimed)s, %(sweep_called_at)s, %(sweep_due)s, %(stray)s,
  %(counted_at)s, %(counted_seconds)s, %(run)s
)
ON CONFLICT (collection) DO UPDATE SET
  field = excluded.field, edges = excluded.edges, differences = excluded.differences, untimed = excluded.untimed,
  sweep_called_at = coalesce(excluded.sweep_called_at, b.sweep_called_at), sweep_due = excluded.sweep_due,
  stray = excluded.stray, counted_at = excluded.counted_at, counted_seconds = excluded.counted_seconds,
  run_id = excluded.run_id, updated_at = now();

-- name: swept
-- Withdraws the request for a sweep.
UPDATE dualwrite.count_baselines SET sweep_due = false WHERE collection = %(collection)s AND sweep_due;

-- name: counted
-- Keeps when counts failed, and after how many seconds.
UPDATE dualwrite.count_baselines SET counted_at = %(at)s, counted_seconds = %(seconds)s WHERE collection = %(collection)s;

-- name: called_sweeps
-- The collections that request a sweep.
SELECT collection FROM dualwrite.count_baselines WHERE sweep_due;
