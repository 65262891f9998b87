-- What an undo needs of the journal, and who intervened: repairs, excuses, undos, approvals, migrations.

ALTER TABLE dualwrite.repair_journal
ADD COLUMN row_xmin TEXT,
ADD COLUMN xmin_before TEXT,
ADD COLUMN undoes BIGINT;
COMMENT ON COLUMN dualwrite.repair_journal.row_xmin IS
'The version (xmin) of the row that was written. Null: this line''s own xmin, or it was confirmed before this was kept.';
COMMENT ON COLUMN dualwrite.repair_journal.xmin_before IS
'The version of the row that was replaced or deleted.';
COMMENT ON COLUMN dualwrite.repair_journal.undoes IS
'The line of the last write that this one takes back: it follows the journal, not a document, and is confirmed at once.';
CREATE INDEX repair_journal_run ON dualwrite.repair_journal (run_id, collection, id);
CREATE INDEX repair_journal_undoes ON dualwrite.repair_journal (undoes) WHERE undoes IS NOT NULL;

CREATE TABLE dualwrite.interventions (
  dag_id TEXT NOT NULL,
  run_id TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('repair', 'backfill', 'excuse', 'unexcuse', 'undo', 'approval', 'rejection', 'migration')),
  person TEXT NOT NULL,
  at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  reason TEXT,
  numbers JSONB NOT NULL DEFAULT '{}',
  PRIMARY KEY (dag_id, run_id, kind)
);
CREATE INDEX interventions_at ON dualwrite.interventions (at);
COMMENT ON TABLE dualwrite.interventions IS
'Who made a run write, accept or take back something, as Airflow names them, and what became of it: numbers by collection.';

REVOKE ALL ON dualwrite.interventions FROM public, anon, authenticated, service_role;
