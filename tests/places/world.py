"""The documents of an app of places, with every kind of gap, what happens to them later, and the rows that they mean, worked out by
hand."""

from __future__ import annotations

import uuid
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.plain import Documents, Geo, Ref, Vec, Wanted, World

AT = datetime(2026, 3, 2, 10, tzinfo=UTC)
MS = 1_772_445_600_000
HOUR = timedelta(hours=1)


def place(**changes: Any) -> dict[str, Any]:
    return {"at": Geo(37.5, 127.0), "changed": MS, **changes}


def visit(begins: int, ends: int, ticket: str | None) -> dict[str, Any]:
    return {"from": AT + begins * HOUR, "to": AT + ends * HOUR, "ticket": ticket}


def documents() -> Documents:
    return {
        "regions/seoul": {"name": "Seoul", "parent": Ref("regions/korea")},
        "regions/korea": {"name": "Korea", "parent": Ref("regions/asia")},
        "regions/asia": {"name": "Asia", "parent": None},
        "regions/island": {"name": "Island", "parent": Ref("regions/atlantis")},

        "tenants/t1/users/u1": {"name": "Anna", "home": Geo(37.5, 127.25), "changed": MS},
        "tenants/t1/users/u2": {"name": "Ben", "changed": MS},
        "tenants/t2/users/u1": {"name": "Another Anna", "changed": MS},
        "tenants/t2/users/u3": {"name": 7, "changed": MS},
        "tenants/t1/users/u1/private/profile": {"phone": "1"},
        "tenants/t1/users/u1/private/settings": {"phone": "another collection's"},
        "tenants/t1/users/u9/private/profile": {"phone": "of a person who is gone"},

        "places/p1": place(
            region=Ref("regions/seoul"), owner=Ref("tenants/t1/users/u1"), feeCents=1250, embedding=Vec((0.5, 1.0)), visits=3,
            admins=[Ref("tenants/t1/users/u1"), Ref("tenants/t2/users/u1")], cover=Ref("places/p1/photos/f1"),
            details={"opened": AT, "at": Geo(1.0, 2.0), "by": Ref("tenants/t1/users/u1")}, **{"place.label": "first"},
        ),
        "places/p2": place(region=Ref("regions/atlantis"), owner=Ref("tenants/t1/users/u9"), visits="many"),
        "places/p3": place(at="somewhere"),
        "places/p4": place(owner=Ref("people/x")),
        "places/p6": place(owner=Ref("tenants/t2/users/u1"), feeCents=0.5),
        # places/p5 is gone; what is below it is still there.
        "places/p1/photos/f1": {"file name": "f1.jpg"},
        "places/p2/photos/f2": {"file name": "f2.jpg"},
        "places/p3/photos/f3": {"file name": "f3.jpg"},
        "places/p5/photos/f5": {"file name": "f5.jpg"},
        "places/p5/photos/f6": {"file name": "f6.jpg"},
        "places/p1/videos/v1": {"file name": "v1.mp4", "seconds": "90"},
        "places/p1/videos/logo": {"file name": "logo.mp4", "seconds": 1},

        "places/p1/notes/n1": {"body": "of the place"}, "places/p2/notes/n2": {"body": "of another place"},
        "tenants/t1/users/u1/notes/m1": {"body": "of a person", "about": Ref("places/p1/notes/n1")},
        "tenants/t1/users/u2/notes/m2": {"body": "of a person", "about": Ref("places/p1/notes/gone")},
        "tenants/t2/users/u3/notes/m3": {"body": "of a person who has no row"},

        "places/p2/visits/d": visit(3, 5, "D"), "places/p2/visits/e": visit(8, 9, None), "places/p2/visits/g": visit(14, 15, None),
        "places/p1/visits/b": visit(2, 3, "B"), "places/p1/visits/a": visit(0, 2, "A"), "places/p1/visits/c": visit(4, 6, "C"),
        "places/p5/visits/f": visit(20, 21, "F"),

        "ratings/u1_p1": {"stars": "5"}, "ratings/u2_p1": {"stars": 3.0}, "ratings/u_1_p1": {"stars": 1}, "ratings/u2_p2": {"stars": "good"},
        "2nd lists/l1": {"shelf mark": "A 1", "places": [Ref("places/p1"), Ref("places/p2"), Ref("places/p5"), Ref("places/p1")]},
        "2nd lists/l2": {"places": [Ref("places/p6")]},
    }  # fmt: skip


