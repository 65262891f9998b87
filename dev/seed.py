"""Worlds to work on: documents in the emulator, and the rows that the first export left in Postgres.

It knows nothing of the engine's catalog or mapping: rows are written here as the export wrote them, and each document comes
with the verdict that it must get. So a world is also an oracle for the tests.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from google.cloud import firestore
from psycopg import sql
from psycopg.types.json import Jsonb

EXPORT = datetime(2026, 1, 15, 21, 52, tzinfo=UTC)
MARGIN = timedelta(hours=24)

_NAMES = ("김민준", "이서연", "박도윤", "최지우", "정하준", "강서현", "조은우", "윤채원", "임지호", "한소율")
_WORDS = (
    "오늘은",
    "글을",
    "쓰는",
    "연습을",
    "했다",
    "매일",
    "조금씩",
    "나아가는",
    "기분이",
    "좋다",
    "비가",
    "내려서",
    "산책을",
    "못했다",
)
_EMOJI = ("👍", "❤️", "🎉", "😂", "🔥")
_TYPES = ("comment_on_post", "reply_on_comment", "reply_on_post", "reaction_on_comment", "like_on_post")
_ORDER = (
    "boards", "users", "user_board_permissions", "board_waiting_users", "posts", "comments", "replies", "likes",
    "reactions", "blocks", "drafts", "reviews", "notifications",
)  # fmt: skip


def milliseconds(moment: datetime) -> datetime:
    """A time cut to milliseconds, as the export wrote it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@dataclass
