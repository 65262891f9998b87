-- What the bundle remembers, in a schema of its own that the API's roles can't reach.

CREATE SCHEMA IF NOT EXISTS dualwrite;
REVOKE ALL ON SCHEMA dualwrite FROM public, anon, authenticated;

-- apply_migrations makes this one before its first file; here it is for the record. No applied_at: begun, outside a
-- transaction, and not finished.
CREATE TABLE IF NOT EXISTS dualwrite.migrations (
  version TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  applied_at TIMESTAMPTZ DEFAULT NOW(),
  applied_by TEXT NOT NULL DEFAULT CURRENT_USER,
  run_id TEXT
);

CREATE TABLE dualwrite.watermarks (
  collection TEXT PRIMARY KEY,
  examined_until TIMESTAMPTZ NOT NULL,
  swept_at TIMESTAMPTZ,
  run_id TEXT NOT NULL,
  updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
COMMENT ON TABLE dualwrite.watermarks IS 'Up to when each collection was examined whole.';

CREATE TABLE dualwrite.open_differences (
  collection TEXT NOT NULL,
  key TEXT NOT NULL,
  path TEXT,
  requires TEXT,
  row_key JSONB,
  verdict TEXT NOT NULL,
  cause TEXT,
  op_id TEXT,
  op_time TIMESTAMPTZ,
  reason TEXT,
  columns TEXT[] NOT NULL DEFAULT '{}',
  first_seen TIMESTAMPTZ NOT NULL,
  last_seen TIMESTAMPTZ NOT NULL,
  run_id TEXT NOT NULL,
  fingerprint TEXT,
  excused_by TEXT,
  excuse_reason TEXT,
  excused_at TIMESTAMPTZ,
  PRIMARY KEY (collection, key),
  CONSTRAINT excuse_has_a_reason CHECK (excused_by IS NULL OR excuse_reason <> '')
);
COMMENT ON TABLE dualwrite.open_differences IS
'Differences found and not yet gone, and those that a person accepted (excused).';

CREATE TABLE dualwrite.repair_journal (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id TEXT NOT NULL,
  collection TEXT NOT NULL,
  key TEXT NOT NULL,
  path TEXT,
  action TEXT NOT NULL CHECK (action IN ('insert', 'update', 'delete')),
  table_name TEXT NOT NULL,
  row_key JSONB NOT NULL,
  row_before JSONB,
  written_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  confirmed_at TIMESTAMPTZ
);
CREATE INDEX repair_journal_unconfirmed ON dualwrite.repair_journal (collection, id) WHERE confirmed_at IS NULL;
CREATE INDEX repair_journal_confirmed_at ON dualwrite.repair_journal (confirmed_at);
COMMENT ON TABLE dualwrite.repair_journal IS
'Every write of ours with the row as it was. Unconfirmed: the document was not read again since; the next run does.';

CREATE TABLE dualwrite.runs (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dag_id TEXT NOT NULL,
  run_id TEXT NOT NULL,
  collection TEXT NOT NULL,
  phase TEXT NOT NULL CHECK (phase IN ('gap', 'verify', 'compare', 'second_look', 'delete', 'write', 're_examine')),
  scope TEXT NOT NULL,
  mode TEXT NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('examined', 'not_examined')),
  window_from TIMESTAMPTZ,
  window_until TIMESTAMPTZ,
  started_at TIMESTAMPTZ NOT NULL,
  seconds DOUBLE PRECISION NOT NULL,
  documents_read BIGINT NOT NULL,
  billed_reads BIGINT NOT NULL,
  examined BIGINT NOT NULL,
  counts JSONB NOT NULL,
  inserted BIGINT NOT NULL,
  updated BIGINT NOT NULL,
  deleted BIGINT NOT NULL,
  verification TEXT,
  recorded_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (dag_id, run_id, collection, phase)
);
CREATE INDEX runs_recorded_at ON dualwrite.runs (recorded_at);
COMMENT ON TABLE dualwrite.runs IS 'One line for each run, collection and phase, with the counts.';

REVOKE ALL ON ALL TABLES IN SCHEMA dualwrite FROM public, anon, authenticated;
