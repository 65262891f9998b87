"""Pure: from a row to the paths of the documents that it refers to."""

from __future__ import annotations

from collections.abc import Callable

from dualwrite.model.declaration import Catalog, Collection, Column, DocumentId, Segment
from dualwrite.model.mapping import Row
from dualwrite.model.parents_told import told_path


def parent_path(catalog: Catalog, child: Collection, column: Column) -> Callable[[Row], str]:
    """From a child's row to the path of the document that its `column` refers to.

    The first of these that applies: a Firestore reference has the path; a key of several columns may give the whole path; the
    child's own path may begin with the parent's, or have a document in common with it (the comment that a comment answers, below
    the same post; a board's last post, below the board); otherwise the parent's template has one variable, which is the value.
    If the key doesn't lead back (a uuid v5 of an id), the unconverted id is used in its place.
    """
    index, parent = child.columns.index(column), catalog[column.parent.collection]
    by_key = _by_key(child, column, parent)
    shapes = [(len(template.segments), template.segments[0::2]) for template in parent.templates]
    alone = parent.templates[0]

    def path(row: Row) -> str:
        segments, value = row.path.split("/"), str(row.cells[index])
        for place, told in row.leads:
            if place == index and "/" in told:
                return told
            if place == index and not parent.key_leads_back:
                value = told  # the id from which the key was made
        if by_key is not None:
            return by_key(row)
        if not parent.is_plain:
            return (
                told_path(parent.templates, parent.key[0], value, segments) or ""
            )  # Firestore can't be asked for "", so it never counts as gone
        for length, shape in shapes:
            if len(segments) >= length and segments[length - 1] == value and tuple(segments[:length:2]) == shape:
                return "/".join(segments[:length])
        for length, shape in shapes if len(alone.variables) > 1 else ():
            above = length - 2
            if len(segments) >= above and tuple(segments[:above:2]) == shape[:-1]:
                return "/".join([*segments[:above], shape[-1], value])
        return alone.path({alone.variables[-1]: value})

    return path


def _by_key(child: Collection, column: Column, parent: Collection) -> Callable[[Row], str] | None:
    if not column.beside or not parent.keyed_by_whole_path:
        return None
    template = parent.templates[0]
    held = [
        (key.origin, child.columns.index(child.column(name)))
        for key, name in zip(parent.key, column.beside, strict=True)
    ]
    places = {origin.variable: place for origin, place in held if isinstance(origin, Segment)}
    whole = next((place for origin, place in held if isinstance(origin, DocumentId)), None)

    def path(row: Row) -> str:
        variables = {variable: str(row.cells[place]) for variable, place in places.items()}
        return template.path(variables, None if whole is None else str(row.cells[whole]))

    return path
