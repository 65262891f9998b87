-- dualwrite.open_differences: a line for each label with a difference that was seen and isn't known to be gone, and for each
-- label that was excused in advance. A line with excused_by is excused; one with requires is a row that is extra only because
-- the document at that path is gone.

-- name: differences_at
-- The open differences at some labels.
SELECT key AS label, verdict, row_key, path, requires, reason, fingerprint, first_seen, last_seen,
  excused_by, excused_verdict, excused_finding_reason
FROM dualwrite.open_differences
WHERE collection = %(collection)s AND key = ANY(%(labels)s);

-- name: in_pages
-- A page of a collection's open differences, after a label.
SELECT key AS label, verdict, row_key, path, requires, reason, fingerprint, first_seen, last_seen,
  excused_by, excused_verdict, excused_finding_reason
FROM dualwrite.open_differences
WHERE collection = %(collection)s AND key > %(after)s ORDER BY key LIMIT %(size)s;

-- name: excused
-- A collection's excused differences.
SELECT key AS label, verdict, row_key, path, requires, reason, fingerprint, first_seen, last_seen,
  excused_by, excused_verdict, excused_finding_reason
FROM dualwrite.open_differences
WHERE collection = %(collection)s AND excused_by IS NOT NULL ORDER BY key;

-- name: named
-- The open differences, not excused, at some labels or with some verdicts.
SELECT key AS label, verdict, row_key, path, requires, reason, fingerprint, first_seen, last_seen,
  excused_by, excused_verdict, excused_finding_reason
FROM dualwrite.open_differences
WHERE collection = %(collection)s AND excused_by IS NULL AND (key = ANY(%(labels)s) OR verdict = ANY(%(verdicts)s))
ORDER BY first_seen, key;

-- name: due
-- The first open differences of some collections in the order in which a run looks at them, without excused ones and without
-- rejections of this run's own. Those in flight come first, and of these the ones that this run has looked at once; then those seen
-- longest ago.
SELECT collection, key AS label, verdict, row_key, path, requires, reason, fingerprint, first_seen, last_seen,
  excused_by, excused_verdict, excused_finding_reason
FROM (
  SELECT * FROM dualwrite.open_differences
  WHERE collection = ANY(%(names)s) AND excused_by IS NULL AND NOT (verdict = 'rejected' AND run_id = %(run)s)
  ORDER BY verdict <> 'in_flight', verdict = 'in_flight' AND run_id <> %(run)s, last_seen, collection, key
  LIMIT %(limit)s
) first
ORDER BY first_seen, key;

-- name: not_due
-- The differences that `due` leaves for a later run, by collection: how many, and how many of these are in flight.
SELECT collection, count(*), count(*) FILTER (WHERE verdict = 'in_flight')
FROM (
  SELECT * FROM dualwrite.open_differences
  WHERE collection = ANY(%(names)s) AND excused_by IS NULL AND NOT (verdict = 'rejected' AND run_id = %(run)s)
  ORDER BY verdict <> 'in_flight', verdict = 'in_flight' AND run_id <> %(run)s, last_seen, collection, key
  OFFSET %(limit)s
) others
GROUP BY 1;

-- name: known
-- All open differences of a collection, those seen longest ago first: whether each exists without another document being gone,
-- whether another look could settle it (not if the run `but` has looked at it), and its excuse.
SELECT key, requires IS NULL AS is_own,
  excused_by IS NULL AND requires IS NULL AND verdict IN ('in_flight', 'rejected') AND run_id IS DISTINCT FROM %(but)s
    AS is_unsettled,
  excused_by IS NOT NULL AS is_excused, excused_verdict, excused_finding_reason
FROM dualwrite.open_differences
WHERE collection = %(collection)s ORDER BY last_seen, key;

-- name: missed_while_off
-- Rows that are missing because dual-write was switched off, of those first seen since a moment, by collection.
SELECT collection, count(*) FROM dualwrite.open_differences
WHERE cause = 'dual_write_off' AND verdict IN ('missing', 'in_flight') AND first_seen >= %(since)s GROUP BY 1;

-- name: waiting
-- A collection's open differences, without excused ones and rejections of this run's own: how many, and how many of these are in
-- flight and were seen less than a grace period ago.
SELECT count(*) AS number,
  count(*) FILTER (WHERE verdict = 'in_flight' AND last_seen > clock_timestamp() - %(grace)s::interval) AS young
FROM dualwrite.open_differences
WHERE collection = %(collection)s AND excused_by IS NULL AND NOT (verdict = 'rejected' AND run_id = %(run)s);

-- name: going_with
-- The open differences, not excused, that exist because one of some documents is gone.
SELECT requires, collection, key FROM dualwrite.open_differences
WHERE requires = ANY(%(paths)s) AND excused_by IS NULL ORDER BY collection, key;

