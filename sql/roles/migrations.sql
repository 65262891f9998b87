-- The role of the DAG apply_migrations: creates tables, and sees no row of the app's.
--
-- Run this before each round of migrations, as a superuser or, on Supabase, as postgres (it needs CREATEROLE, and to own
-- the database and the app's tables). It opens the role; data.sql, to be run after the round, closes it again (NOLOGIN). It
-- may be run again at any time; after the Supabase CLI's first `db push`, run it again so that the role can read the CLI's
-- history.
--
-- `make roles` writes what stands between <catalog> and </catalog>, from what the app's migrations promise (`make snapshot`).
--
-- The role has no password yet, so it can't log in over a network. Set one in psql with \password dualwrite_migrations
-- (it never shows in a log), and put it into the Airflow connection supabase_migrations.

-- The role may make functions in public. None of them may come before Postgres's own in what an administrator runs.
SET search_path = pg_catalog, pg_temp;

DO $$
BEGIN
  IF to_regrole('dualwrite_migrations') IS NULL THEN
    CREATE ROLE dualwrite_migrations;
  END IF;
  ALTER ROLE dualwrite_migrations LOGIN;
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO dualwrite_migrations', current_database());
  -- With CREATE a role could make a schema whose name another role's search path begins with. (Earlier versions of this
  -- file gave it.)
  EXECUTE format('REVOKE CREATE ON DATABASE %I FROM dualwrite_migrations', current_database());
END $$;

-- Whoever runs this may then grant on the tables that the role creates, and alter them, as the Supabase CLI's own
-- migrations do. A superuser needs no membership.
GRANT dualwrite_migrations TO CURRENT_USER;

-- What the bundle remembers: the administrator's schema, in which the role makes tables.
CREATE SCHEMA IF NOT EXISTS dualwrite;
ALTER SCHEMA dualwrite OWNER TO CURRENT_USER;
REVOKE ALL ON SCHEMA dualwrite FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA dualwrite TO dualwrite_migrations;
DO $$
DECLARE
  api_role NAME;
BEGIN
  FOR api_role IN SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
    EXECUTE format('REVOKE ALL ON SCHEMA dualwrite FROM %I', api_role);
  END LOOP;
END $$;

-- <catalog>
GRANT USAGE, CREATE ON SCHEMA public TO dualwrite_migrations;
-- The tables that the migrations' foreign keys point at. No privilege on their rows.
GRANT REFERENCES ON public.boards, public.users TO dualwrite_migrations;
-- </catalog>

DO $$
BEGIN
  IF to_regnamespace('supabase_migrations') IS NOT NULL THEN
    GRANT USAGE ON SCHEMA supabase_migrations TO dualwrite_migrations;
    GRANT SELECT ON supabase_migrations.schema_migrations TO dualwrite_migrations;
  END IF;
END $$;

RESET search_path;
