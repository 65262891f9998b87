"""`make indexes`: writes firestore.indexes.json, the collection-group indexes that the catalog's queries need: into docs/, or
beside the catalog that DUALWRITE_CATALOG names."""

from __future__ import annotations

import json

from dev.airflow_home import ROOT
from dualwrite import catalog, settings
from dualwrite.engine.scans import scans
from dualwrite.model.declaration import Catalog
from dualwrite.model.windows import LONG_AGO, Window

FILE = ROOT / "docs/firestore.indexes.json"


def indexes(of: Catalog) -> str:
    """The file's text: one override for each queried field. It replaces the field's default indexes, so those are listed again."""
    overrides = []
    wanted = {
        (scan.collection_id, scan.check_field)
        for collection in of
        for scan in scans(collection, Window(LONG_AGO, LONG_AGO))
        if scan.check_field is not None and not scan.top_level
    }
    for collection_id, field in sorted(wanted):
        defaults = [{"order": "ASCENDING"}, {"order": "DESCENDING"}, {"arrayConfig": "CONTAINS"}]
        overrides.append(
            {
                "collectionGroup": collection_id,
                "fieldPath": field,
                "indexes": [
                    *({**default, "queryScope": "COLLECTION"} for default in defaults),
                    {"order": "ASCENDING", "queryScope": "COLLECTION_GROUP"},
                ],
            }
        )
    return json.dumps({"indexes": [], "fieldOverrides": overrides}, indent=2) + "\n"


if __name__ == "__main__":
    file = FILE if settings.named_catalog() is None else catalog.FILE.with_name(FILE.name)
    file.write_text(indexes(catalog.CATALOG))
    print(f"indexes: wrote {file}")