def edits(before: Documents) -> Documents:
    """A day of the app, as its clients write it."""
    after, now = deepcopy(before), MS + 86_400_000
    after["regions/korea"]["parent"] = None
    after["tenants/t1/users/u1"] |= {"home": None, "changed": now}
    after["places/p1"] |= {"owner": Ref("tenants/t1/users/u2"), "place.label": None, "feeCents": 999, "cover": Ref("places/p1/photos/f7"),
                           "changed": now}  # fmt: skip
    after["places/p6"] |= {"region": Ref("regions/asia"), "admins": [Ref("tenants/t1/users/u2")], "changed": now}
    after["places/p1/photos/f7"] = {"file name": "f7.jpg"}
    after["places/p1/videos/v1"] |= {"seconds": None}
    after["tenants/t1/users/u1/notes/m1"] |= {"about": Ref("places/p2/notes/n2")}
    after["places/p1/visits/b"], after["places/p1/visits/a"] = (
        visit(10, 12, "B"),
        visit(2, 3, "A"),
    )  # a's place is free after b's move
    del after["tenants/t2/users/u1"]
    after["ratings/u1_p1"] = {"stars": 1}
    after["2nd lists/l1"] = {"shelf mark": None, "places": [Ref("places/p2"), Ref("places/p6")]}
    for path in ("tenants/t1/users/u1/private/profile", "places/p1/photos/f1", "ratings/u2_p1"):
        del after[path]
    return after


# --- the oracle ---------------------------------------------------------------------------------------------------------------


def v5(path: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, path))


def time_of(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds // 1000, UTC)


def plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: plain(inner) for name, inner in value.items()}
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        case Geo(lat, lng):
            return {"latitude": lat, "longitude": lng}
        case Ref(path):
            return path
    return value


def wanted(every: Documents) -> Wanted:
    w = Wanted(
        untold=frozenset({"photos", "videos", "place_notes"}),  # a uuid v5 is all that they know of the document above
    )
    people = {p for p, one in every.items() if p.count("/") == 3 and "/users/" in p and isinstance(one["name"], str)}
    places = {
        p for p, one in every.items() if p.count("/") == 1 and p.startswith("places/") and isinstance(one["at"], Geo)
    }
    places -= {"places/p4"}  # its owner is no person

    def id_if(reference: Ref | None, there: bool) -> str | None:
        return None if reference is None or not there else reference.path.rsplit("/", 1)[-1]

    taken: list[tuple[datetime, datetime]] = []
    for path, one in every.items():
        match path.split("/"):
            case ["regions", name]:
                parent = one["parent"]
                w.row("regions", (name,), (one["name"], id_if(parent, parent is not None and parent.path in every)))
            case ["tenants", tenant, "users", name] if path in people:
                home = one.get("home") or Geo(None, None)
                w.row("people", (tenant, name), (one["name"], home.lat, home.lng, time_of(one["changed"])))
            case ["tenants", tenant, "users", name]:
                w.reject("people", (tenant, name))
            case ["tenants", tenant, "users", name, "private", "profile"]:
                if f"tenants/{tenant}/users/{name}" in people:
                    w.row("person_details", (tenant, name), (one["phone"],))
                else:
                    w.orphan("person_details", (tenant, name))
            case ["places", name] if path in places:
                owner = one.get("owner")
                has = owner is not None and owner.path in people
                fee = one.get("feeCents")
                w.row("places", (v5(path),), (
                    name, id_if(one.get("region"), one.get("region") is not None and one["region"].path in every),
                    owner.path.split("/")[1] if has else None, owner.path.split("/")[3] if has else None, one["at"].lat, one["at"].lng,
                    one.get("place.label"), [r.path.rsplit("/", 1)[-1] for r in one.get("admins", [])], plain(one.get("details", {})),
                    None if fee is None else (Decimal(str(fee)) / 100).quantize(Decimal("0.01"), "ROUND_HALF_UP"),
                    list(one["embedding"].numbers) if "embedding" in one else None,
                    id_if(one.get("cover"), one.get("cover") is not None and one["cover"].path in every), time_of(one["changed"]),
                ))  # fmt: skip
            case ["places", name]:
                w.reject("places", (v5(path),))
            case ["places", above, kind, name]:
                at, collection, key = f"places/{above}", {"notes": "place_notes"}.get(kind, kind), (name,)
                if kind == "visits":
                    key, span = (v5(path),), (one["from"], one["to"])
                if at not in every:
                    w.orphan(collection, key)
                elif at not in places or path == "places/p1/videos/logo":
                    w.reject(collection, key)
                elif kind == "visits":
                    # Visits exclude each other, and two without a ticket exclude each other too; the first one stays.
                    if (
                        any(begins < span[1] and span[0] < ends for begins, ends in taken)
                        or path == "places/p2/visits/g"
                    ):
                        w.reject(collection, key)
                    else:
                        taken.append(span)
                        w.row(collection, key, (v5(at), *span, one["ticket"]))
                elif kind == "videos":
                    w.row(
                        collection,
                        key,
                        (v5(at), one["file name"], None if one["seconds"] is None else int(one["seconds"])),
                    )
                else:
                    w.row(collection, key, (v5(at), one.get("file name", one.get("body"))))
            case ["tenants", tenant, "users", name, "notes", note]:
                if f"tenants/{tenant}/users/{name}" in people:
                    about = one.get("about")
                    w.row(
                        "person_notes",
                        (note,),
                        (tenant, name, one["body"], id_if(about, about is not None and about.path in every)),
                    )
                else:
                    w.reject("person_notes", (note,))
            case ["ratings", name]:
                if name.count("_") != 1:
                    w.reject("ratings")
                    w.may_be("ratings", tuple(name.split("_", 1)), tuple(name.rsplit("_", 1)))
                elif one["stars"] == "good":
                    w.reject("ratings", tuple(name.split("_")))
                else:
                    w.row("ratings", tuple(name.split("_")), (int(one["stars"]),))
            case ["2nd lists", name]:
                w.row("lists", (name,), (one.get("shelf mark"),))
                for at in {reference.path for reference in one["places"]}:
                    if at in places:
                        w.row("list_places", (name, v5(at)), ())
                    else:
                        w.orphan("list_places", (name, v5(at)))
    return w


