"""The bundle's own tables, in the target's schema `dualwrite`: a module for each. The schema is made by
apply_migrations and closed to the API's roles.
"""
