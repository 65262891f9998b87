"""The tests use the shipped catalog and catalogs of their own, whatever the environment that they are started in names."""

import os

for _name in ("DUALWRITE_CATALOG", "DUALWRITE_MIGRATIONS"):
    os.environ.pop(_name, None)
