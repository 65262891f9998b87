-- dualwrite.interventions: a line for each run and kind.

-- name: keep
-- Adds a line, or replaces all but the time of the one that is there.
INSERT INTO dualwrite.interventions (dag_id, run_id, kind, person, reason, numbers)
VALUES (%(dag)s, %(run)s, %(kind)s, %(person)s, %(reason)s, %(numbers)s)
ON CONFLICT (dag_id, run_id, kind) DO UPDATE
SET person = excluded.person, reason = excluded.reason, numbers = excluded.numbers;

-- name: settle
-- Keeps how many rows a run wrote, as {collection: {action: rows}}, counted in the journal. If it wrote none, the line stays as it
-- is.
UPDATE dualwrite.interventions i SET numbers = w.numbers
FROM (
  SELECT jsonb_object_agg(collection, actions) AS numbers
  FROM (
    SELECT collection, jsonb_object_agg(action, rows) AS actions
    FROM (
      SELECT collection, action, count(DISTINCT row_key) AS rows
      FROM dualwrite.repair_journal WHERE run_id = %(run)s GROUP BY 1, 2
    ) by_action
    GROUP BY 1
  ) by_collection
) w
WHERE w.numbers IS NOT NULL AND i.dag_id = %(dag)s AND i.run_id = %(run)s AND i.kind = ANY(%(kinds)s);

-- name: latest
-- The last lines, the latest first, without scheduled repairs that wrote nothing. The numbers of a run that wrote are counted in the
-- journal; if its lines are pruned, they are those that `settle` kept.
WITH lately AS (
  SELECT * FROM dualwrite.interventions i
  WHERE NOT (
    i.person = %(schedule)s AND i.numbers = '{}'
    AND NOT EXISTS (SELECT FROM dualwrite.repair_journal j WHERE j.run_id = i.run_id)
  )
  ORDER BY at DESC, run_id, kind LIMIT %(limit)s
), by_action AS (
  SELECT j.run_id, j.collection, j.action, count(DISTINCT j.row_key) AS rows,
    count(DISTINCT j.row_key) FILTER (
      WHERE EXISTS (SELECT FROM dualwrite.repair_journal u WHERE u.undoes = j.id)
    ) AS undone
  FROM dualwrite.repair_journal j WHERE j.run_id = ANY(ARRAY(SELECT run_id FROM lately)) GROUP BY 1, 2, 3
), by_collection AS (
  SELECT run_id, collection, jsonb_object_agg(action, rows) AS actions, sum(rows) AS rows, sum(undone) AS undone
  FROM by_action GROUP BY 1, 2
), written AS (
  SELECT run_id, jsonb_object_agg(collection, actions) AS numbers, sum(rows) AS rows, sum(undone) AS undone
  FROM by_collection GROUP BY 1
)
SELECT i.dag_id, i.run_id, i.kind, i.person AS by, i.at,
  CASE WHEN length(i.reason) > 120 THEN left(i.reason, 119) || '…' ELSE i.reason END AS reason,
  CASE WHEN i.kind = ANY(%(kinds)s) THEN coalesce(w.numbers, i.numbers) ELSE i.numbers END AS numbers,
  CASE WHEN i.kind = ANY(%(kinds)s) THEN coalesce(w.rows, 0) ELSE 0 END::int8 AS journaled,
  CASE WHEN i.kind = ANY(%(kinds)s) THEN coalesce(w.undone, 0) ELSE 0 END::int8 AS undone
FROM lately i LEFT JOIN written w ON w.run_id = i.run_id
ORDER BY i.at DESC, i.run_id, i.kind;

-- name: prune
-- Deletes old lines.
DELETE FROM dualwrite.interventions WHERE at < now() - make_interval(days => %(days)s);
