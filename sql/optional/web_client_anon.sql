-- OPTIONAL, off by default: lets the web client write drafts and reviews with the anon key.
--
-- THE RISK, in plain words: people sign in with Firebase, not with Supabase Auth, so the database can't tell them
-- apart (auth.uid() is null). Whoever holds the anon key, and it is in every browser that opens the app, can read,
-- change and delete ALL drafts and reviews of everyone. An upsert needs SELECT besides INSERT and UPDATE, so reading
-- can't be left out.
--
-- Choose it with the param web_client = anon; web_client_closed.sql reverts it.

GRANT SELECT, INSERT, UPDATE, DELETE ON public.drafts, public.reviews TO anon;

DROP POLICY IF EXISTS dual_write_web_client ON public.drafts;
CREATE POLICY dual_write_web_client ON public.drafts TO anon USING (true) WITH CHECK (true);

DROP POLICY IF EXISTS dual_write_web_client ON public.reviews;
CREATE POLICY dual_write_web_client ON public.reviews TO anon USING (true) WITH CHECK (true);
