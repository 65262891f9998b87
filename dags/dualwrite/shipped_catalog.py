"""The shipped catalog, of the app that the demo and the tests use: which documents become which rows.

Another app has a file of its own like this one, which DUALWRITE_CATALOG names (docs/catalog.md).

Each collection names its path, its table, the fields with the time when a document was written (check fields), and for each
column the origin of its value and its role:

- key: identifies the row.
- compared: a difference is drift.
- insert_only: set when the row is inserted, never compared.
- derived: counters that lag by design; their lag is counted apart and is no drift.

The words are defined in `declaration.py`, which also checks this file at import. `preflight` checks it against the
live target before anything is read.
"""

from __future__ import annotations

from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    CreateTime,
    DocumentId,
    EntryKey,
    EntryValue,
    Field,
    MapEntries,
    Operations,
    ParentId,
    Segment,
)

EXPORT_TIME = "2026-01-15T21:52:00+00:00"
"""The time of the export that first filled the target: a backfill's window begins there by default."""

BOARDS = Collection(
    name="boards",
    table="boards",
    paths=("boards/{board}",),
    # No check field: a change of the waiting list moves none, and there are few boards. They are read whole.
    written_columns=("created_at", "updated_at"),
    columns=(
        Column("id", "key", DocumentId()),
        Column("title", "compared", Field("title"), required=True, absent=""),
        Column("description", "compared", Field("description")),
        Column("first_day", "compared", Field("firstDay"), "timestamp"),
        Column("last_day", "compared", Field("lastDay"), "timestamp"),
        Column("cohort", "compared", Field("cohort"), "integer"),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp", required=True),
        Column("updated_at", "insert_only", Field("createdAt", CreateTime()), "timestamp", required=True),
    ),
)

USERS = Collection(
    name="users",
    table="users",
    paths=("users/{user}",),
    check_fields=("updatedAt", "createdAt"),
    written_columns=("created_at", "updated_at"),
    operations=(Operations("user", ("id",)),),
    selected=True,
    sentinel=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("real_name", "compared", Field("realName")),
        Column("nickname", "compared", Field("nickname")),
        Column("email", "compared", Field("email")),
        Column("profile_photo_url", "compared", Field("profilePhotoURL")),
        Column("bio", "compared", Field("bio")),
        Column("phone_number", "compared", Field("phoneNumber")),
        Column("referrer", "compared", Field("referrer")),
        Column("recovery_status", "compared", Field("recoveryStatus")),
        Column("timezone", "compared", Field("profile.timezone")),
        Column("known_buddy_uid", "compared", Field("knownBuddy.uid")),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp", required=True),
        Column(
            "updated_at", "compared", Field("updatedAt", Field("createdAt", CreateTime())), "timestamp", required=True
        ),
    ),
)

USER_BOARD_PERMISSIONS = Collection(
    name="user_board_permissions",
    table="user_board_permissions",
    paths=("users/{user}",),
    entries=MapEntries("boardPermissions"),
    check_fields=("updatedAt", "createdAt"),
    written_columns=("created_at",),
    operations=(Operations("user", ("user_id",)),),
    columns=(
        Column("user_id", "key", Segment("user"), references="users"),
        Column("board_id", "key", EntryKey(), references="boards"),
        Column("permission", "compared", EntryValue(), required=True),
        Column("created_at", "insert_only", CreateTime(), "timestamp", required=True),
    ),
)

BOARD_WAITING_USERS = Collection(
    name="board_waiting_users",
    table="board_waiting_users",
    paths=("boards/{board}",),
    entries=ArrayElements("waitingUsersIds"),
    written_columns=("created_at",),
    operations=(Operations("board_waiting_users", ("board_id", "user_id")),),
    columns=(
        Column("board_id", "key", Segment("board"), references="boards"),
        Column("user_id", "key", EntryKey(), references="users"),
        Column("created_at", "insert_only", CreateTime(), "timestamp", required=True),
    ),
)

