-- A default privilege of the role (ALTER DEFAULT PRIVILEGES without IN SCHEMA) reaches tables and sequences of every
-- schema, so what the bundle remembers may have been opened as it was made. Nobody but its owner needs it; a role of
-- yours that was granted something by name keeps it.

REVOKE ALL ON SCHEMA dualwrite FROM public, anon, authenticated, service_role;
REVOKE ALL ON ALL TABLES IN SCHEMA dualwrite FROM public, anon, authenticated, service_role;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA dualwrite FROM public, anon, authenticated, service_role;
