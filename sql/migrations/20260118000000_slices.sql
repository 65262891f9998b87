-- What the slices of a large collection remember of one run: a line each, and the keys that they saw.

ALTER TABLE dualwrite.runs
ADD COLUMN slice BIGINT NOT NULL DEFAULT 0;
COMMENT ON COLUMN dualwrite.runs.slice IS
'Which slice of a collection that several tasks examined; 0: the collection, or the rest of it.';
CREATE UNIQUE INDEX runs_one_line_a_slice ON dualwrite.runs (dag_id, run_id, collection, phase, slice);
-- The index above takes its place.
ALTER TABLE dualwrite.runs
DROP CONSTRAINT runs_dag_id_run_id_collection_phase_key; -- squawk-ignore ban-drop-constraint

-- Both unlogged: they outlive no run, and a crash of the server empties both alike, so that a run whose looks are gone
-- knows that the keys are gone too.
CREATE UNLOGGED TABLE dualwrite.looks (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  dag_id TEXT NOT NULL,
  run_id TEXT NOT NULL,
  collection TEXT NOT NULL,
  begun_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
COMMENT ON TABLE dualwrite.looks IS 'Tries of slices whose keys are in seen_keys, until their run is over.';

CREATE UNLOGGED TABLE dualwrite.seen_keys (
  look BIGINT NOT NULL,
  key UUID NOT NULL
);
-- Not unique: a natural key may be shared by documents of two slices.
CREATE INDEX seen_keys_key ON dualwrite.seen_keys (key, look);
COMMENT ON TABLE dualwrite.seen_keys IS
'Digests of the keys that a slice saw in documents: a row whose key no slice saw is examined by itself.';

REVOKE ALL ON dualwrite.looks, dualwrite.seen_keys FROM public, anon, authenticated, service_role;
REVOKE ALL ON SEQUENCE dualwrite.looks_id_seq FROM public, anon, authenticated, service_role;
