-- dualwrite.migrations: a line for each file that was applied or, with applied_at null, begun outside a transaction. And the history
-- of Supabase's CLI, which is only read.

-- name: applied
-- All lines.
SELECT version, name, sha256, applied_at IS NOT NULL AS finished FROM dualwrite.migrations;

-- name: supabase
-- The versions that Supabase's CLI has applied.
SELECT version FROM supabase_migrations.schema_migrations;

-- name: schema_exists
-- Whether a schema is there.
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %(name)s);

-- name: create_schema
-- Makes our schema. Without IF NOT EXISTS: that needs CREATE on the database even if the schema is there.
CREATE SCHEMA dualwrite;

-- name: create_ledger
-- Makes the ledger.
CREATE TABLE dualwrite.migrations (
  version TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  applied_at TIMESTAMPTZ DEFAULT NOW(),
  applied_by TEXT NOT NULL DEFAULT CURRENT_USER,
  run_id TEXT
);

-- name: begin_file
-- Notes that a file is begun. A line that isn't finished is updated: the file may have been corrected.
INSERT INTO dualwrite.migrations AS m (version, name, sha256, applied_at, run_id)
VALUES (%(version)s, %(name)s, %(sha256)s, NULL, %(run)s)
ON CONFLICT (version) DO UPDATE SET name = excluded.name, sha256 = excluded.sha256, run_id = excluded.run_id
WHERE m.applied_at IS NULL;

-- name: finish_file
-- Notes that a file is applied, whether it was noted as begun or not. A finished line stays as it is.
INSERT INTO dualwrite.migrations AS m (version, name, sha256, run_id)
VALUES (%(version)s, %(name)s, %(sha256)s, %(run)s)
ON CONFLICT (version) DO UPDATE
SET name = excluded.name, sha256 = excluded.sha256, run_id = excluded.run_id, applied_at = now(), applied_by = CURRENT_USER
WHERE m.applied_at IS NULL;

-- name: applied_by
-- How many files a run has applied.
SELECT count(*) FROM dualwrite.migrations WHERE run_id = %(run)s AND applied_at IS NOT NULL;
