"""The catalog of an app of places, as its team would write it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from dualwrite.model.check_fields import Check
from dualwrite.model.conversions import (
    Conversion,
    each,
    epoch_milliseconds,
    integer,
    latitude,
    longitude,
    plain_json,
    reference_id,
    scaled,
    segment,
)
from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    Computed,
    DocumentId,
    DocumentPath,
    EntryKey,
    Field,
    Parent,
    Segment,
)

EXPORT_TIME = datetime(2026, 3, 1, tzinfo=UTC)

path_uuid = Conversion("path_uuid", lambda path: str(uuid.uuid5(uuid.NAMESPACE_URL, path)), "text")
place_uuid = Conversion("place_uuid", lambda name: path_uuid.convert(f"places/{name}"), "text")
components = Conversion("components", lambda vector: list(vector.components), "array")


def during(begins: datetime | None, ends: datetime | None) -> str | None:
    return None if begins is None or ends is None else f"[{begins.isoformat()},{ends.isoformat()})"


CHANGED = (Check("changed", epoch_milliseconds),)
PERSON = (
    Column("tenant", "key", Segment("tenant"), references=Parent("people", holds="tenant")),
    Column("person_id", "key", Segment("user"), references=Parent("people", holds="id")),
)

REGIONS = Collection(
    name="regions", table="places.regions", paths=("regions/{region}",), selected=True, sentinel=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("name", "compared", Field("name"), required=True),
        Column("parent_id", "compared", Field("parent") >> reference_id, references="regions"),
    ),
)  # fmt: skip
PEOPLE = Collection(
    name="people", table="places.people", paths=("tenants/{tenant}/users/{user}",), check_fields=CHANGED, selected=True,
    written_columns=("seen_at",),
    columns=(
        Column("tenant", "key", Segment("tenant")),
        Column("id", "key", Segment("user")),
        Column("name", "compared", Field("name"), required=True),
        Column("lat", "compared", Field("home") >> latitude),
        Column("lng", "compared", Field("home") >> longitude),
        Column("seen_at", "compared", Field("changed") >> epoch_milliseconds),
    ),
)  # fmt: skip
DETAILS = Collection(
    name="person_details", table="places.person_details", paths=("tenants/{tenant}/users/{user}/private/profile",), selected=True,
    columns=(*PERSON, Column("phone", "compared", Field("phone"))),
)  # fmt: skip
PLACES = Collection(
    name="places", table="places.places", paths=("places/{place}",), check_fields=CHANGED, selected=True,
    written_columns=("changed_at",),
    columns=(
        Column("id", "key", DocumentId() >> place_uuid),
        Column("firestore_id", "compared", DocumentId()),
        Column("region_id", "compared", Field("region") >> reference_id, references="regions"),
        Column("owner_tenant", "compared", Field("owner") >> segment(1), references=Parent("people", holds="tenant")),
        Column("owner_id", "compared", Field("owner") >> segment(3), references=Parent("people", holds="id")),
        Column("lat", "compared", Field("at") >> latitude, required=True),
        Column("lng", "compared", Field("at") >> longitude, required=True),
        Column("label", "compared", Field(("place.label",))),
        Column("admins", "compared", Field("admins") >> each(reference_id), absent=[]),
        Column("details", "compared", Field("details") >> plain_json, absent={}),
        Column("fee", "compared", Field("feeCents") >> scaled(-2)),
        Column("embedding", "compared", Field("embedding") >> components),
        Column("visit_count", "derived", Field("visits"), "integer", absent=0),
        Column("cover_id", "compared", Field("cover") >> reference_id, references="photos"),
        Column("changed_at", "compared", Field("changed") >> epoch_milliseconds, required=True),
    ),
)  # fmt: skip
PLACE = Column("place_id", "compared", Segment("place") >> place_uuid, required=True, references="places")


def media(name: str, kind: str, *columns: Column) -> Collection:
    return Collection(
        name=name, table="places.media", rows={"kind": kind}, paths=(f"places/{{place}}/{name}/{{item}}",), selected=True,
        columns=(Column("id", "key", DocumentId()), PLACE, Column("file name", "compared", Field("file name"), required=True), *columns),
    )  # fmt: skip


PHOTOS = media("photos", "photo")
VIDEOS = media("videos", "video", Column("seconds", "compared", Field("seconds") >> integer))
PLACE_NOTES = Collection(
    name="place_notes", table="places.place_notes", paths=("places/{place}/notes/{note}",), selected=True,
    columns=(Column("id", "key", DocumentId()), PLACE, Column("body", "compared", Field("body"), required=True)),
)  # fmt: skip
PERSON_NOTES = Collection(
    name="person_notes", table="places.person_notes", paths=("tenants/{tenant}/users/{user}/notes/{note}",), selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("tenant", "compared", Segment("tenant"), required=True, references=Parent("people", holds="tenant")),
        Column("person_id", "compared", Segment("user"), required=True, references=Parent("people", holds="id")),
        Column("body", "compared", Field("body"), required=True),
        Column("about_id", "compared", Field("about") >> reference_id, references="place_notes"),
    ),
)  # fmt: skip
VISITS = Collection(
    name="visits", table="places.visits", paths=("places/{place}/visits/{visit}",), selected=True,
    columns=(
        Column("id", "key", DocumentPath() >> path_uuid),
        PLACE,
        Column("during", "compared", Computed(during, "from", "to"), required=True),
        Column("ticket", "compared", Field("ticket")),
    ),
)  # fmt: skip
RATINGS = Collection(
    name="ratings", table="places.ratings", paths=("ratings/{person}_{slug}",), selected=True,
    columns=(
        Column("person", "key", Segment("person")),
        Column("slug", "key", Segment("slug")),
        Column("stars", "compared", Field("stars") >> integer, required=True),
    ),
)  # fmt: skip
LISTS = Collection(
    name="lists", table="places.2nd lists", paths=("2nd lists/{list}",), selected=True,
    columns=(Column("id", "key", DocumentId()), Column("shelf mark", "compared", Field("shelf mark"))),
)  # fmt: skip
LIST_PLACES = Collection(
    name="list_places", table="places.list_places", paths=LISTS.paths, entries=ArrayElements("places"), selected=True,
    columns=(
        Column("list_id", "key", Segment("list"), references="lists"),
        Column("place_id", "key", EntryKey() >> reference_id >> place_uuid, references="places"),
    ),
)  # fmt: skip

CATALOG = Catalog((
    REGIONS, PEOPLE, DETAILS, PLACES, PHOTOS, VIDEOS, PLACE_NOTES, PERSON_NOTES, VISITS, RATINGS, LISTS, LIST_PLACES,
))  # fmt: skip
