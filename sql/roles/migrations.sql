-- The role of the DAG apply_migrations: creates tables, and sees no row of the app's.
--
-- Run this once before the first migration, as a superuser or, on Supabase, as postgres (it needs CREATEROLE, and to own
-- the database and the app's tables). It may be run again at any time; after the Supabase CLI's first `db push`, run it
-- again so that the role can read the CLI's history.
--
-- The role has no password yet, so it can't log in over a network. Set one in psql with \password dualwrite_migrations
-- (it never shows in a log), and put it into the Airflow connection supabase_migrations.

DO $$
BEGIN
  IF to_regrole('dualwrite_migrations') IS NULL THEN
    CREATE ROLE dualwrite_migrations LOGIN;
  END IF;
  -- CREATE SCHEMA dualwrite is the first migration's.
  EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO dualwrite_migrations', current_database());
END $$;

-- Whoever runs this may then grant on the tables that the role creates, and alter them, as the Supabase CLI's own
-- migrations do. A superuser needs no membership.
GRANT dualwrite_migrations TO CURRENT_USER;

GRANT USAGE, CREATE ON SCHEMA public TO dualwrite_migrations;
-- The tables that the migrations' foreign keys point at. No privilege on their rows.
GRANT REFERENCES ON public.boards, public.users TO dualwrite_migrations;

DO $$
BEGIN
  IF to_regnamespace('supabase_migrations') IS NOT NULL THEN
    GRANT USAGE ON SCHEMA supabase_migrations TO dualwrite_migrations;
    GRANT SELECT ON supabase_migrations.schema_migrations TO dualwrite_migrations;
  END IF;
END $$;
