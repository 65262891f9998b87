-- OPTIONAL: prunes as each run's preflight does, while no DAG runs (the migration is over, or Airflow is off). The journal
-- holds rows as they were before a repair, personal data included; while nothing runs, nothing deletes them.
-- Run it by hand, or each day: psql -f, or on Supabase pg_cron (SELECT cron.schedule('dualwrite-prune', '0 3 * * *', $$...$$)).
--
-- When the migration is over and every run is green, DROP SCHEMA dualwrite CASCADE removes everything.

-- A write that no run has confirmed keeps its key, so that a later run can still finish it. (An insert has no row_before.)
UPDATE dualwrite.repair_journal
SET row_before = NULL
WHERE confirmed_at IS NULL AND row_before IS NOT NULL AND written_at < NOW() - INTERVAL '30 days';

DELETE FROM dualwrite.repair_journal
WHERE confirmed_at IS NOT NULL AND written_at < NOW() - INTERVAL '30 days';

DELETE FROM dualwrite.runs
WHERE recorded_at < NOW() - INTERVAL '400 days';