POSTS = Collection(
    name="posts",
    table="posts",
    paths=("boards/{board}/posts/{post}",),
    check_fields=("createdAt", "updatedAt"),
    written_columns=("created_at", "updated_at"),
    operations=(Operations("post", ("id",)),),
    selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("board_id", "compared", Segment("board"), required=True, references="boards"),
        Column("author_id", "compared", Field("authorId"), required=True, references="users"),
        Column("author_name", "compared", Field("authorName"), required=True, absent=""),
        Column("title", "compared", Field("title"), required=True, absent=""),
        Column("content", "compared", Field("content"), required=True, absent=""),
        Column("content_json", "compared", Field("contentJson"), "json"),
        Column("thumbnail_image_url", "compared", Field("thumbnailImageURL")),
        Column("visibility", "compared", Field("visibility"), absent="public"),
        Column("count_of_comments", "derived", Field("countOfComments"), "integer", required=True, absent=0),
        Column("count_of_replies", "derived", Field("countOfReplies"), "integer", required=True, absent=0),
        Column("count_of_likes", "derived", Field("countOfLikes"), "integer", required=True, absent=0),
        Column("engagement_score", "derived", Field("engagementScore"), "numeric", required=True, absent=0),
        Column("week_days_from_first_day", "compared", Field("weekDaysFromFirstDay"), "integer"),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp", required=True),
        Column(
            "updated_at", "compared", Field("updatedAt", Field("createdAt", CreateTime())), "timestamp", required=True
        ),
    ),
)

# A comment's or reply's row leaves updated_at to NOW() when the app writes it, so it equals no field of the document.
COMMENTS = Collection(
    name="comments",
    table="comments",
    paths=("boards/{board}/posts/{post}/comments/{comment}",),
    check_fields=("createdAt",),
    written_columns=("created_at", "updated_at"),
    operations=(Operations("comment", ("id",)),),
    selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("post_id", "compared", Segment("post"), required=True, references="posts"),
        Column("user_id", "compared", Field("userId"), required=True, references="users"),
        Column("user_name", "compared", Field("userName"), required=True, absent=""),
        Column("user_profile_image", "compared", Field("userProfileImage")),
        Column("content", "compared", Field("content"), required=True, absent=""),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp", required=True),
        Column("updated_at", "insert_only", Field("createdAt", CreateTime()), "timestamp", required=True),
    ),
)

REPLIES = Collection(
    name="replies",
    table="replies",
    paths=("boards/{board}/posts/{post}/comments/{comment}/replies/{reply}",),
    check_fields=("createdAt",),
    written_columns=("created_at", "updated_at"),
    operations=(Operations("reply", ("id",)),),
    selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("comment_id", "compared", Segment("comment"), required=True, references="comments"),
        # Denormalised and NOT NULL, without a foreign key: it comes from the path, no field holds it.
        Column("post_id", "compared", Segment("post"), required=True),
        Column("user_id", "compared", Field("userId"), required=True, references="users"),
        Column("user_name", "compared", Field("userName"), required=True, absent=""),
        Column("user_profile_image", "compared", Field("userProfileImage")),
        Column("content", "compared", Field("content"), required=True, absent=""),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp", required=True),
        Column("updated_at", "insert_only", Field("createdAt", CreateTime()), "timestamp", required=True),
    ),
)

LIKES = Collection(
    name="likes",
    table="likes",
    paths=("boards/{board}/posts/{post}/likes/{like}",),
    check_fields=("createdAt",),
    written_columns=("created_at",),
    unique=(("post_id", "user_id"),),
    operations=(Operations("like", ("id",)),),
    selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("post_id", "compared", Segment("post"), required=True, references="posts"),
        Column("user_id", "compared", Field("userId"), required=True, references="users"),
        Column("user_name", "compared", Field("userName"), required=True, absent=""),
        Column("user_profile_image", "compared", Field("userProfileImage")),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp", required=True),
    ),
)

REACTIONS = Collection(
    name="reactions",
    table="reactions",
    paths=(
        "boards/{board}/posts/{post}/comments/{comment}/reactions/{reaction}",
        "boards/{board}/posts/{post}/comments/{comment}/replies/{reply}/reactions/{reaction}",
    ),
    check_fields=("createdAt",),
    written_columns=("created_at",),
    unique=(("comment_id", "user_id"), ("reply_id", "user_id")),
    operations=(Operations("reaction", ("id",)),),
    selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("comment_id", "compared", ParentId("comments"), references="comments"),
        Column("reply_id", "compared", ParentId("replies"), references="replies"),
        Column("user_id", "compared", Field("reactionUser.userId"), required=True, references="users"),
        Column("reaction_type", "compared", Field("content"), required=True, absent=""),
        Column("user_name", "compared", Field("reactionUser.userName"), required=True, absent=""),
        Column("user_profile_image", "compared", Field("reactionUser.userProfileImage")),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp", required=True),
    ),
)

