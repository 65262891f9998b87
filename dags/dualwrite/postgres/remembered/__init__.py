"""What the bundle remembers, in its own schema `dualwrite` of the target: a module for each table. The schema is made by
apply_migrations and closed to the API's roles.
"""
