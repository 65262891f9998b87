"""`make indexes`: writes docs/firestore.indexes.json, the collection-group indexes that the catalog's queries need."""

from __future__ import annotations

import json

from dev.airflow_home import ROOT
from dualwrite.catalog import CATALOG
from dualwrite.engine.scans import scans
from dualwrite.model.windows import LONG_AGO, Window

FILE = ROOT / "docs/firestore.indexes.json"


def indexes() -> str:
    """One override a queried field. An entry replaces the field's default indexes, so those are listed again."""
    overrides = []
    wanted = {
        (scan.collection_id, scan.check_field)
        for collection in CATALOG
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
    FILE.write_text(indexes())
    print(f"indexes: wrote {FILE.relative_to(ROOT)}")
