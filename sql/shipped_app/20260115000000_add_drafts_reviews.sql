-- The two tables that Phase 1 left out: drafts and reviews.
--
-- Who may do what is said here literally, because Supabase projects differ: one made before 30 October 2026 opens
-- every new table of public to the anon key, a newer one closes it even to the server's role. Both end the same:
-- service_role only. To let the web client in, see sql/optional.

CREATE TABLE drafts (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  board_id TEXT NOT NULL REFERENCES boards (id) ON DELETE CASCADE,
  title TEXT NOT NULL DEFAULT '',
  content TEXT NOT NULL DEFAULT '',
  content_json JSONB,
  saved_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX idx_drafts_user_board ON drafts (user_id, board_id, saved_at DESC);

CREATE TABLE reviews (
  id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
  board_id TEXT NOT NULL REFERENCES boards (id) ON DELETE CASCADE,
  reviewer_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  reviewer_nickname TEXT,
  keep_text TEXT,
  problem_text TEXT,
  try_text TEXT,
  -- A net promoter score is 0 to 10.
  -- squawk-ignore prefer-bigint-over-int
  nps INTEGER,
  will_continue BOOLEAN,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (board_id, reviewer_id)
);

ALTER TABLE drafts ENABLE ROW LEVEL SECURITY;
ALTER TABLE reviews ENABLE ROW LEVEL SECURITY;

REVOKE ALL ON drafts, reviews FROM public, anon, authenticated, service_role;
GRANT SELECT, INSERT, UPDATE, DELETE ON drafts, reviews TO service_role;
