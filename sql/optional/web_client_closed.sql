-- Reverts web_client_anon.sql. The web client's writes to drafts and reviews are then refused (42501).

DROP POLICY IF EXISTS dual_write_web_client ON public.drafts;
DROP POLICY IF EXISTS dual_write_web_client ON public.reviews;
REVOKE ALL ON public.drafts, public.reviews FROM anon;
