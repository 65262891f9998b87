-- dualwrite.repair_journal. A statement that updates a line keeps the line's xmin in row_xmin, because it is also the row's.

-- name: unconfirmed
-- Lines of a collection that no run has confirmed, oldest first.
SELECT id, key AS label, path, action, row_key AS key
FROM dualwrite.repair_journal
WHERE collection = %(collection)s AND confirmed_at IS NULL
ORDER BY id;

-- name: confirm
-- Confirms lines, and counts the ones that are there, confirmed before or now.
WITH confirmed AS (
  UPDATE dualwrite.repair_journal
  SET confirmed_at = clock_timestamp(), row_xmin = coalesce(row_xmin, xmin::text)
  WHERE id = ANY(%(ids)s) AND confirmed_at IS NULL
)
SELECT count(*) FROM dualwrite.repair_journal WHERE id = ANY(%(ids)s);

-- name: written_by
-- The labels that a run has written, counted by collection and by the first action at each.
SELECT collection, action, count(*)
FROM (
  SELECT DISTINCT ON (collection, key) collection, action
  FROM dualwrite.repair_journal
  WHERE run_id = %(run)s
  ORDER BY collection, key, id
) first
GROUP BY collection, action;

-- name: written_among
-- The labels, of some, that a run has written.
SELECT key FROM dualwrite.repair_journal
WHERE run_id = %(run)s AND collection = %(collection)s AND key = ANY(%(labels)s);

-- name: repaired_lately
-- The labels that a DAG's runs wrote in the last 24 hours, each once a run, by collection and cause. While a difference is open, its
-- own line has the cause; the journal takes that over when it is closed.
SELECT collection, cause, count(*) AS number, count(*) FILTER (WHERE unattended) AS unattended,
  count(*) FILTER (WHERE run_id = %(run)s) AS by_this_run
FROM (
  SELECT DISTINCT j.collection, j.key, j.run_id, r.unattended, coalesce(j.cause, d.cause, 'unknown') AS cause
  FROM dualwrite.repair_journal j
  JOIN (
    SELECT run_id, bool_or(unattended) AS unattended FROM dualwrite.runs WHERE dag_id = %(dag)s GROUP BY run_id
  ) r USING (run_id)
  LEFT JOIN dualwrite.open_differences d ON d.collection = j.collection AND d.key = j.key
  WHERE j.written_at > now() - interval '24 hours' AND j.undoes IS NULL
) written
GROUP BY 1, 2 ORDER BY 1, 2;

-- name: of_key
-- The lines of a label, the latest first, without before-images.
SELECT written_at, action, run_id, confirmed_at IS NOT NULL AS is_confirmed, undoes IS NOT NULL AS is_undo
FROM dualwrite.repair_journal
WHERE collection = %(collection)s AND key = %(label)s
ORDER BY id DESC LIMIT %(limit)s;

-- name: forget_rows
-- Deletes the before-images of old lines that are not confirmed.
UPDATE dualwrite.repair_journal SET row_before = NULL, row_xmin = coalesce(row_xmin, xmin::text)
WHERE confirmed_at IS NULL AND row_before IS NOT NULL AND written_at < now() - make_interval(days => %(days)s);

-- name: prune
-- Deletes old lines that are confirmed.
DELETE FROM dualwrite.repair_journal
WHERE confirmed_at IS NOT NULL AND written_at < now() - make_interval(days => %(days)s);
