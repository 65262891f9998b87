-- squawk-ignore-file ban-concurrent-index-creation-in-transaction
-- OPTIONAL: indexes for the side of a reconciliation that looks at recently written rows (every 15 minutes, one query for
-- each table: created_at or updated_at lies in the window). Without them each run reads each table whole.
--
-- WORTH IT from some 100,000 rows a table on; below, reading it all is quick enough. Measured on 500,000 comments, 237 MB,
-- all in memory, an hour's window: 433 ms without, 0.6 ms with both indexes of that table.
--
-- WHAT THEY COST, on the same table: 26 bytes a row for each index (13 MB), and a seventh of the speed of inserts (10,200
-- instead of 11,800 rows a second). And for each update that moves updated_at: it is no longer "heap-only", so it writes
-- to every index of its row. Where the app moves a post's updated_at with its counters, that is one for each like and
-- comment; leave posts_updated_at out then, and posts are read whole as before.
--
-- HOW: psql -f this file, outside a transaction, at a quiet hour. CONCURRENTLY blocks no writer, but it waits for every
-- transaction that is open. One that was interrupted leaves an invalid index: DROP INDEX CONCURRENTLY it, run it again.
-- TAKEN BACK with DROP INDEX CONCURRENTLY.

CREATE INDEX CONCURRENTLY IF NOT EXISTS posts_created_at ON public.posts (created_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS posts_updated_at ON public.posts (updated_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS comments_created_at ON public.comments (created_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS comments_updated_at ON public.comments (updated_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS replies_created_at ON public.replies (created_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS replies_updated_at ON public.replies (updated_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS likes_created_at ON public.likes (created_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS reactions_created_at ON public.reactions (created_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS notifications_created_at ON public.notifications (created_at);
