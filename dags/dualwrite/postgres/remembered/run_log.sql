-- dualwrite.runs: a line for each run, collection, phase and slice. Its `counts` have each verdict's number, excused differences
-- included, and in `excused` how many those were (lines of earlier versions don't say). A line is clean if all was examined and
-- no drift was seen that wasn't excused then. Rejections don't count: they stay open until they are corrected or excused. The
-- statement that writes a line is composed from the counters of report.py.

-- name: billed
-- Reads that a run's lines have so far.
SELECT coalesce(sum(billed_reads), 0)::int8 FROM dualwrite.runs WHERE dag_id = %(dag)s AND run_id = %(run)s;

-- name: proof_reads
-- How many document names a DAG's scheduled runs have read for proofs in the last 24 hours.
SELECT coalesce(sum(proof_reads), 0)::int8 FROM dualwrite.runs
WHERE dag_id = %(dag)s AND unattended AND recorded_at > now() - interval '1 day';

-- name: without_rows
-- Documents that a run compared and that can have no row, by collection.
SELECT collection, sum(
  (counts ->> 'orphan')::int8 + (counts ->> 'duplicate')::int8 + coalesce((counts ->> 'left_out')::int8, 0)
)::int8
FROM dualwrite.runs
WHERE dag_id = %(dag)s AND run_id = %(run)s AND phase = 'compare' GROUP BY 1;

-- name: prune
-- Deletes old lines.
DELETE FROM dualwrite.runs WHERE recorded_at < now() - make_interval(days => %(days)s);

-- name: last_run
-- The run that left the last line, apart from one.
SELECT run_id FROM dualwrite.runs WHERE dag_id = %(dag)s AND run_id <> %(but)s ORDER BY id DESC LIMIT 1;

-- name: history
-- The last runs, newest first, among a DAG's last lines: sums over all collections, in each verdict without excused differences.
SELECT run_id, max(recorded_at) AS at,
  sum(examined) FILTER (WHERE looked) AS examined,
  sum(open.missing) FILTER (WHERE looked) AS missing,
  sum(open.stale) FILTER (WHERE looked) AS stale,
  sum(open.extra) FILTER (WHERE looked) AS extra,
  sum(open.rejected) FILTER (WHERE looked) AS rejected,
  sum(open.excused) FILTER (WHERE looked) AS excused,
  sum((counts ->> 'in_flight')::int8) FILTER (WHERE looked) AS in_flight,
  sum(inserted + updated + deleted) AS written,
  sum(billed_reads) AS billed,
  count(*) FILTER (WHERE outcome = 'not_examined') AS not_examined
FROM (
  SELECT *, phase IN ('compare', 'second_look') AS looked
  FROM dualwrite.runs WHERE dag_id = %(dag)s
  ORDER BY id DESC LIMIT %(lines)s
) lately
CROSS JOIN LATERAL (
  SELECT
    (counts ->> 'missing')::int8 - coalesce((counts -> 'excused' ->> 'missing')::int8, 0) AS missing,
    (counts ->> 'stale')::int8 - coalesce((counts -> 'excused' ->> 'stale')::int8, 0) AS stale,
    (counts ->> 'extra')::int8 - coalesce((counts -> 'excused' ->> 'extra')::int8, 0) AS extra,
    (counts ->> 'rejected')::int8 - coalesce((counts -> 'excused' ->> 'rejected')::int8, 0) AS rejected,
    (SELECT sum(number::int8) FROM jsonb_each_text(counts -> 'excused') AS e (verdict, number)) AS excused
) open
GROUP BY run_id ORDER BY at DESC LIMIT %(limit)s;

-- name: days
-- The last days (UTC), today first: how many runs of a DAG compared, whether all their lines are clean (null: there was none), up to
-- three runs whose lines aren't, and the reads of all DAGs.
WITH lines AS (
  SELECT (recorded_at AT TIME ZONE 'UTC')::date AS day, run_id, billed_reads,
    dag_id = %(dag)s AND phase IN ('compare', 'second_look') AS looked,
    outcome = 'examined'
    AND (counts ->> 'missing')::int8 = coalesce((counts -> 'excused' ->> 'missing')::int8, 0)
    AND (counts ->> 'stale')::int8 = coalesce((counts -> 'excused' ->> 'stale')::int8, 0)
    AND (counts ->> 'extra')::int8 = coalesce((counts -> 'excused' ->> 'extra')::int8, 0) AS clean
  FROM dualwrite.runs
  WHERE recorded_at >= ((now() AT TIME ZONE 'UTC')::date - (%(number)s::int4 - 1)) AT TIME ZONE 'UTC'
)
SELECT d.day, count(DISTINCT l.run_id) FILTER (WHERE l.looked) AS runs, bool_and(l.clean) FILTER (WHERE l.looked) AS clean,
  (array_agg(DISTINCT l.run_id) FILTER (WHERE l.looked AND NOT l.clean))[:3] AS not_clean,
  coalesce(sum(l.billed_reads), 0)::int8 AS billed
FROM (
  SELECT (now() AT TIME ZONE 'UTC')::date - n AS day FROM generate_series(0, %(number)s::int4 - 1) AS n
) d
LEFT JOIN lines l ON l.day = d.day
GROUP BY 1 ORDER BY 1 DESC;

-- name: clean_days
-- The days (UTC) on which a DAG's runs looked, newest first, and whether all their lines are clean.
SELECT (recorded_at AT TIME ZONE 'UTC')::date AS day, bool_and(
  outcome = 'examined'
  AND (counts ->> 'missing')::int8 = coalesce((counts -> 'excused' ->> 'missing')::int8, 0)
  AND (counts ->> 'stale')::int8 = coalesce((counts -> 'excused' ->> 'stale')::int8, 0)
  AND (counts ->> 'extra')::int8 = coalesce((counts -> 'excused' ->> 'extra')::int8, 0)
) AS clean
FROM dualwrite.runs
WHERE dag_id = %(dag)s AND phase IN ('compare', 'second_look')
GROUP BY 1 ORDER BY 1 DESC;