class World:
    """Documents, rows, and the verdict each document must get: in the gap's window, and over all documents."""

    random: random.Random
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    in_window: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    over_all: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    strays: Counter[str] = field(default_factory=Counter)

    # --- pieces ---------------------------------------------------------------------------------------------------

    def id(self) -> str:
        return "".join(self.random.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789", k=20))

    def html(self, sentences: int = 3) -> str:
        return "".join(
            "<p>" + " ".join(self.random.choices(_WORDS, k=self.random.randint(4, 9))) + "</p>"
            for _ in range(sentences)
        )

    def name(self) -> str:
        return self.random.choice(_NAMES)

    def moment(self, *, after: bool) -> datetime:
        """In the gap, or well before its margin. Microseconds, as the source has them."""
        base = EXPORT + timedelta(minutes=5) if after else EXPORT - timedelta(days=90)
        span = timedelta(days=20) if after else timedelta(days=85)
        return base + timedelta(microseconds=self.random.randrange(int(span.total_seconds()) * 1_000_000))

    def put(
        self,
        collection: str,
        path: str,
        fields: dict[str, Any],
        verdict: str,
        *,
        windowed: bool,
        row: dict[str, Any] | None = None,
    ) -> None:
        """A document, its row if the export made one, and its verdict. `windowed`: whether the gap's window shows it."""
        self.documents.setdefault(path, {}).update(fields)
        self.over_all[collection][verdict] += 1
        if windowed:
            self.in_window[collection][verdict] += 1
        if row is not None:
            self.rows[collection].append(row)

    # --- collections ----------------------------------------------------------------------------------------------

    def board(self, *, after: bool = False, cohort: int = 1) -> str:
        board, created = self.id(), self.moment(after=after)
        fields: dict[str, Any] = {
            "title": f"매일 글쓰기 {cohort}기", "description": self.html(1), "firstDay": created, "lastDay": created + timedelta(days=28),
            "cohort": cohort, "createdAt": created, "waitingUsersIds": [],
        }  # fmt: skip
        row = {
            "id": board, "title": fields["title"], "description": fields["description"], "first_day": milliseconds(created),
            "last_day": milliseconds(fields["lastDay"]), "cohort": cohort, "created_at": milliseconds(created),
            "updated_at": milliseconds(created),
        }  # fmt: skip
        self.put(
            "boards",
            f"boards/{board}",
            fields,
            "missing" if after else "matching",
            windowed=True,
            row=None if after else row,
        )
        return board

    def user(self, *, after: bool = False, created_at: bool = True, boards: dict[str, str] | None = None) -> str:
        user, moment = self.id() + "xyz12345", self.moment(after=after)
        name = self.name()
        fields: dict[str, Any] = {
            "realName": name, "nickname": name[1:], "email": f"{user.lower()}@example.com", "profilePhotoURL": None, "bio": self.html(1),
            "phoneNumber": "010-0000-0000", "recoveryStatus": "none", "profile": {"timezone": "Asia/Seoul"},
            "knownBuddy": {"uid": "somebody"}, "boardPermissions": boards or {}, "updatedAt": moment,
        }  # fmt: skip
        if created_at:
            fields["createdAt"] = moment
        row = {
            "id": user, "real_name": name, "nickname": name[1:], "email": fields["email"], "profile_photo_url": None, "bio": fields["bio"],
            "phone_number": fields["phoneNumber"], "referrer": None, "recovery_status": "none", "timezone": "Asia/Seoul",
            "known_buddy_uid": "somebody", "created_at": milliseconds(moment), "updated_at": milliseconds(moment),
        }  # fmt: skip
        self.put(
            "users",
            f"users/{user}",
            fields,
            "missing" if after else "matching",
            windowed=after,
            row=None if after else row,
        )
        for board, permission in (boards or {}).items():
            verdict = "missing" if after else "matching"
            self.over_all["user_board_permissions"][verdict] += 1
            if after:
                self.in_window["user_board_permissions"][verdict] += 1
            else:
                self.rows["user_board_permissions"].append(
                    {"user_id": user, "board_id": board, "permission": permission}
                )
        return user

    def post(self, board: str, author: str, *, after: bool = False, verdict: str | None = None, **changes: Any) -> str:
        post, moment, name = self.id(), self.moment(after=after), self.name()
        content = self.html(5)
        fields: dict[str, Any] = {
            "title": "오늘의 글", "content": content, "contentJson": {"type": "doc", "content": [{"type": "paragraph", "level": 1}]},
            "authorId": author, "authorName": name, "countOfComments": 2, "countOfReplies": 0, "countOfLikes": 1,
            "engagementScore": 3.5, "weekDaysFromFirstDay": 3, "createdAt": moment, **changes,
        }  # fmt: skip
        row = {
            "id": post, "board_id": board, "author_id": author, "author_name": name, "title": "오늘의 글", "content": content,
            "content_json": Jsonb(fields["contentJson"]), "visibility": fields.get("visibility", "public"), "count_of_comments": 1,
            "count_of_likes": 1, "engagement_score": 3.5, "week_days_from_first_day": 3, "created_at": milliseconds(moment),
            "updated_at": milliseconds(fields.get("updatedAt", moment)),
        }  # fmt: skip
        verdict = verdict or ("missing" if after else "matching")
        self.put("posts", f"boards/{board}/posts/{post}", fields, verdict, windowed=after, row=None if after else row)
        return post

    def stale_post(self, board: str, author: str) -> str:
        """Exported, then edited in the gap: the edit moved updatedAt."""
        post = self.post(board, author, verdict="stale")
        path = f"boards/{board}/posts/{post}"
        self.documents[path].update({"content": self.html(6), "updatedAt": self.moment(after=True)})
        self.in_window["posts"]["stale"] += 1
        return post

    def _written(self, user: str, moment: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fields and columns that comments, replies and likes share."""
        name = self.name()
        return (
            {"userId": user, "userName": name, "userProfileImage": None, "createdAt": moment},
            {"user_id": user, "user_name": name, "user_profile_image": None, "created_at": milliseconds(moment)},
        )

    def comment(
        self, post_path: str, user: str, *, after: bool = False, verdict: str | None = None, **changes: Any
    ) -> str:
        comment, moment, content = self.id(), self.moment(after=after), self.html(1)
        fields, row = self._written(user, moment)
        row |= {
            "id": comment,
            "post_id": post_path.rsplit("/", maxsplit=1)[-1],
            "content": content,
            "updated_at": milliseconds(moment),
        }
        verdict = verdict or ("missing" if after else "matching")
        path = f"{post_path}/comments/{comment}"
        self.put(
            "comments",
            path,
            {**fields, "content": content, **changes},
            verdict,
            windowed=after,
            row=None if after else row,
        )
        return path

    def reply(self, comment_path: str, user: str, *, after: bool = False, verdict: str | None = None) -> str:
        reply, moment, content = self.id(), self.moment(after=after), self.html(1)
        fields, row = self._written(user, moment)
        segments = comment_path.split("/")
        row |= {
            "id": reply,
            "comment_id": segments[5],
            "post_id": segments[3],
            "content": content,
            "updated_at": milliseconds(moment),
        }
        verdict = verdict or ("missing" if after else "matching")
        path = f"{comment_path}/replies/{reply}"
        self.put("replies", path, {**fields, "content": content}, verdict, windowed=after, row=None if after else row)
        return path

    def like(self, post_path: str, user: str, *, after: bool = False, verdict: str | None = None) -> None:
        like, moment = self.id(), self.moment(after=after)
        fields, row = self._written(user, moment)
        row |= {"id": like, "post_id": post_path.rsplit("/", maxsplit=1)[-1]}
        verdict = verdict or ("missing" if after else "matching")
        self.put("likes", f"{post_path}/likes/{like}", fields, verdict, windowed=after, row=None if after else row)

    def reaction(self, above: str, user: str | None, *, after: bool = False, verdict: str | None = None) -> None:
        reaction, moment, name, emoji = self.id(), self.moment(after=after), self.name(), self.random.choice(_EMOJI)
        fields = {
            "content": emoji, "reactionUser": {"userId": user, "userName": name, "userProfileImage": None}, "createdAt": moment,
        }  # fmt: skip
        segments = above.split("/")
        row = {
            "id": reaction, "comment_id": segments[5] if len(segments) == 6 else None, "reply_id": segments[7] if len(segments) == 8 else None,
            "user_id": user, "reaction_type": emoji, "user_name": name, "user_profile_image": None, "created_at": milliseconds(moment),
        }  # fmt: skip
        default = "missing" if after else "matching"
        with_row = verdict is None and not after
        self.put(
            "reactions",
            f"{above}/reactions/{reaction}",
            fields,
            verdict or default,
            windowed=after,
            row=row if with_row else None,
        )

    def block(self, blocker: str, blocked: str, *, after: bool = False) -> None:
        moment = self.moment(after=after)
        row = {"blocker_id": blocker, "blocked_id": blocked, "created_at": milliseconds(moment)}
        verdict = "missing" if after else "matching"
        path = f"users/{blocker}/blockedUsers/{blocked}"
        self.put("blocks", path, {"blockedAt": moment}, verdict, windowed=after, row=None if after else row)

    def draft(self, user: str, board: str, *, after: bool = True) -> None:
        fields = {"boardId": board, "title": "초안", "content": self.html(2), "savedAt": self.moment(after=after)}
        self.put("drafts", f"users/{user}/drafts/{self.id()}", fields, "missing", windowed=after)

    def review(self, board: str, user: str, *, after: bool = True) -> None:
        fields = {
            "reviewer": {"uid": user, "nickname": self.name()}, "keep": "꾸준함", "problem": "시간", "try": "아침에 쓰기", "nps": 9,
            "willContinue": True, "createdAt": self.moment(after=after),
        }  # fmt: skip
        self.put("reviews", f"boards/{board}/reviews/{user}", fields, "missing", windowed=after)

    def notification(
        self, user: str, actor: str, post_path: str, *, after: bool = False, verdict: str | None = None, **changes: Any
    ) -> dict[str, Any]:
        moment, message = self.moment(after=after), f"{self.name()}님이 댓글을 남겼습니다"
        segments = post_path.split("/")
        fields = {
            "type": self.random.choice(_TYPES), "boardId": segments[1], "postId": segments[3], "commentId": self.id(), "fromUserId": actor,
            "fromUserProfileImage": None, "message": message, "timestamp": moment, "read": False, **changes,
        }  # fmt: skip
        row = {
            "recipient_id": user, "type": fields["type"], "actor_id": actor, "actor_profile_image": None, "board_id": fields["boardId"],
            "post_id": fields["postId"], "comment_id": fields.get("commentId") or "", "reply_id": fields.get("replyId") or "",
            "message": message, "read": False, "created_at": milliseconds(moment),
        }  # fmt: skip
        default = "missing" if after else "matching"
        with_row = verdict is None and not after
        path = f"users/{user}/notifications/{self.id()}"
        self.put("notifications", path, fields, verdict or default, windowed=after, row=row if with_row else None)
        return fields

    # --- loading --------------------------------------------------------------------------------------------------

    def load_source(self, client: firestore.Client) -> None:
        """Writes all documents, several batches at a time."""

        def write(part: list[tuple[str, dict[str, Any]]]) -> None:
            batch = client.batch()
            for path, fields in part:
                batch.set(client.document(path), fields)
            batch.commit()

        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(write, _parts(list(self.documents.items()), 400)))

    def load_target(self, connection: psycopg.Connection[Any]) -> None:
        """Inserts all rows as the export left them, parents first."""
        filled = [table for table in _ORDER if self.rows[table]]  # before the migrations some aren't there
        for table in filled:
            for part in _parts(self.rows[table], 2000):
                columns = list(part[0])
                statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(map(sql.Identifier, columns)),
                    sql.SQL(", ").join(sql.Placeholder() * len(columns)),
                )
                with connection.cursor() as cursor:
                    cursor.executemany(statement, [[row.get(c) for c in columns] for row in part])
        # The whole database would be a hundred catalogs more, and 50 ms.
        connection.execute(sql.SQL("ANALYZE {}").format(sql.SQL(", ").join(map(sql.Identifier, filled))))


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def small(seed: int = 7) -> World:
    """A small, real-looking world with every awkward case of production in it."""
    w = World(random.Random(seed))
    boards = [w.board(cohort=n) for n in (1, 2)]
    new_board = w.board(after=True, cohort=3)
    users = [w.user(boards={boards[0]: "write", boards[1]: "read"}) for _ in range(6)]
    users += [w.user(created_at=False) for _ in range(2)]  # createdAt is often absent
    new_users = [w.user(after=True, boards={boards[0]: "write", new_board: "write"}) for _ in range(2)]
    w.documents[f"boards/{new_board}"]["waitingUsersIds"] = [users[0], new_users[0], users[0]]  # one twice
    for in_scope in (w.in_window, w.over_all):
        in_scope["board_waiting_users"]["missing"] += 2

    old = [f"boards/{b}/posts/{w.post(b, w.random.choice(users))}" for b in boards for _ in range(10)]
    new = [
        f"boards/{b}/posts/{w.post(b, w.random.choice(users), after=True)}"
        for b in (*boards, new_board)
        for _ in range(4)
    ]
    new.append(f"boards/{boards[0]}/posts/{w.post(boards[0], new_users[0], after=True, visibility='private')}")
    for _ in range(3):
        w.stale_post(boards[0], users[0])
    comments = [w.comment(p, w.random.choice(users)) for p in old for _ in range(3)]
    new_comments = [w.comment(p, w.random.choice(users), after=True) for p in (*old[:8], *new) for _ in range(2)]
    replies = [w.reply(c, w.random.choice(users)) for c in comments[:30]]
    new_replies = [w.reply(c, w.random.choice(users), after=True) for c in (*comments[:5], *new_comments[:9])]
    for path in old[:12]:
        w.like(path, users[0])
    for path in new[:6]:
        w.like(path, users[1], after=True)
    for path in (*comments[:20], *replies[:10]):
        w.reaction(path, users[2])
    for path in (*new_comments[:8], *new_replies[:4]):
        w.reaction(path, users[3], after=True)
    w.block(users[0], users[1])
    w.block(users[2], users[3], after=True)
    for user in users[:3]:
        w.draft(user, boards[0])
        w.review(boards[1], user)
    for path in old[:10]:
        w.notification(users[0], users[1], path)
    for path in new[:5]:
        w.notification(users[1], users[2], path, after=True)
    _awkward(w, boards[0], users, old, comments)
    return w


def _awkward(w: World, board: str, users: list[str], old: list[str], comments: list[str]) -> None:
    """Each kind of document that went wrong in production, at least once."""
    # A second reaction of one person on one comment: the unique key is taken.
    for path in comments[:3]:
        w.reaction(path, users[2], after=True, verdict="duplicate")
    w.reaction(comments[4], None, after=True, verdict="rejected")  # no user id
    # The same notification twice, with another id.
    first = w.notification(users[3], users[4], old[0])
    same = {k: first[k] for k in ("type", "boardId", "postId", "commentId", "fromUserId")}
    w.notification(users[3], users[4], old[0], after=True, verdict="duplicate", **same)
    w.notification(users[3], users[4], old[0], after=True, verdict="rejected", type="topic_presenter_assigned")
    # Documents whose ancestors are gone: Firestore keeps the subcollections of a deleted document.
    gone = f"boards/{board}/posts/{w.id()}"
    orphan = w.comment(gone, users[0], after=True, verdict="orphan")
    orphan_reply = w.reply(orphan, users[1], after=True, verdict="orphan")
    w.reaction(orphan_reply, users[1], after=True, verdict="orphan")
    w.like(gone, users[0], after=True, verdict="orphan")
    w.comment(old[0], "somebody-who-left", after=True, verdict="orphan")
    # Values that no row can hold.
    w.post(board, users[0], after=True, verdict="rejected", title="nul \x00 here")
    w.post(board, users[0], after=True, verdict="rejected", contentJson={"score": float("nan")})
    w.post(board, users[0], after=True, verdict="rejected", weekDaysFromFirstDay=2**40)
    w.comment(old[1], users[0], after=True, verdict="rejected", content={"html": "a map for a string"})
    # Other places with the same collection id, and collections that are not moved.
    w.documents[f"archives/2025/comments/{w.id()}"] = {"content": "x", "createdAt": w.moment(after=True)}
    w.strays["comments"] += 1
    for other in ("postings", "commentings", "replyings", "blockedByUsers", "writingHistories"):
        w.documents[f"users/{users[0]}/{other}/{w.id()}"] = {"createdAt": w.moment(after=True), "userId": users[0]}


def real_size(seed: int = 11) -> World:
    """The sizes of production on the day of the export, about a fortnight's writes of them in the gap.

    boards 20, users 103, posts 3,823, comments 12,824, replies 8,649, likes 116, reactions 2,278 (72 duplicates),
    notifications 23,497 (14,000 that can't be inserted), blocks 1.
    """
    w = World(random.Random(seed))
    boards = [w.board(cohort=n) for n in range(20)]
    users = [w.user(after=i >= 100, boards={boards[i % 20]: "write"}) for i in range(103)]
    pick = w.random.choice

    def late(share: float) -> bool:
        return w.random.random() < share

    posts, fresh = [], set()
    for i in range(3823):
        after, board = late(0.06), boards[i % 20]
        path = f"boards/{board}/posts/{w.post(board, pick(users[:100]), after=after)}"
        posts.append(path)
        if after:
            fresh.add(path)
    comments = []
    for i in range(12_824):
        above = posts[i % len(posts)]
        after = above in fresh or late(0.06)
        comments.append((w.comment(above, pick(users[:100]), after=after), after))
    for i in range(8649):
        above, after = comments[i % len(comments)]
        w.reply(above, pick(users[:100]), after=after or late(0.06))
    for i in range(116):
        w.like(posts[i], users[i % 100], after=posts[i] in fresh)
    for i in range(2206):
        above, after = comments[i % len(comments)]
        w.reaction(above, users[i % 100], after=after)
    for i in range(72):
        above, after = comments[i]
        w.reaction(above, users[i % 100], after=after, verdict="duplicate")
    for i in range(9497):
        w.notification(
            users[i % 100], users[(i + 1) % 100], posts[i % len(posts)], after=posts[i % len(posts)] in fresh
        )
    for i in range(14_000):
        w.notification(
            users[i % 100], users[(i + 1) % 100], posts[i % len(posts)], after=late(0.06), verdict="rejected",
            type="topic_presenter_assigned",
        )  # fmt: skip
    w.block(users[0], users[1])
    return w
