-- dualwrite.gone_documents: digests of collection and path, with the time that each was last asked for.

-- name: known
-- The documents, of some, that were asked for lately and were gone.
SELECT key FROM dualwrite.gone_documents
WHERE key = ANY(%(keys)s::uuid[]) AND asked_at > now() - %(within)s::interval;

-- name: forget
-- Deletes documents that were not asked for lately.
DELETE FROM dualwrite.gone_documents WHERE asked_at < now() - %(kept)s::interval;

-- name: remember
-- Keeps documents that were just asked for.
INSERT INTO dualwrite.gone_documents (key) SELECT unnest(%(keys)s::uuid[])
ON CONFLICT (key) DO UPDATE SET asked_at = excluded.asked_at;
