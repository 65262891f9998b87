"""What tests of `mirror` share: the rows above a document, where no foreign key asks for them."""

from __future__ import annotations

import psycopg

_ABOVE = {
    "posts": "INSERT INTO posts (id, board_id, author_id, author_name, title) VALUES (%s, %s, 'u1', 'n', 't')",
    "comments": "INSERT INTO comments (id, post_id, user_id, content) VALUES (%s, %s, 'u1', 'c')",
    "replies": "INSERT INTO replies (id, comment_id, post_id, user_id, content) VALUES (%s, %s, %s, 'u1', 'c')",
}


def insert_ancestors(connection: psycopg.Connection, path: str) -> None:
    """The rows of the documents above, that tell where a row's document is."""
    segments = path.split("/")
    for at in range(2, len(segments) - 2, 2):
        name, ids = segments[at], segments[1 : at + 2 : 2]
        if name in _ABOVE:
            above = [ids[-1], ids[-2], *([ids[-3]] if name == "replies" else [])]
            connection.execute(_ABOVE[name], above)
