-- What bounds the cost of a look: reads that went into proofs, what the tripwire counts, and required documents that are
-- known to be gone.

ALTER TABLE dualwrite.runs
ADD COLUMN proof_reads BIGINT NOT NULL DEFAULT 0;
COMMENT ON COLUMN dualwrite.runs.proof_reads IS
'Names of documents that were read to prove that no document has a row''s key.';

ALTER TABLE dualwrite.count_baselines
ADD COLUMN stray BIGINT,
ADD COLUMN counted_at TIMESTAMPTZ,
ADD COLUMN counted_seconds DOUBLE PRECISION;
COMMENT ON COLUMN dualwrite.count_baselines.stray IS
'Documents of the collection id below another top-level collection. Null: never counted.';
COMMENT ON COLUMN dualwrite.count_baselines.counted_at IS
'When the rows were last counted, and in counted_seconds how long that took: a slow count is made less often.';

-- Unlogged: what a crash of the server empties is asked of Firestore again.
CREATE UNLOGGED TABLE dualwrite.gone_documents (
  key UUID PRIMARY KEY,
  asked_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
COMMENT ON TABLE dualwrite.gone_documents IS
'Digests of documents that others require, that have no row, and that were gone when they were last asked for.';

REVOKE ALL ON dualwrite.gone_documents FROM public, anon, authenticated, service_role;
