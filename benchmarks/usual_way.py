"""The code that people write without this bundle: `stream()`, `to_dict()`, batched upserts. Compares and confirms nothing."""

from __future__ import annotations

from itertools import islice

import psycopg
from google.cloud import firestore

from benchmarks.stack import PROJECT, Stack

_UPSERT = (
    "INSERT INTO comments (id, post_id, user_id, user_name, user_profile_image, content, created_at, updated_at) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET user_name = excluded.user_name, "
    "user_profile_image = excluded.user_profile_image, content = excluded.content"
)


def upsert(stack: Stack) -> int:
    """Writes every comment into the target, 1,000 at a time. Returns their number."""
    done = 0
    client = firestore.Client(project=PROJECT)
    with psycopg.connect(stack.uri) as connection, connection.cursor() as cursor:
        stream = client.collection_group("comments").stream()
        while batch := list(islice(stream, 1000)):
            rows = []
            for snapshot in batch:
                fields = snapshot.to_dict()
                post = snapshot.reference.parent.parent.id
                rows.append(
                    (
                        snapshot.id,
                        post,
                        fields["userId"],
                        fields.get("userName") or "",
                        fields.get("userProfileImage"),
                        fields["content"],
                        fields["createdAt"],
                        fields["createdAt"],
                    )
                )
            cursor.executemany(_UPSERT, rows)
            connection.commit()
            done += len(rows)
    client.close()
    return done
