"""Simulated clients that dual-write in the app's order and fail in either half, and an independent look at what is left.

A client's history is made from a seed. The comparison knows nothing of the engine: it reads both databases and says what
should be where.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

COLLECTIONS = ["users", "boards", "posts", "comments", "replies", "likes"]
"""What the clients write to, and what that needs."""


def milliseconds(moment: datetime) -> datetime:
    """What a JavaScript date sends of it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@dataclass
class Client:
    """One client's history: document, lock, row. With `failing`, a write may be lost before its lock or after it.

    Not `cascading`: it deletes nothing that has something below it. Firestore keeps what is below and Postgres
    doesn't, so a post that is deleted and created again really lacks the rows of its old comments.
    """

    firestore: Any
    dsn: str
    seed: int
    failing: float
    steps: int = 6
    pause: float = 0.03
    cascading: bool = True
    in_windows: bool = False
    """It does only what a window of a reconciliation sees, so that a run needs no sweep to find what it lost."""
    random: random.Random = field(init=False)
    comments: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.post = f"p{self.seed}"
        self.path = f"boards/b1/posts/{self.post}"

    def run(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as self.connection:
            actions = [self.write_post, self.write_comment, self.write_like, self.delete_like]
            if self.in_windows:
                actions = [self.write_post, self.write_new_comment, self.write_like, self.delete_like]
            elif self.cascading:
                actions += [
                    self.write_post,
                    self.write_comment,
                    self.write_reply,
                    self.delete_post,
                    self.delete_comment,
                ]
            else:
                self.write_post()
            for _ in range(self.steps):
                self.random.choice(actions)()
                time.sleep(self.random.random() * self.pause)
            if self.in_windows:  # by chance it may have made no post: what it wrote below that would be orphans
                self.write_post()

    def then_row(self, op: str, statement: str, *parameters) -> None:
        """The second half. A client that fails leaves what it had done; one that is refused by Postgres goes on."""
        if self.random.random() < self.failing:
            return
        time.sleep(self.random.random() * self.pause)
        self.connection.execute("SELECT try_acquire_write_lock(%s)", (f"{op}:{time.time_ns() // 1_000_000}",))
        if self.random.random() < self.failing:
            return
        try:
            self.connection.execute(statement, parameters)
        except psycopg.IntegrityError:
            return

    def write_post(self) -> None:
        """Create, edit or re-create, whatever the document was."""
        now, title = datetime.now(UTC), f"t{self.random.random()}"
        document = self.firestore.document(self.path)
        before = document.get()
        if before.exists:
            document.update({"title": title, "updatedAt": now})
            self.then_row(
                f"post:update:{self.post}",
                "UPDATE posts SET title = %s, updated_at = %s WHERE id = %s",
                title,
                milliseconds(now),
                self.post,
            )
            return
        document.set(
            {"title": title, "content": "c", "authorId": "u1", "authorName": "n", "createdAt": now, "updatedAt": now}
        )
        self.then_row(
            f"post:create:{self.post}",
            "INSERT INTO posts (id, board_id, author_id, author_name, title, content, created_at, updated_at) "
            "VALUES (%s, 'b1', 'u1', 'n', %s, 'c', %s, %s)",
            self.post,
            title,
            milliseconds(now),
            milliseconds(now),
        )

    def write_new_comment(self) -> None:
        self.comments += 1
        document = self.firestore.document(f"{self.path}/comments/{self.post}n{self.comments}")
        self._write_text(document, "comment", "comments", document.id, "post_id", self.post)

    def delete_post(self) -> None:
        self.firestore.document(self.path).delete()
        self.then_row(f"post:delete:{self.post}", "DELETE FROM posts WHERE id = %s", self.post)

    def write_comment(self) -> None:
        """An edit of a comment sends content alone, and moves no check field."""
        comment = f"{self.post}c{self.random.randrange(2)}"
        document = self.firestore.document(f"{self.path}/comments/{comment}")
        self._write_text(document, "comment", "comments", comment, "post_id", self.post)

    def write_reply(self) -> None:
        comment = f"{self.post}c{self.random.randrange(2)}"
        reply = f"{comment}r"
        document = self.firestore.document(f"{self.path}/comments/{comment}/replies/{reply}")
        self._write_text(document, "reply", "replies", reply, "comment_id", comment)

    def _write_text(self, document, entity: str, table: str, name: str, parent: str, parent_id: str) -> None:
        now, content = datetime.now(UTC), f"c{self.random.random()}"
        if document.get().exists:
            document.update({"content": content})
            self.then_row(f"{entity}:update:{name}", f"UPDATE {table} SET content = %s WHERE id = %s", content, name)
            return
        document.set({"content": content, "userId": "u1", "userName": "n", "createdAt": now})
        extra, value = (", post_id", [self.post]) if table == "replies" else ("", [])
        self.then_row(
            f"{entity}:create:{name}",
            f"INSERT INTO {table} (id, user_id, user_name, content, created_at, {parent}{extra}) "
            f"VALUES (%s, 'u1', 'n', %s, %s, %s{', %s' * len(value)})",
            name,
            content,
            milliseconds(now),
            parent_id,
            *value,
        )

    def delete_comment(self) -> None:
        comment = f"{self.post}c{self.random.randrange(2)}"
        self.firestore.document(f"{self.path}/comments/{comment}").delete()
        self.then_row(f"comment:delete:{comment}", "DELETE FROM comments WHERE id = %s", comment)

    def write_like(self) -> None:
        now, like = datetime.now(UTC), f"{self.post}l"
        document = self.firestore.document(f"{self.path}/likes/{like}")
        if not document.get().exists:
            document.set({"userId": "u2", "userName": "n", "createdAt": now})
            self.then_row(
                f"like:create:{like}",
                "INSERT INTO likes (id, post_id, user_id, user_name, created_at) VALUES (%s, %s, 'u2', 'n', %s)",
                like,
                self.post,
                milliseconds(now),
            )

    def delete_like(self) -> None:
        like = f"{self.post}l"
        self.firestore.document(f"{self.path}/likes/{like}").delete()
        self.then_row(f"like:delete:{like}", "DELETE FROM likes WHERE id = %s", like)


def differences(firestore, dsn: str) -> list[str]:
    """An independent comparison: what the documents say should be there, against what is."""
    expected: dict[str, dict[str, tuple]] = {"posts": {}, "comments": {}, "replies": {}, "likes": {}}
    for document in firestore.collection_group("posts").stream():
        d = document.to_dict()
        expected["posts"][document.id] = (d["title"], milliseconds(d["createdAt"]), milliseconds(d["updatedAt"]))
    for document in firestore.collection_group("comments").stream():
        post = document.reference.path.split("/")[3]
        if post in expected["posts"]:
            expected["comments"][document.id] = (post, document.get("content"), milliseconds(document.get("createdAt")))
    for document in firestore.collection_group("replies").stream():
        comment = document.reference.path.split("/")[5]
        if comment in expected["comments"]:
            expected["replies"][document.id] = (
                comment,
                document.get("content"),
                milliseconds(document.get("createdAt")),
            )
    for document in firestore.collection_group("likes").stream():
        post = document.reference.path.split("/")[3]
        if post in expected["posts"]:
            expected["likes"][document.id] = (post, milliseconds(document.get("createdAt")))
    queries = {
        "posts": "SELECT id, title, date_trunc('milliseconds', created_at), date_trunc('milliseconds', updated_at) FROM posts",
        "comments": "SELECT id, post_id, content, date_trunc('milliseconds', created_at) FROM comments",
        "replies": "SELECT id, comment_id, content, date_trunc('milliseconds', created_at) FROM replies",
        "likes": "SELECT id, post_id, date_trunc('milliseconds', created_at) FROM likes",
    }
    found: list[str] = []
    with psycopg.connect(dsn) as connection:
        for table, query in queries.items():
            rows = {row[0]: tuple(row[1:]) for row in connection.execute(query)}
            found += [
                f"{table}/{name}: row {name in rows}, document {name in expected[table]}"
                for name in sorted(set(rows) | set(expected[table]))
                if rows.get(name) != expected[table].get(name)
            ]
    return found


def beside(clients: list[Client], reconcile) -> int:
    """Runs `reconcile` again and again while the clients live their histories; returns how often."""
    done = threading.Event()
    rounds = 0
    with ThreadPoolExecutor(max_workers=8) as threads:
        futures = [threads.submit(client.run) for client in clients]
        threading.Thread(target=lambda: ([f.exception() for f in futures], done.set()), daemon=True).start()
        while not done.is_set():
            reconcile()
            rounds += 1
        for future in futures:
            future.result()
    return rounds
