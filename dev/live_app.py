"""A simulated app for the demo: writes documents, and their rows with the dual-write helper, and loses some on purpose."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from google.cloud import firestore

from dualwrite import postgres
from dualwrite.dual_write import DualWriter, Outcome


class LiveApp:
    """People who write posts and comments for a while. `losses` counts lost writes, by class of docs/verification.md."""

    def __init__(self, client: firestore.Client, dsn: str, seed: int = 3) -> None:
        self.client = client
        self.writer = DualWriter(lambda: postgres.connect(dsn))
        self.random = random.Random(seed)
        self.written = Counter[str]()
        self.losses = Counter[str]()
        self.users = [d.id for d in client.collection("users").stream()]
        self.boards = [d.id for d in client.collection("boards").stream()]
        self.old_comments = [d.reference.path for d in client.collection_group("comments").stream()]
        self.posts: list[str] = []
        self.comments: list[str] = []

    def close(self) -> None:
        self.writer.close()

    def _ways_to_lose(self) -> list[Callable[[], None]]:
        return [
            self.lose_a_create, self._lose_a_create_after_its_lock, self._lose_an_edit, self._lose_an_edit_of_a_comment,
            self._lose_a_delete, self._lose_a_delete_of_an_old_comment, self._lose_a_waiting_list_entry, self._lose_a_late_block,
        ]  # fmt: skip

    def live(self, stop: threading.Event, loses: threading.Event, every: float, on_loss: Callable[[str], None]) -> None:
        """Writes every few seconds until `stop`. While `loses` is set, one write is lost `every` so many seconds, each of another kind
        than the last; `on_loss` is called with its description."""
        ways = itertools.cycle(self._ways_to_lose())
        self.post()
        next_loss: float | None = None
        while not stop.wait(1 + 2 * self.random.random()):
            self.random.choice((self.post, self._comment, self._comment, self._edit))()
            if not loses.is_set():
                continue
            if next_loss is not None and time.monotonic() >= next_loss:
                before = self.losses.copy()
                next(ways)()
                on_loss(next(iter(self.losses - before)))
                next_loss = time.monotonic() + every
            next_loss = next_loss or time.monotonic() + min(20, every)

    def run(self, seconds: float) -> None:
        """Writes for so long; about every sixth write is lost on its way to Postgres."""
        losses = self._ways_to_lose()
        ends = time.monotonic() + seconds
        self.post()
        while time.monotonic() < ends:
            self.random.choice((self.post, self._comment, self._comment, self._edit))()
            if losses and self.random.random() < 0.2:
                losses.pop(0)()
            time.sleep(self.random.random() * 0.6)
        for lose in losses:
            lose()

    # --- writes --------------------------------------------------------------------------------------------------------

    def _write(
        self, path: str, before: dict[str, Any] | None, after: dict[str, Any] | None, *, row: bool = True
    ) -> None:
        document = self.client.document(path)
        if after is None:
            document.delete()
        else:
            document.set(after)
        if row:
            outcome = self.writer.mirror(path, before, after)
            self.written[outcome] += 1

    def _fields(self) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {
            "title": "오늘의 글", "content": f"<p>{self.random.random()}</p>", "authorId": self.random.choice(self.users),
            "authorName": "민준", "createdAt": now, "updatedAt": now,
        }  # fmt: skip

    def _id(self) -> str:
        return "".join(self.random.choices("abcdefghijkmnopqrstuvwxyz23456789", k=20))

    def post(self, *, row: bool = True) -> str:
        path = f"boards/{self.random.choice(self.boards)}/posts/{self._id()}"
        self._write(path, None, self._fields(), row=row)
        if row:
            self.posts.append(path)
        return path

    def _comment(self, *, row: bool = True) -> str:
        path = f"{self.random.choice(self.posts)}/comments/{self._id()}"
        fields = {
            "content": "좋은 글이에요",
            "userId": self.random.choice(self.users),
            "userName": "서연",
            "createdAt": datetime.now(UTC),
        }
        self._write(path, None, fields, row=row)
        if row:
            self.comments.append(path)
        return path

    def _edit(self, *, row: bool = True) -> None:
        path = self.random.choice(self.posts)
        if not row:
            self.posts.remove(path)  # a later edit would mend it
        before = self.client.document(path).get().to_dict()
        self._write(
            path,
            before,
            {**before, "content": f"<p>{self.random.random()}</p>", "updatedAt": datetime.now(UTC)},
            row=row,
        )

    # --- lost writes ---------------------------------------------------------------------------------------------------

    def lose_a_create(self) -> None:
        self.post(row=False)
        self.losses["create, never attempted"] += 1

    def _lose_a_create_after_its_lock(self) -> None:
        path = self.post(row=False)

        def fails(_: object) -> None:
            raise ConnectionError

        outcome = self.writer.dual_write(
            entity_type="post", operation_type="create", entity_id=path.rsplit("/", 1)[-1], supabase_write=fails
        )
        assert outcome is Outcome.FAILED
        self.losses["create, attempted and failed"] += 1

    def _lose_an_edit(self) -> None:
        self._edit(row=False)
        self.losses["edit of a post"] += 1

    def _lose_an_edit_of_a_comment(self) -> None:
        path = self.old_comments.pop(0)
        while self.client.document(path.rsplit("/", 2)[0]).get().exists is False:
            path = self.old_comments.pop(0)
        self.client.document(path).update({"content": "edited"})
        self.losses["edit of an old comment (no field says so)"] += 1

    def _lose_a_delete(self) -> None:
        path = self._comment()
        self._write(path, {}, None, row=False)
        self.comments.remove(path)
        self.losses["delete of a recent comment"] += 1

    def _lose_a_delete_of_an_old_comment(self) -> None:
        self._write(self.old_comments.pop(), {}, None, row=False)
        self.losses["delete of an old comment"] += 1

    def _lose_a_waiting_list_entry(self) -> None:
        board = self.client.document(f"boards/{self.boards[0]}")
        waiting = (board.get().to_dict() or {}).get("waitingUsersIds") or []
        free = [user for user in reversed(self.users) if user not in waiting] or self.users
        board.update({"waitingUsersIds": firestore.ArrayUnion([free[0]])})
        self.losses["entry of a waiting list"] += 1

    def _lose_a_late_block(self) -> None:
        fields = {"blockedAt": datetime.now(UTC) - timedelta(hours=30)}
        blocker, blocked = self.random.sample(self.users, 2)
        self._write(f"users/{blocker}/blockedUsers/{blocked}", None, fields, row=False)
        self.losses["create, late from an offline phone"] += 1
