-- What an excuse was given for, why a repaired row was wrong, and which runs nobody watched.

ALTER TABLE dualwrite.open_differences
ADD COLUMN excused_verdict TEXT,
ADD COLUMN excused_finding_reason TEXT;
COMMENT ON COLUMN dualwrite.open_differences.excused_verdict IS
'With excused_finding_reason what the excuse holds for. Null: the first drift that is found at this key.';

-- An excuse of before holds for what was open then. One given in advance of any finding has no key and no path.
UPDATE dualwrite.open_differences
SET excused_verdict = verdict, excused_finding_reason = reason
WHERE excused_by IS NOT NULL AND (path IS NOT NULL OR row_key IS NOT NULL);
UPDATE dualwrite.open_differences
SET verdict = 'in_flight', reason = 'excused_in_advance'
WHERE excused_by IS NOT NULL AND path IS NULL AND row_key IS NULL;
-- Taken back before anything was found: nothing is open there.
DELETE FROM dualwrite.open_differences
WHERE excused_by IS NULL AND path IS NULL AND row_key IS NULL;

ALTER TABLE dualwrite.repair_journal
ADD COLUMN cause TEXT;
COMMENT ON COLUMN dualwrite.repair_journal.cause IS
'Why the row was wrong, from the difference that this write ended. Null while that is open, and for a backfill.';

ALTER TABLE dualwrite.runs
ADD COLUMN unattended BOOLEAN NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN dualwrite.runs.unattended IS 'A schedule began the run, not a person.';
