-- The role of the DAGs backfill_gap and reconcile_dual_writes, and of `make doctor`: reads and writes rows, but
-- can't alter tables.
--
-- Run this after each round of migrations (apply_migrations), as the role that ran migrations.sql. It also takes the journal
-- out of dualwrite_migrations' reach and closes that role until migrations.sql opens it. It may be run again at any time.
--
-- `make roles` writes what stands between <catalog> and </catalog>, from the catalog. Names it can't know (a table of another's
-- that references yours) are granted by hand: doctor says which.
--
-- The role has no password yet: \password dualwrite_data in psql, then into the Airflow connection supabase_default.
-- To let the role read but not write, leave out the GRANT of INSERT, UPDATE, DELETE below: dry runs and reconciliations without
-- a repair work without it, and preflight refuses all others, naming the missing GRANT.

-- dualwrite_migrations may make functions in public. None of them may come before Postgres's own in what an administrator runs.
SET search_path = pg_catalog, pg_temp;

DO $$
BEGIN
  IF to_regrole('dualwrite_data') IS NULL THEN
    -- All rows must be visible: behind row-level security a hidden row would look missing. Who creates a role that
    -- bypasses it must bypass it too; on PostgreSQL 15 only a superuser may. Otherwise the policies below do.
    IF EXISTS (
      SELECT FROM pg_roles
      WHERE rolname = CURRENT_USER
        AND (rolsuper OR (rolbypassrls AND current_setting('server_version_num')::int >= 160000))
    ) THEN
      CREATE ROLE dualwrite_data LOGIN BYPASSRLS;
    ELSE
      CREATE ROLE dualwrite_data LOGIN;
    END IF;
  END IF;
  -- TEMPORARY: each page is staged in a temporary table that lives as long as its transaction.
  EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO dualwrite_data', current_database());
END $$;

GRANT USAGE ON SCHEMA dualwrite TO dualwrite_data;

-- <catalog>
GRANT USAGE ON SCHEMA public TO dualwrite_data;

-- The app's tables: those of the catalog. Reading them is what every run needs, a dry run too.
GRANT SELECT ON
public.boards, public.users, public.user_board_permissions, public.board_waiting_users, public.posts, public.comments,
public.replies, public.likes, public.reactions, public.blocks, public.drafts, public.reviews, public.notifications
TO dualwrite_data;
-- The app's own log of operations is read, never written.
GRANT SELECT ON public.write_ops TO dualwrite_data;
-- What an apply and a repair need.
GRANT INSERT, UPDATE, DELETE ON
public.boards, public.users, public.user_board_permissions, public.board_waiting_users, public.posts, public.comments,
public.replies, public.likes, public.reactions, public.blocks, public.drafts, public.reviews, public.notifications
TO dualwrite_data;
-- </catalog>

-- What their rows need besides: the sequences that defaults take values from, and the schemas of the columns' types.
DO $$
DECLARE
  needed RECORD;
BEGIN
  FOR needed IN
    WITH RECURSIVE app AS (
      SELECT c.oid, a.privilege_type AS may FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
      WHERE a.grantee = 'dualwrite_data'::regrole AND c.relnamespace <> 'dualwrite'::regnamespace
    ), types AS (
      SELECT a.atttypid AS oid FROM app JOIN pg_attribute a ON a.attrelid = app.oid AND a.attnum > 0 AND NOT a.attisdropped
      UNION
      SELECT y.typbasetype FROM types JOIN pg_type y ON y.oid = types.oid WHERE y.typtype = 'd'
    )
    SELECT format('SEQUENCE %s', s.oid::regclass) AS what
    FROM app
    JOIN pg_attrdef d ON d.adrelid = app.oid AND app.may = 'INSERT'
    JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
    JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S'
    UNION
    SELECT format('SCHEMA %I', n.nspname)
    FROM types
    JOIN pg_type y ON y.oid = types.oid
    JOIN pg_namespace n ON n.oid = y.typnamespace
    WHERE NOT has_schema_privilege('dualwrite_data', n.oid, 'USAGE')
  LOOP
    EXECUTE format('GRANT USAGE ON %s TO dualwrite_data', needed.what);
  END LOOP;
END $$;

-- The journal holds rows as they were, personal data included: it is the administrator's from now on. (A later migration that
-- alters it needs it handed back: ALTER TABLE dualwrite.repair_journal OWNER TO dualwrite_migrations; this file takes it again.)
ALTER TABLE dualwrite.repair_journal OWNER TO CURRENT_USER;

-- What the bundle remembers. Dry runs are recorded too.
GRANT SELECT, INSERT, UPDATE, DELETE ON
dualwrite.runs, dualwrite.watermarks, dualwrite.open_differences, dualwrite.repair_journal, dualwrite.count_baselines,
dualwrite.looks, dualwrite.seen_keys, dualwrite.gone_documents, dualwrite.interventions
TO dualwrite_data;
-- What slices saw is emptied at once when no run needs it any more: deleting a hundred million lines takes long.
GRANT TRUNCATE ON dualwrite.seen_keys TO dualwrite_data;
-- Doctor lists pending migrations.
GRANT SELECT ON dualwrite.migrations TO dualwrite_data;
DO $$
BEGIN
  IF to_regnamespace('supabase_migrations') IS NOT NULL THEN
    GRANT USAGE ON SCHEMA supabase_migrations TO dualwrite_data;
    GRANT SELECT ON supabase_migrations.schema_migrations TO dualwrite_data;
  END IF;
END $$;

-- Where the role couldn't be made to bypass row-level security, policies show it all rows of the tables granted above.
DO $$
DECLARE
  granted RECORD;
BEGIN
  IF NOT (SELECT rolbypassrls FROM pg_roles WHERE rolname = 'dualwrite_data') THEN
    FOR granted IN
      SELECT c.oid::regclass AS name FROM pg_class c
      WHERE c.relrowsecurity
        AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 'dualwrite_data'::regrole)
        AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'dualwrite_data')
    LOOP
      EXECUTE format('CREATE POLICY dualwrite_data ON %s TO dualwrite_data USING (true) WITH CHECK (true)', granted.name);
    END LOOP;
  END IF;
END $$;

-- Between two rounds of migrations nobody makes anything as that role, nor puts code on its tables, which would run with the
-- rights of whoever writes them.
DO $$
BEGIN
  IF to_regrole('dualwrite_migrations') IS NOT NULL THEN
    REVOKE ALL ON dualwrite.repair_journal FROM dualwrite_migrations;
    ALTER ROLE dualwrite_migrations NOLOGIN;
  END IF;
END $$;

RESET search_path;
