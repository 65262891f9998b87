-- OPTIONAL: prunes as each run's preflight does, while no DAG runs (the migration is over, or Airflow is off). The journal
-- holds rows as they were before a repair, personal data included; while nothing runs, nothing deletes them.
-- Run it by hand or each day, as dualwrite_data: psql -f under that role, or on Supabase pg_cron, whose jobs run as the role that
-- schedules them (GRANT USAGE ON SCHEMA cron TO dualwrite_data; then, logged in as dualwrite_data,
-- SELECT cron.schedule('dualwrite-prune', '0 3 * * *', $cron$...$cron$)).
--
-- When the migration is over and every run is green, DROP SCHEMA dualwrite CASCADE removes everything.

SET search_path = pg_catalog, pg_temp;

DO $prune$
BEGIN
  -- A trigger on these tables, whoever put it there, runs with the rights of who deletes. SET ROLE would not do: it can be taken
  -- back by the trigger.
  IF session_user <> 'dualwrite_data' AND to_regrole('dualwrite_data') IS NOT NULL
    AND has_table_privilege(to_regrole('dualwrite_data'), 'dualwrite.repair_journal', 'DELETE')
  THEN
    RAISE EXCEPTION 'Nothing was pruned: run prune.sql as dualwrite_data, not as %.', session_user;
  END IF;

  -- A write that no run has confirmed keeps its key, so that a later run can still finish it. (An insert has no row_before.)
  UPDATE dualwrite.repair_journal
  SET row_before = NULL
  WHERE confirmed_at IS NULL AND row_before IS NOT NULL AND written_at < NOW() - INTERVAL '30 days';

  DELETE FROM dualwrite.repair_journal
  WHERE confirmed_at IS NOT NULL AND written_at < NOW() - INTERVAL '30 days';

  DELETE FROM dualwrite.runs
  WHERE recorded_at < NOW() - INTERVAL '400 days';

  DELETE FROM dualwrite.interventions
  WHERE at < NOW() - INTERVAL '400 days';
END $prune$;

RESET search_path;
