-- The columns excused_* and excuse_* of dualwrite.open_differences.

-- name: excuses_of
-- All excuses of a collection.
SELECT key, excused_verdict, excused_finding_reason FROM dualwrite.open_differences
WHERE collection = %(collection)s AND excused_by IS NOT NULL;

-- name: excuses_among
-- The excuses at some labels.
SELECT key, excused_verdict, excused_finding_reason FROM dualwrite.open_differences
WHERE collection = %(collection)s AND key = ANY(%(labels)s) AND excused_by IS NOT NULL;

-- name: is_open
-- A line if a difference is open at a label.
SELECT 1 FROM dualwrite.open_differences WHERE collection = %(collection)s AND key = %(key)s;

-- name: excuse_all
-- Excuses all differences with one of these verdicts, unless they were first seen after somebody asked for it.
UPDATE dualwrite.open_differences
SET excused_by = %(by)s, excuse_reason = %(why)s, excused_at = now(), excused_verdict = verdict, excused_finding_reason = reason
WHERE collection = %(collection)s AND excused_by IS NULL AND verdict = ANY(%(drift)s)
  AND first_seen <= coalesce(%(asked)s::timestamptz, first_seen);

-- name: excuse
-- Excuses the difference at a label, unless it was first seen after somebody asked for it. If none is there, or it is no drift
-- yet, the excuse holds for the first drift that is seen there: it has no verdict until then.
INSERT INTO dualwrite.open_differences AS d (
  collection, key, verdict, reason, first_seen, last_seen, run_id, excused_by, excuse_reason, excused_at
)
VALUES (%(collection)s, %(key)s, 'in_flight', 'excused_in_advance', now(), now(), %(run)s, %(by)s, %(why)s, now())
ON CONFLICT (collection, key) DO UPDATE SET
  excused_by = excluded.excused_by, excuse_reason = excluded.excuse_reason, excused_at = excluded.excused_at,
  excused_verdict = CASE WHEN d.verdict = ANY(%(drift)s) THEN d.verdict END,
  excused_finding_reason = CASE WHEN d.verdict = ANY(%(drift)s) THEN d.reason END
WHERE d.first_seen <= coalesce(%(asked)s::timestamptz, d.first_seen);

-- name: forget_excused_in_advance
-- Deletes excuses given in advance, of a label or all (*), if no difference was seen there.
DELETE FROM dualwrite.open_differences
WHERE collection = %(collection)s AND (key = %(key)s OR %(key)s = '*') AND excused_by IS NOT NULL
  AND verdict = 'in_flight' AND reason = 'excused_in_advance';

-- name: unexcuse
-- Takes excuses back: of a label, of a verdict, or all (*).
UPDATE dualwrite.open_differences
SET excused_by = NULL, excuse_reason = NULL, excused_at = NULL, excused_verdict = NULL, excused_finding_reason = NULL
WHERE collection = %(collection)s AND (key = %(key)s OR %(key)s = '*' OR excused_verdict = %(key)s)
  AND excused_by IS NOT NULL;

-- name: latest
-- The latest excuses, the latest first; long keys and reasons are cut, with an ellipsis.
SELECT collection, CASE WHEN length(key) > 120 THEN left(key, 119) || '…' ELSE key END AS key, verdict, excused_by AS by,
  CASE WHEN length(excuse_reason) > 120 THEN left(excuse_reason, 119) || '…' ELSE excuse_reason END AS excuse_reason,
  excused_at AS since
FROM dualwrite.open_differences
WHERE excused_by IS NOT NULL
ORDER BY excused_at DESC, collection, key
LIMIT %(limit)s;
