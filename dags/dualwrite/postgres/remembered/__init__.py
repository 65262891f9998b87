"""The bundle's own tables, in the target's schema `dualwrite`: a module for each. The schema is made by
apply_migrations and closed to the API's roles.

Their column `key` holds a label (by which reports and people name a difference); `row_key` holds the row's key.
"""
