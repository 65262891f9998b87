-- The statements of an undo that are the same for all collections. Those that touch rows are composed.

-- name: collections
-- The collections that a run wrote to.
SELECT DISTINCT collection FROM dualwrite.repair_journal WHERE run_id = %(run)s;

-- name: dags
-- The DAGs that have a run of this id.
SELECT DISTINCT dag_id FROM dualwrite.runs WHERE run_id = %(run)s;

-- name: columns
-- A table's columns that an insert, or an update, may give a value.
SELECT attname::text FROM pg_attribute
WHERE attrelid = %(table)s::oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
  AND NOT (%(updated)s::boolean AND attidentity = 'a')
ORDER BY attnum;

-- name: journaled_columns
-- The columns that rows had before they were written.
SELECT DISTINCT jsonb_object_keys(row_before) FROM dualwrite.repair_journal WHERE id = ANY(%(ids)s);

-- name: chains
-- A run's writes to each row as one chain, the row that was written last first. A write's version is the row's xmin: kept in
-- row_xmin, or the line's own xmin if no later transaction has updated the line.
WITH own AS (
  SELECT j.*, coalesce(j.row_xmin, CASE WHEN j.confirmed_at IS NULL OR j.undoes IS NOT NULL THEN j.xmin::text END) AS version
  FROM dualwrite.repair_journal j
  WHERE j.run_id = %(run)s AND j.collection = %(collection)s
), line AS (
  SELECT *, lag(action) OVER earlier AS action_before, lag(version) OVER earlier AS version_before
  FROM own
  WINDOW earlier AS (PARTITION BY row_key ORDER BY id)
), chain AS (
  SELECT row_key, min(id) AS first, max(id) AS last,
    (array_agg(key ORDER BY id DESC))[1] AS label,
    (array_agg(path ORDER BY id DESC))[1] AS path,
    (array_agg(action ORDER BY id))[1] = 'insert' AS was_absent,
    (array_agg(action ORDER BY id DESC))[1] = 'delete' AS is_absent,
    (array_agg(version ORDER BY id DESC))[1] AS version,
    bool_and(action_before IS NULL OR CASE action
      WHEN 'insert' THEN action_before = 'delete' ELSE coalesce(xmin_before = version_before, false) END) AS is_whole,
    (array_agg(action = 'insert' OR row_before IS NOT NULL ORDER BY id))[1] AS is_kept
  FROM line GROUP BY row_key
)
SELECT first, last, label, row_key, path,
  CASE WHEN was_absent AND is_absent THEN NULL WHEN was_absent THEN 'delete' WHEN is_absent THEN 'insert' ELSE 'update' END
    AS action,
  version, is_whole, is_kept,
  EXISTS (SELECT FROM dualwrite.repair_journal u WHERE u.undoes = chain.last) AS undone
FROM chain ORDER BY last DESC;

-- name: reopen
-- Opens a difference at the keys of some lines, unless one is open there.
INSERT INTO dualwrite.open_differences (collection, key, path, row_key, verdict, reason, first_seen, last_seen, run_id)
SELECT j.collection, j.key, j.path, j.row_key, 'in_flight', %(reason)s, clock_timestamp(), clock_timestamp(), %(run)s
FROM dualwrite.repair_journal j WHERE j.id = ANY(%(ids)s)
ON CONFLICT (collection, key) DO NOTHING;

-- name: settle
-- Confirms the lines of writes that were taken back: no run has to confirm them any more.
UPDATE dualwrite.repair_journal SET confirmed_at = clock_timestamp(), row_xmin = coalesce(row_xmin, xmin::text)
WHERE run_id = %(undone)s AND collection = %(collection)s AND key = ANY(%(labels)s) AND confirmed_at IS NULL;
