-- dualwrite.watermarks: a line for each collection that was ever examined completely.

-- name: watermarks
-- All marks, also those ahead of the clock.
SELECT collection, examined_until, swept_at FROM dualwrite.watermarks;

-- name: advance
-- Moves a mark forward, never back and never beyond this server's clock. If the mark there lies further ahead of the clock than two
-- clocks may be apart, it is replaced.
INSERT INTO dualwrite.watermarks AS w (collection, examined_until, swept_at, run_id)
VALUES (
  %(collection)s,
  least(%(until)s, clock_timestamp()),
  CASE WHEN %(swept)s::timestamptz IS NOT NULL THEN least(%(swept)s, clock_timestamp()) END,
  %(run)s
)
ON CONFLICT (collection) DO UPDATE SET
  examined_until = CASE
    WHEN w.examined_until > clock_timestamp() + %(apart)s::interval THEN excluded.examined_until
    ELSE greatest(w.examined_until, excluded.examined_until)
  END,
  swept_at = CASE
    WHEN w.swept_at > clock_timestamp() + %(apart)s::interval THEN excluded.swept_at
    ELSE greatest(w.swept_at, excluded.swept_at)
  END,
  run_id = excluded.run_id,
  updated_at = now();

-- name: lost
-- The collections, of some, whose mark is neither this run's nor as late as this run made it.
SELECT name FROM unnest(%(names)s::text[]) AS name
WHERE NOT EXISTS (
  SELECT FROM dualwrite.watermarks w
  WHERE w.collection = name AND (w.run_id = %(run)s OR w.examined_until >= %(until)s)
);

-- name: ages
-- All marks, and how many hours ago each was by this server's clock.
SELECT collection, examined_until, swept_at,
  extract(epoch FROM now() - examined_until) / 3600 AS examined_hours,
  extract(epoch FROM now() - swept_at) / 3600 AS swept_hours
FROM dualwrite.watermarks;
