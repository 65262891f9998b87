"""The documents that rows require, by path: which of them are there, and could have a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dualwrite.engine.job import Job
from dualwrite.model.declaration import FieldPath
from dualwrite.model.documents import Answer, Document
from dualwrite.model.mapping import map_document


def required_documents(job: Job, paths: Iterable[str]) -> Mapping[str, Answer]:
    """The documents at these paths, which rows of the job's collection require. None: it is gone, or exists and doesn't hold the
    condition of its own collection, so that it has no row either. Names and times alone, unless a condition is to be judged."""
    wanted = list(dict.fromkeys(paths))
    above = [job.catalog[name] for name in job.catalog.with_parents([job.collection.name])]
    judged = {path: [c for c in above if c.where is not None and c.has(path)] for path in wanted}
    found: dict[str, Answer] = dict(job.source.get([path for path in wanted if not judged[path]]))
    fields: list[FieldPath] = list(dict.fromkeys(f for of in judged.values() for c in of for f in c.fields))
    for documents in job.source.get_in_parts([path for path in wanted if judged[path]], fields):
        for path, document in documents.items():
            stands = not isinstance(document, Document) or any(map_document(c, document) for c in above if c.has(path))
            found[path] = document if stands else None
    return found
