"""The documents that rows require: which of them are there and could have a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dualwrite.engine.job import Job
from dualwrite.model.declaration import FieldPath
from dualwrite.model.documents import Answer, Document
from dualwrite.model.mapping import map_document


def required_documents(job: Job, paths: Iterable[str]) -> Mapping[str, Answer]:
    """The documents at these paths, which rows of the job's collection require. None: the document is gone, or doesn't meet
    its collection's condition and so has no row. Has no fields unless a condition needs them."""
    wanted = list(dict.fromkeys(paths))
    above = [job.catalog[name] for name in job.catalog.with_parents([job.collection.name])]
    judged = {path: [c for c in above if c.where is not None and c.has(path)] for path in wanted}
    answers: dict[str, Answer] = dict(job.source.get([path for path in wanted if not judged[path]]))
    fields: list[FieldPath] = list(dict.fromkeys(f for of in judged.values() for c in of for f in c.fields))
    for documents in job.source.get_in_parts([path for path in wanted if judged[path]], fields):
        for path, document in documents.items():
            stands = not isinstance(document, Document) or any(map_document(c, document) for c in above if c.has(path))
            answers[path] = document if stands else None
    return answers
