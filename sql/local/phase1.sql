-- The tables that production has already (Phase 1 of the move), for the local stack and the tests only.
-- Never apply this to a real project. Grants are those of a Supabase project made before 30 October 2026.

CREATE TABLE boards (
  id TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  description TEXT,
  first_day TIMESTAMPTZ,
  last_day TIMESTAMPTZ,
  cohort INTEGER,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE TABLE users (
  id TEXT PRIMARY KEY,
  real_name TEXT,
  nickname TEXT,
  email TEXT,
  profile_photo_url TEXT,
  bio TEXT,
  phone_number TEXT,
  referrer TEXT,
  recovery_status TEXT CHECK (recovery_status IN ('none', 'eligible', 'partial', 'success')),
  timezone TEXT,
  known_buddy_uid TEXT,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE TABLE user_board_permissions (
  id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  board_id TEXT NOT NULL REFERENCES boards (id) ON DELETE CASCADE,
  permission TEXT NOT NULL CHECK (permission IN ('read', 'write')),
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (user_id, board_id)
);

CREATE TABLE board_waiting_users (
  id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
  board_id TEXT NOT NULL REFERENCES boards (id) ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (board_id, user_id)
);

CREATE TABLE posts (
  id TEXT PRIMARY KEY,
  board_id TEXT NOT NULL REFERENCES boards (id) ON DELETE CASCADE,
  author_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  author_name TEXT NOT NULL,
  title TEXT NOT NULL,
  content TEXT NOT NULL DEFAULT '',
  content_json JSONB,
  thumbnail_image_url TEXT,
  visibility TEXT DEFAULT 'public' CHECK (visibility IN ('public', 'private')),
  count_of_comments INTEGER NOT NULL DEFAULT 0,
  count_of_replies INTEGER NOT NULL DEFAULT 0,
  count_of_likes INTEGER NOT NULL DEFAULT 0,
  engagement_score NUMERIC NOT NULL DEFAULT 0,
  week_days_from_first_day INTEGER,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE TABLE comments (
  id TEXT PRIMARY KEY,
  post_id TEXT NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  user_name TEXT NOT NULL DEFAULT '',
  user_profile_image TEXT,
  content TEXT NOT NULL,
  count_of_replies INTEGER NOT NULL DEFAULT 0,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE TABLE replies (
  id TEXT PRIMARY KEY,
  comment_id TEXT NOT NULL REFERENCES comments (id) ON DELETE CASCADE,
  post_id TEXT NOT NULL,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  user_name TEXT NOT NULL DEFAULT '',
  user_profile_image TEXT,
  content TEXT NOT NULL,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);

CREATE TABLE likes (
  id TEXT PRIMARY KEY,
  post_id TEXT NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  user_name TEXT NOT NULL DEFAULT '',
  user_profile_image TEXT,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (post_id, user_id)
);

CREATE TABLE reactions (
  id TEXT PRIMARY KEY,
  comment_id TEXT REFERENCES comments (id) ON DELETE CASCADE,
  reply_id TEXT REFERENCES replies (id) ON DELETE CASCADE,
  user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  reaction_type TEXT NOT NULL,
  user_name TEXT NOT NULL DEFAULT '',
  user_profile_image TEXT,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  CHECK ((comment_id IS NULL) <> (reply_id IS NULL))
);
CREATE UNIQUE INDEX reactions_comment_user ON reactions (comment_id, user_id) WHERE comment_id IS NOT NULL;
CREATE UNIQUE INDEX reactions_reply_user ON reactions (reply_id, user_id) WHERE reply_id IS NOT NULL;

CREATE TABLE blocks (
  id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
  blocker_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  blocked_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  UNIQUE (blocker_id, blocked_id)
);

CREATE TABLE notifications (
  id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
  recipient_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  type TEXT NOT NULL CHECK (type IN (
    'comment_on_post', 'reply_on_comment', 'reply_on_post', 'reaction_on_comment', 'reaction_on_reply', 'like_on_post'
  )),
  actor_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  actor_profile_image TEXT,
  board_id TEXT NOT NULL,
  post_id TEXT NOT NULL,
  comment_id TEXT NOT NULL DEFAULT '',
  reply_id TEXT NOT NULL DEFAULT '',
  reaction_id TEXT,
  like_id TEXT,
  message TEXT NOT NULL,
  read BOOLEAN NOT NULL DEFAULT FALSE,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE UNIQUE INDEX notifications_idempotency
ON notifications (recipient_id, type, post_id, comment_id, reply_id, actor_id);

CREATE INDEX idx_posts_board ON posts (board_id, created_at DESC);
CREATE INDEX idx_posts_author ON posts (author_id);
CREATE INDEX idx_comments_post ON comments (post_id, created_at);
CREATE INDEX idx_comments_user ON comments (user_id);
CREATE INDEX idx_replies_comment ON replies (comment_id, created_at);
CREATE INDEX idx_replies_user ON replies (user_id);

CREATE TABLE write_ops (
  op_id TEXT PRIMARY KEY,
  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW()
);
CREATE INDEX idx_write_ops_created ON write_ops (created_at);

CREATE FUNCTION try_acquire_write_lock(p_op_id TEXT) RETURNS BOOLEAN
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
  INSERT INTO write_ops (op_id) VALUES (p_op_id);
  RETURN TRUE;
EXCEPTION WHEN unique_violation THEN
  RETURN FALSE;
END;
$$;

-- Row-level security is on, with policies that let the app's anon key in during the move.
DO $$
DECLARE
  t TEXT;
BEGIN
  FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY app ON public.%I TO anon, authenticated USING (true) WITH CHECK (true)', t);
    EXECUTE format('GRANT ALL ON public.%I TO anon, authenticated, service_role', t);
  END LOOP;
END $$;
