-- OPTIONAL: takes from dualwrite_data the only way in which it can write to the app's log of operations.
--
-- The app's function try_acquire_write_lock writes to write_ops with its owner's rights, and like every function it is open to
-- all roles (PUBLIC) unless somebody closed it. This closes it to all but the API's roles.
--
-- THE RISK: a server of yours that takes the lock under another role is refused from then on (42501), and its dual-writes with
-- it. Name such roles in the GRANT first. Taken back with GRANT EXECUTE ON FUNCTION
-- public.try_acquire_write_lock(TEXT) TO PUBLIC. Run it as the function's owner.

REVOKE EXECUTE ON FUNCTION public.try_acquire_write_lock(TEXT) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.try_acquire_write_lock(TEXT) TO anon, authenticated, service_role;