QUERIES = {
    "regions": (1, "SELECT id, name, parent_id FROM places.regions"),
    "people": (2, "SELECT tenant, id, name, lat, lng, seen_at FROM places.people"),
    "person_details": (2, "SELECT tenant, person_id, phone FROM places.person_details"),
    "places": (1, """
        SELECT id::text, firestore_id, region_id, owner_tenant, owner_id, lat, lng, label, admins, details, fee, embedding, cover_id,
               changed_at FROM places.places"""),
    "photos": (1, """SELECT id, place_id::text, "file name" FROM places.media WHERE kind = 'photo'"""),
    "videos": (1, """SELECT id, place_id::text, "file name", seconds FROM places.media WHERE kind = 'video'"""),
    "place_notes": (1, "SELECT id, place_id::text, body FROM places.place_notes"),
    "person_notes": (1, "SELECT id, tenant, person_id, body, about_id FROM places.person_notes"),
    "visits": (1, "SELECT id::text, place_id::text, lower(during), upper(during), ticket FROM places.visits"),
    "ratings": (2, "SELECT person, slug, stars FROM places.ratings"),
    "lists": (1, """SELECT id, "shelf mark" FROM places."2nd lists" """),
    "list_places": (2, "SELECT list_id, place_id::text FROM places.list_places"),
}  # fmt: skip
OUTSIDE = "SELECT m::text FROM places.media m WHERE kind = 'editorial'"
DRAFTED = (
    "Column('parent_id', 'compared', Field('parent') >> reference_id, references='regions'),  # GUESS from its name, 3 of 4 sampled, reference",
    "Column('shelf mark', 'compared', Field('shelf mark')),", "Column('lat', 'compared', Field('home') >> latitude)",
    "places.places can't be declared: its key column 'id' isn't known", "embedding (real[]): TODO field 'embedding' looks like it and holds vector",
    "tenants/{tenant}: no document is there itself, only collections below",
    "places/{place}/videos/{video}                    places.media           0         4        1: kind",
)  # fmt: skip


def sound(before: Documents) -> Documents:
    """Without references to what has no row yet or no more, and without a deletion below a document whose path its row doesn't tell;
    parents first, as an app writes them."""
    after = deepcopy(before)
    for path, field in (("regions/island", "parent"), ("places/p2", "region"), ("places/p2", "owner"), ("places/p1", "cover"),
                        ("tenants/t1/users/u2/notes/m2", "about")):  # fmt: skip
        after[path][field] = None
    after["2nd lists/l1"]["places"] = [at for at in after["2nd lists/l1"]["places"] if at.path in after]
    after.setdefault("places/p1/photos/f1", {"file name": "f1.jpg"})

    def floor(at: tuple[str, Any]) -> int:
        path = at[0]
        first = {"regions/asia": 0, "regions/korea": 1}
        return first.get(path, {"regions": 2, "tenants": 3, "places": 5}.get(path.split("/")[0], 7) + (path.count("/") > 3) * 4
                         - (path.startswith("places/") and path.count("/") == 1))  # fmt: skip

    return dict(sorted(after.items(), key=floor))


PLACES = World("places", Path(__file__).parent, documents, edits, QUERIES, wanted, sound, DRAFTED, OUTSIDE)