-- name: remember
-- Adds a difference, or updates a known one. Its excuse stays while `holds`, as Excuse.covers decides. If the excuse ends, or a
-- rejection does, another difference begins (first_seen). A known cause stays: a row missed while dual-write was switched off keeps
-- that cause, and a difference that was open before keeps its own.
INSERT INTO dualwrite.open_differences AS d (
  collection, key, path, requires, row_key, verdict, cause, op_id, op_time, reason, columns, first_seen, last_seen, run_id,
  fingerprint
)
VALUES (
  %(collection)s, %(label)s, %(path)s, %(requires)s, %(key)s, %(verdict)s, %(cause)s, %(op_id)s, %(op_time)s, %(reason)s,
  %(columns)s, clock_timestamp(), clock_timestamp(), %(run)s, %(fingerprint)s
)
ON CONFLICT (collection, key) DO UPDATE SET
  (first_seen, excused_by, excuse_reason, excused_at, excused_verdict, excused_finding_reason) = (
    SELECT
      CASE
        WHEN d.verdict = 'rejected' AND excluded.verdict <> 'rejected' THEN excluded.first_seen
        WHEN d.excused_by IS NULL OR (holds AND d.excused_verdict IS NOT NULL) THEN d.first_seen
        ELSE excluded.first_seen
      END,
      CASE WHEN holds THEN d.excused_by END,
      CASE WHEN holds THEN d.excuse_reason END,
      CASE WHEN holds THEN d.excused_at END,
      CASE WHEN holds THEN excluded.verdict END,
      CASE WHEN holds THEN excluded.reason END
    FROM (
      SELECT d.excused_by IS NOT NULL AND (
        d.excused_verdict IS NULL
        OR (
          d.excused_verdict = excluded.verdict
          AND CASE WHEN d.excused_finding_reason <> ALL(%(ends_no_excuse)s) THEN d.excused_finding_reason END
            IS NOT DISTINCT FROM CASE WHEN excluded.reason <> ALL(%(ends_no_excuse)s) THEN excluded.reason END
        )
      ) AS holds
    ) excuse
  ),
  path = excluded.path, requires = excluded.requires, row_key = coalesce(excluded.row_key, d.row_key),
  verdict = excluded.verdict,
  cause = CASE
    WHEN d.cause = 'dual_write_off' AND excluded.cause = 'never_attempted' THEN d.cause
    WHEN d.cause IS NOT NULL AND excluded.cause = 'dual_write_off' THEN d.cause
    ELSE coalesce(excluded.cause, d.cause)
  END,
  op_id = coalesce(excluded.op_id, d.op_id),
  op_time = coalesce(excluded.op_time, d.op_time), reason = excluded.reason, columns = excluded.columns,
  last_seen = excluded.last_seen, run_id = excluded.run_id, fingerprint = excluded.fingerprint;

-- name: close
-- Deletes differences, and gives their causes to the journal's lines of the writes that ended them. Each line looks its difference
-- up by label. With a join, the planner may compare each with each, and does if the tables have no statistics yet: after an
-- outage, in the run that repairs it.
WITH told AS (
  UPDATE dualwrite.repair_journal j SET row_xmin = coalesce(j.row_xmin, j.xmin::text), cause = (
    SELECT d.cause FROM dualwrite.open_differences d WHERE d.collection = j.collection AND d.key = j.key
  )
  WHERE j.collection = %(collection)s AND j.key = ANY(%(labels)s) AND j.cause IS NULL
    AND j.written_at > now() - interval '2 days'
    AND j.written_at >= (
      SELECT d.first_seen FROM dualwrite.open_differences d
      WHERE d.collection = j.collection AND d.key = j.key AND d.cause IS NOT NULL
    )
)
DELETE FROM dualwrite.open_differences WHERE collection = %(collection)s AND key = ANY(%(labels)s);

-- name: with_row_keys
-- The differences of rows whose labels begin with `prefix` and are no digests.
SELECT key, row_key FROM dualwrite.open_differences
WHERE collection = %(collection)s AND row_key IS NOT NULL AND starts_with(key, %(prefix)s) AND key !~ '~[0-9a-f]{16}';

-- name: relabel
-- Gives a difference another label, unless a difference has it.
UPDATE dualwrite.open_differences SET key = %(new)s
WHERE collection = %(collection)s AND key = %(old)s
  AND NOT EXISTS (SELECT FROM dualwrite.open_differences WHERE collection = %(collection)s AND key = %(new)s);

-- name: listed
-- The open differences, without excuses in advance: excused ones last, then the oldest first. Each line has the number of all.
SELECT collection, key, verdict, reason, cause, columns, path, requires, first_seen AS since, excused_by,
  left(excuse_reason, 500) AS excuse_reason, excused_at, count(*) OVER () AS number
FROM dualwrite.open_differences
WHERE reason IS DISTINCT FROM 'excused_in_advance'
ORDER BY excused_by IS NOT NULL, first_seen, collection, key LIMIT %(limit)s;

-- name: open_keys
-- The open differences at some labels, without content.
SELECT key, verdict, reason, cause, columns, path, first_seen AS since, last_seen, run_id, excused_by,
  left(excuse_reason, 500) AS excuse_reason, excused_at
FROM dualwrite.open_differences
WHERE collection = %(collection)s AND key = ANY(%(labels)s);

-- name: open_columns
-- Open stale rows that aren't excused, counted by collection and differing column, the commonest of each collection first.
SELECT collection, name, count(*)
FROM dualwrite.open_differences, unnest(columns) AS name
WHERE verdict = 'stale' AND excused_by IS NULL
GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2;

-- name: open_counts
-- The number of open differences of each kind, and since when. Rejections are counted without their reasons, which are many.
SELECT collection, verdict, CASE WHEN verdict <> 'rejected' THEN reason END AS reason, coalesce(cause, 'unknown') AS cause,
  excused_by IS NOT NULL AS excused, count(*) AS number, min(first_seen) AS since
FROM dualwrite.open_differences
GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 4, 5, 3;