BLOCKS = Collection(
    name="blocks",
    table="blocks",
    paths=("users/{blocker}/blockedUsers/{blocked}",),
    check_fields=("blockedAt",),
    written_columns=("created_at",),
    operations=(Operations("block", ("blocker_id", "blocked_id")),),
    selected=True,
    columns=(
        # The natural key: the row's own id is a default that no document knows.
        Column("blocker_id", "key", Segment("blocker"), references="users"),
        Column("blocked_id", "key", DocumentId(), references="users"),
        Column("created_at", "compared", Field("blockedAt", CreateTime()), "timestamp", required=True),
    ),
)

DRAFTS = Collection(
    name="drafts",
    table="drafts",
    paths=("users/{user}/drafts/{draft}",),
    check_fields=("savedAt",),
    written_columns=("saved_at",),
    operations=(Operations("draft", ("id",)),),
    columns=(
        Column("id", "key", DocumentId()),
        Column("user_id", "compared", Segment("user"), required=True, references="users"),
        Column("board_id", "compared", Field("boardId"), required=True, references="boards"),
        Column("title", "compared", Field("title"), required=True, absent=""),
        Column("content", "compared", Field("content"), required=True, absent=""),
        Column("saved_at", "compared", Field("savedAt", CreateTime()), "timestamp", required=True),
        # content_json is left out: no draft document has such a field.
    ),
)

REVIEWS = Collection(
    name="reviews",
    table="reviews",
    paths=("boards/{board}/reviews/{reviewer}",),
    check_fields=("createdAt",),
    written_columns=("created_at",),
    operations=(Operations("review", ("reviewer_id",)),),
    columns=(
        # The natural key: the app writes id = the reviewer's uid, so a person's second review overwrites the first.
        Column("board_id", "key", Segment("board"), references="boards"),
        Column("reviewer_id", "key", DocumentId(), references="users"),
        Column("reviewer_nickname", "compared", Field("reviewer.nickname")),
        Column("keep_text", "compared", Field("keep")),
        Column("problem_text", "compared", Field("problem")),
        Column("try_text", "compared", Field("try")),
        Column("nps", "compared", Field("nps"), "integer"),
        Column("will_continue", "compared", Field("willContinue"), "boolean"),
        Column("created_at", "compared", Field("createdAt", CreateTime()), "timestamp", required=True),
    ),
)

NOTIFICATIONS = Collection(
    name="notifications",
    table="notifications",
    paths=("users/{user}/notifications/{notification}",),
    check_fields=("timestamp",),
    written_columns=("created_at",),
    operations=(Operations("notification"),),
    columns=(
        # The unique index that keeps notifications idempotent is the key; several documents may share it. The row's
        # own id is left to its default.
        Column("recipient_id", "key", Segment("user"), references="users"),
        Column("type", "key", Field("type"), required=True),
        Column("post_id", "key", Field("postId"), required=True, absent=""),
        Column("comment_id", "key", Field("commentId"), required=True, absent=""),
        Column("reply_id", "key", Field("replyId"), required=True, absent=""),
        Column("actor_id", "key", Field("fromUserId"), required=True, references="users"),
        Column("actor_profile_image", "compared", Field("fromUserProfileImage")),
        Column("board_id", "compared", Field("boardId"), required=True, absent=""),
        Column("reaction_id", "compared", Field("reactionId")),
        Column("like_id", "compared", Field("likeId")),
        Column("message", "compared", Field("message"), required=True, absent=""),
        Column("read", "compared", Field("read"), "boolean", required=True, absent=False),
        Column("created_at", "compared", Field("timestamp", CreateTime()), "timestamp", required=True),
    ),
)

CATALOG = Catalog(
    (
        BOARDS,
        USERS,
        USER_BOARD_PERMISSIONS,
        BOARD_WAITING_USERS,
        POSTS,
        COMMENTS,
        REPLIES,
        LIKES,
        REACTIONS,
        BLOCKS,
        DRAFTS,
        REVIEWS,
        NOTIFICATIONS,
    )
)
