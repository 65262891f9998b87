-- What counts are compared with between two sweeps: documents minus rows of each slice of time.

CREATE TABLE dualwrite.count_baselines (
  collection TEXT PRIMARY KEY,
  field TEXT NOT NULL,
  edges TIMESTAMPTZ[] NOT NULL,
  differences BIGINT[] NOT NULL,
  untimed BIGINT NOT NULL,
  sweep_called_at TIMESTAMPTZ,
  sweep_due BOOLEAN NOT NULL DEFAULT FALSE,
  run_id TEXT NOT NULL,
  updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  CONSTRAINT one_difference_a_slice CHECK (cardinality(edges) = cardinality(differences))
);
COMMENT ON TABLE dualwrite.count_baselines IS
'Documents minus rows of each collection, by slices of the time of creation, counted before its last complete comparison.';

REVOKE ALL ON dualwrite.count_baselines FROM public, anon, authenticated, service_role;
