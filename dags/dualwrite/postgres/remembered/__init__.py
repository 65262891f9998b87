"""The bundle's own tables, in the target's schema `dualwrite`: a module for each. The schema is made by
apply_migrations and closed to the API's roles.

In the open differences and the journal, `key` holds a label (by which reports and people name a difference) and `row_key` the
row's key.
"""
