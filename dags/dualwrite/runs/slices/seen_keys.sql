-- dualwrite.looks, a line for each attempt of a slice, and dualwrite.seen_keys, the digests that it saw. An attempt's line is
-- there before its keys are. The statement that finds the rows which no slice saw is composed.

-- name: begin
-- Begins an attempt. Its number is ours, not the column's: that would begin again after a crash of the server.
INSERT INTO dualwrite.looks (id, dag_id, run_id, collection) OVERRIDING SYSTEM VALUE
VALUES (%(look)s, %(dag)s, %(run)s, %(collection)s);

-- name: copy_keys
-- Takes int8 and uuid.
COPY dualwrite.seen_keys (look, key) FROM STDIN (FORMAT BINARY);

-- name: seen
-- Those of some digests that one of some attempts saw.
SELECT DISTINCT key FROM dualwrite.seen_keys WHERE key = ANY(%(keys)s) AND look = ANY(%(looks)s);

-- name: looks_there
-- How many of some attempts are there.
SELECT count(*) FROM dualwrite.looks WHERE id = ANY(%(looks)s);

-- name: any_to_forget
-- A line if an attempt has ended (see `forget_looks`), or keys are there without any attempt. Takes no lock.
SELECT 1
WHERE EXISTS (
  SELECT FROM dualwrite.looks
  WHERE (dag_id = %(dag)s AND (%(but)s::text IS NULL OR run_id <> %(but)s)) OR begun_at < now() - %(longest)s::interval
) OR (EXISTS (SELECT FROM dualwrite.seen_keys) AND NOT EXISTS (SELECT FROM dualwrite.looks));

-- name: lock_looks
-- Nobody begins an attempt until the transaction ends.
LOCK TABLE dualwrite.looks IN SHARE ROW EXCLUSIVE MODE;

-- name: forget_looks
-- Deletes attempts that have ended: those of a DAG's runs, apart from one run, and those of any DAG that are older than a run lives.
DELETE FROM dualwrite.looks
WHERE (dag_id = %(dag)s AND (%(but)s::text IS NULL OR run_id <> %(but)s)) OR begun_at < now() - %(longest)s::interval;

-- name: any_look
-- A line if any attempt is there.
SELECT 1 FROM dualwrite.looks LIMIT 1;

-- name: any_key
-- A line if any key is there.
SELECT 1 FROM dualwrite.seen_keys LIMIT 1;

-- name: forget_all_keys
-- Deletes all keys, if no attempt is left.
TRUNCATE dualwrite.seen_keys;

-- name: forget_keys
-- Deletes keys without an attempt, at most so many: a statement may take two minutes.
DELETE FROM dualwrite.seen_keys WHERE ctid = ANY(ARRAY(
  SELECT s.ctid FROM dualwrite.seen_keys s
  WHERE NOT EXISTS (SELECT FROM dualwrite.looks l WHERE l.id = s.look)
  LIMIT %(limit)s
));
