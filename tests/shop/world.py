"""The shop's documents, with every kind of gap, what happens to them later, and the rows that they mean, worked out by hand."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from tests.plain import Documents, Wanted, World

AT = datetime(2026, 3, 2, 9, 30, 15, 123000, tzinfo=UTC)
ISO = "2026-03-02T09:30:15.123Z"
MS = 1_772_443_815_123
LAMP, CHAIR, DESK, BOOK, TWIN, RUG = (f"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1{n}" for n in range(6))


def customer(given: str, **changes: Any) -> dict[str, Any]:
    base = {
        "name": {"given": given, "family": "Kim"}, "displayName": given.lower(), "email": f"{given}@Example.org",
        "address": {"city": "Seoul"}, "created": ISO, "updated": ISO,
    }  # fmt: skip
    return {**base, **changes}


def product(sku: str, **changes: Any) -> dict[str, Any]:
    return {"sku": sku, "name": sku.title(), "priceCents": 1999, "updatedAt": AT, **changes}


def order(*items: Any, **changes: Any) -> dict[str, Any]:
    return {
        "state": "paid",
        "totalCents": 5000,
        "currency": "EUR",
        "items": list(items),
        "placed": ISO,
        "updated": ISO,
        **changes,
    }


def item(what: str, quantity: Any = 1, cents: Any = 250) -> dict[str, Any]:
    return {"product": what, "quantity": quantity, "cents": cents}


def documents() -> Documents:
    return {
        "customers/anna": customer(
            "Anna", email=" Anna@Example.ORG ", phone=821012345678, bornOn="1990-02-01", credit=2**40, points=7, newsletter=True,
            tags=["a b", "c"], lucky=[7, 13], deliveryDay="mon", preferences={"since": AT, "dark": True}, lastIp="10.0.0.1",
            lastSeen=MS + 600, trialEnds=1_772_443_815,
        ),
        "customers/ben": customer("Ben", address={"city": "Busan"}, referredBy="nobody", points="many", displayName=None, userName="benny"),
        "customers/cleo": customer("Cleo", referredBy="anna", newsletter="true", deliveryDay=2, phone="+49 (30) 12345"),
        "customers/dora": customer("Dora", deliveryDay="someday"),
        "customers/emil": customer("Emil", email=7),
        "customers/finn": customer("Finn", email="ANNA@example.org"),
        # customers/gone is gone; what is below it is still there.

        f"products/{LAMP}": product(
            "LAMP", weight=0.1, rating="4.50", sale={"from": "2026-03-01", "to": "2026-03-31"}, preparation="P1DT12H",
            spec='{"watts": 7}', photo=b"\x00\xff", tags=["light", "new"], note="", taxClass="full", updatedAt=AT + timedelta(microseconds=987),
            categoryIds=["home", "light", "home"], stock={"east": 3, "west": "4"}, labels={"new": True, "old": False},
            sizes=[{"size": "S", "colours": ["red", "blue", "red"]}, {"size": "M", "colours": ["blue", "none"]}],
            texts={"de": {"title": "Lampe"}, "ko": {"title": "등", "summary": "s"}},
        ),
        f"products/{CHAIR}": product("CHAIR", deletedAt=AT, categoryIds=["home"], stock={"east": 1}, labels={"new": True},
                                     texts={"de": {"title": "Stuhl"}}),
        f"products/{DESK}": product("DESK", name="x" * 40 + "   ", categoryIds=["home"], stock={"east": 5, "west": -1},
                                    labels={"new": "yes"}, texts={"de": {"summary": "no title"}, "en": {"title": "Desk"}}),
        f"products/{BOOK}": product("BOOK", taxClass="unknown", categoryIds=["paper"]),
        f"products/{TWIN}": product("LAMP", name="A second lamp"),
        f"products/{RUG.upper()}": product("RUG"),
        "products/no-uuid": product("NONE"),

        "customers/anna/orders/o1": order(
            item(LAMP), item(DESK, 2, 199), days={"least": 1, "most": 3}, paid="Mon, 02 Mar 2026 10:00:00 GMT",
            invoiced={"_seconds": MS // 1000, "_nanoseconds": 5_000_000}, shipped=MS,
            discounts=[{"code": "SPRING", "cents": 150}, {"code": "GIFT", "cents": 5, "revoked": True}], assistant="ben",
        ),
        "customers/anna/orders/o2": order(item(LAMP), item(DESK, "many"), item(CHAIR), state="CANCELLED", shipped=ISO, assistant="nobody",
                                          discounts=[{"code": "A", "cents": 100}, {"code": "A", "cents": 200}, {"cents": 3}]),
        "customers/ben/orders/o3": order(item(DESK), state="open", totalCents="1250"),
        "customers/cleo/orders/o4": order(totalCents=12.5, days={"least": 3, "most": 1}),
        "customers/cleo/orders/o8": order(item(LAMP), state=None, totalCents=1),
        "customers/dora/orders/o5": order(item(LAMP)),
        "customers/gone/orders/o6": order(item(LAMP), item(DESK)),
        "customers/gone/orders/o7": order(),
        "counterOrders/k1": {"total": 10.005, "at": AT}, "counterOrders/k2": {"total": 7, "at": AT},
        "counterOrders/k3": {"total": "7", "at": AT},

        "customers/anna/carts/now": {"items": [{"of": LAMP, "n": 1}]}, "customers/ben/carts/now": {}, "customers/gone/carts/now": {},
        "customers/anna/messages/9007199254740993": {"kind": "text", "body": "hello", "sentAt": AT},
        "customers/anna/messages/2": {"kind": "photo", "caption": "my lamp", "sentAt": AT},
        "customers/anna/messages/3": {"kind": "system", "body": "joined", "sentAt": AT},
        "customers/anna/messages/4": {"kind": 7, "body": "?", "sentAt": AT},
        "customers/ben/messages/007": {"kind": "text", "body": "x", "sentAt": AT},
        "customers/ben/messages/8": {"kind": "text", "sentAt": AT},
        "archive/2025/messages/1": {"kind": "text", "body": "another collection's", "sentAt": AT},
    }  # fmt: skip


def edits(before: Documents) -> Documents:
    """A day of the shop, as its clients write it."""
    after, now, later = deepcopy(before), "2026-03-03T10:00:00.000Z", AT + timedelta(days=1)
    after["customers/anna"] |= {
        "address": {"city": "Jeju"},
        "lucky": None,
        "preferences": {"dark": False},
        "updated": now,
    }
    after["customers/cleo"] |= {"referredBy": "ben", "updated": now}
    after["customers/gila"] = customer("Gila", referredBy="cleo", updated=now)
    after[f"products/{LAMP}"] |= {
        "priceCents": 2150, "sale": {"from": "2026-03-01"}, "tags": ["new"], "categoryIds": ["light", "gifts"], "stock": {"west": 9},
        "labels": {"old": True},
        "sizes": [{"size": "S", "colours": ["blue"]}, {"size": "L", "colours": ["blue"]}], "texts": {"ko": {"title": "등불"}, "fr": {"title": "Lampe"}}, "updatedAt": later,
    }  # fmt: skip
    after[f"products/{CHAIR}"] |= {"deletedAt": None, "updatedAt": later}
    after["customers/anna/orders/o1"] |= {"items": [item(DESK, 2, 199), item(LAMP), item(LAMP, 3)], "state": "shipped", "updated": now,
                                          "discounts": [{"code": "GIFT", "cents": 5}]}  # fmt: skip
    after["customers/anna/orders/o2"] |= {"totalCents": 1, "updated": now}  # the chair of its third line is back
    after["customers/cleo/orders/o8"] |= {"items": [], "totalCents": 2, "updated": now}
    after["customers/gila/orders/o9"] = order(item(CHAIR), updated=now)
    after["counterOrders/k2"] = {"total": 8, "at": later}
    after["customers/ben/carts/now"] = {"items": [1]}
    after["customers/anna/messages/2"] |= {"kind": "system", "sentAt": later}
    after["customers/anna/messages/3"] |= {"kind": "text", "sentAt": later}
    for path in ("counterOrders/k1", "customers/anna/carts/now", "customers/anna/messages/9007199254740993"):
        del after[path]
    return after


# --- the oracle ---------------------------------------------------------------------------------------------------------------

STATES = {
    None: "open",
    "open": "open",
    "paid": "paid",
    "shipped": "shipped",
    "CANCELLED": "canceled",
    "canceled": "canceled",
}
DAYS = {None: None, "mon": "mon", "tue": "tue", 1: "mon", 2: "tue", 3: "wed"}


class No(Exception):
    """What can't become a row."""


def iso(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def money(cents: Any) -> Decimal:
    return (Decimal(cents) / 100).quantize(Decimal("0.01"), "ROUND_HALF_UP")


def profile(one: dict[str, Any], profiles: set[str]) -> tuple[Any, ...]:
    if not isinstance(one["email"], str) or one.get("deliveryDay") not in DAYS:
        raise No
    seen = one.get("lastSeen")
    return (
        f"{one['name']['given']} {one['name']['family']}",
        one["displayName"] or one["userName"],
        one["email"].strip().lower(),
        None if "phone" not in one else str(one["phone"]).replace(" ", "").replace("(", "").replace(")", "").ljust(12),
        one["address"]["city"],
        date.fromisoformat(one["bornOn"]) if "bornOn" in one else None,
        one.get("credit", 0),
        one.get("newsletter", False) in (True, "true"),
        one.get("tags", []),
        one.get("lucky"),
        DAYS[one.get("deliveryDay")],
        {name: ISO if value == AT else value for name, value in one.get("preferences", {}).items()},
        one.get("lastIp"),
        None if seen is None else datetime.fromtimestamp((seen + 500) // 1000, UTC),
        datetime.fromtimestamp(one["trialEnds"], UTC).replace(tzinfo=None) if "trialEnds" in one else None,
        "firebase",
        one.get("referredBy") if one.get("referredBy") in profiles else None,
        iso(one["created"]),
    )


def product_row(one: dict[str, Any]) -> tuple[Any, ...]:
    if one.get("taxClass") not in (None, "full", "books"):
        raise No
    sale, tags = one.get("sale", {}), one.get("tags", [])
    ends = sale.get("to") and date.fromisoformat(sale["to"]) + timedelta(days=1)
    return (
        one["sku"], one["name"][:40], money(one["priceCents"]), "0.1" if "weight" in one else None, 4.5 if "rating" in one else None,
        f"[{sale['from']},{ends or ''})" if sale else None, "1 day 12:00:00" if "preparation" in one else None,
        {"watts": 7} if "spec" in one else None, one.get("photo"), tags[0] if tags else None, len(tags), one.get("note") or None,
        one.get("taxClass"), one["updatedAt"].replace(microsecond=one["updatedAt"].microsecond // 1000 * 1000),
    )  # fmt: skip


def order_row(one: dict[str, Any], owner: str, profiles: set[str]) -> tuple[Any, ...]:
    days = one.get("days", {"least": 1, "most": 0} if "days" in one else None)
    if isinstance(one["totalCents"], str) and not one["totalCents"].isdigit():
        raise No
    if days is not None and days["least"] > days["most"]:
        raise No
    shipped, invoiced = one.get("shipped"), one.get("invoiced")
    return (
        owner,
        one["assistant"] if one.get("assistant") in profiles else None,
        STATES[one["state"]],
        money(one["totalCents"]),
        iso(one["placed"]),
        parsedate_to_datetime(one["paid"]) if "paid" in one else None,
        None if invoiced is None else datetime.fromtimestamp(invoiced["_seconds"], UTC) + timedelta(milliseconds=invoiced["_nanoseconds"] / 10**6),
        None if shipped is None else iso(shipped) if isinstance(shipped, str) else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=shipped),
        None if days is None else f"[{days['least']},{days['most'] + 1})",
        iso(one["updated"]),
    )  # fmt: skip


def wanted(all_documents: Documents) -> Wanted:
    w = Wanted()
    below: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for path, one in sorted(all_documents.items()):
        *above, collection, name = path.split("/")
        below.setdefault(collection, []).append(("/".join(above), name, one))

    customers = {name: one for _, name, one in below["customers"]}
    emails: set[str] = set()
    profiles: set[str] = set()
    for name, one in customers.items():
        email = one["email"].strip().lower() if isinstance(one["email"], str) else ""
        if email in emails or not email or one.get("deliveryDay") not in DAYS:
            w.reject("profiles", (name,))
        else:
            emails.add(email)
            profiles.add(name)
    for name in profiles:
        w.row("profiles", (name,), profile(customers[name], profiles | {"emil"}))

    products = set()
    for _, name, one in below["products"]:
        if one.get("deletedAt") is not None:
            continue
        if name == TWIN:
            w.duplicate("products")
        elif name in (RUG.upper(), "no-uuid") or one.get("taxClass") == "unknown":
            w.reject("products", (name,))
        else:
            products.add(name)
            w.row("products", (name,), product_row(one))
    for _, name, one in below["products"]:
        if one.get("deletedAt") is not None:
            continue

        def part(collection: str, key: str, values: tuple[Any, ...], fits: bool = True, name: str = name) -> None:
            if fits and name in products:
                w.row(collection, (name, key), values)
            else:
                w.reject(collection, (name, key))

        for category in set(one.get("categoryIds", [])):
            part("product_categories", category, ())
        for warehouse, amount in one.get("stock", {}).items():
            part("stock", warehouse, (int(amount),), int(amount) >= 0)
        for label, on in one.get("labels", {}).items():
            if on is not False:
                part("product_labels", label, (), on is True)
        for size in one.get("sizes", []):
            for colour in set(size["colours"]) - {"none"}:
                w.row("product_variants", (name, size["size"], colour), ())
        for language, texts in one.get("texts", {}).items():
            part("product_texts", language, (texts.get("title"), texts.get("summary")), "title" in texts)

    for place, name, one in below["orders"]:
        owner = place.split("/")[-1]
        fits = (
            owner in profiles
            and (one.get("days") or {"least": 0, "most": 0})["least"] <= (one.get("days") or {"most": 0})["most"]
        )
        if owner not in customers:
            w.orphan("orders", (name,))
        elif fits:
            w.row("orders", (name,), order_row(one, owner, profiles))
        else:
            w.reject("orders", (name,))
        for position, it in enumerate(one["items"], 1):
            if it["quantity"] == "many" or (owner in customers and not fits):
                w.reject("order_lines", (name, str(position)))
            elif owner not in customers or all_documents[f"products/{it['product']}"].get("deletedAt"):
                w.orphan("order_lines", (name, str(position)))
            else:
                w.row("order_lines", (name, str(position)), (it["product"], it["quantity"], money(it["cents"])))
        codes = set()
        for discount in one.get("discounts", []):
            if discount.get("revoked") is not None:
                continue
            if discount.get("code") is None or discount["code"] in codes:
                w.reject("order_discounts")
            else:
                codes.add(discount["code"])
                w.row("order_discounts", (name, discount["code"]), (f"{money(discount['cents'])} EUR",))
    for _, name, one in below["counterOrders"]:
        if isinstance(one["total"], str):
            w.reject("counter_orders", (name,))
        else:
            total = Decimal(str(one["total"])).quantize(Decimal("0.01"), "ROUND_HALF_UP")
            w.row("counter_orders", (name,), ("paid", total, one["at"], one["at"]))

    for place, name, one in below["carts"]:
        owner = place.split("/")[-1]
        if owner in customers:
            w.row("carts", (owner, name), (one.get("items", []),))
        else:
            w.orphan("carts", (owner, name))
    for place, name, one in below["messages"]:
        body = one.get("body", one.get("caption"))
        if place.startswith("archive") or one["kind"] == "system":
            continue
        if one["kind"] == 7 or body is None or not name.isdigit() or name.startswith("0"):
            w.reject("messages", (name,))
        else:
            w.row("messages", (name,), (place.split("/")[-1], body, one["sentAt"]))
    return w


QUERIES = {
    "profiles": (1, """
        SELECT p.firestore_id, p.full_name, p.display_name, p.email::text, p.phone, p.city, p.born_on, p.credit, p.newsletter, p.tags,
               p.lucky_numbers, p.delivery_day::text, p.preferences, host(p.last_ip), p.last_seen_at, p.trial_ends_at, p.origin,
               r.firestore_id, p.created_at
        FROM shop.profiles p LEFT JOIN shop.profiles r ON r.id = p.referred_by"""),
    "products": (1, """
        SELECT id::text, sku::text, name, price, weight::text, rating, on_sale::text, preparation::text, spec, photo, main_tag, tag_count,
               note, tax_class, updated_at FROM shop.products"""),
    "product_categories": (2, "SELECT product_id::text, category FROM shop.product_categories"),
    "stock": (2, "SELECT product_id::text, warehouse, amount FROM shop.stock"),
    "product_labels": (2, "SELECT product_id::text, label FROM shop.product_labels"),
    "product_texts": (2, "SELECT product_id::text, language, title, summary FROM shop.product_texts"),
    "product_variants": (3, "SELECT product_id::text, size, colour FROM shop.product_variants"),
    "orders": (1, """
        SELECT o.id, p.firestore_id, a.firestore_id, o.state::text, o.total, o.placed_at, o.paid_at, o.invoiced_at, o.shipped_at,
               o.shipping_days::text, o.changed_at
        FROM shop.orders o LEFT JOIN shop.profiles p ON p.id = o.profile_id LEFT JOIN shop.profiles a ON a.id = o.assistant_id
        WHERE o.channel = 'web'"""),
    "counter_orders": (1, "SELECT id, state::text, total, placed_at, changed_at FROM shop.orders WHERE channel = 'counter'"),
    "order_lines": (2, "SELECT order_id, position::text, product_id::text, quantity, price FROM shop.order_lines"),
    "order_discounts": (2, "SELECT order_id, code, amount FROM shop.order_discounts"),
    "carts": (2, "SELECT p.firestore_id, c.cart_id, c.items FROM shop.carts c JOIN shop.profiles p ON p.id = c.profile_id"),
    "messages": (1, """
        SELECT m.id::text, p.firestore_id, m.body, m.sent_at FROM shop.messages m JOIN shop.profiles p ON p.id = m.profile_id"""),
}  # fmt: skip
OUTSIDE = "SELECT o::text FROM shop.orders o WHERE channel = 'phone' UNION ALL SELECT t::text FROM shop.tax_classes t ORDER BY 1"
DRAFTED = (
    "Column('id', 'key', DocumentId()),  # GUESS the document's id: no field looks like it, 2 of 7 sampled ids are no key of this type: "
    "their documents are rejected",
    "Column('profile_id', 'key', Segment('customer'), references=Parent('profiles', holds='id')),  # GUESS the id above: "
    "no field looks like it, foreign key, on delete cascade",
    "Column('state', 'compared', Field('state'), required=True, absent='open'),  # GUESS from its name, 7 of 8 sampled, text, "
    "TODO 1 of 3 sampled texts are no label of shop.order_state",
    "Column('paid_at', 'compared', Field('paid') >> http_date)", "Column('invoiced_at', 'compared', Field('invoiced') >> timestamp_map)",
    "shipped_at (timestamp with time zone): TODO field 'shipped' looks like it and holds ISO time and epoch milliseconds",
    "trigger touched sets it, so it is never compared", "No collection looks like table shop.tax_classes",
    "customers/{customer}/orders/{order}              shop.orders              0         9        3: channel, shipped_at, shipping_days",
)  # fmt: skip


def sound(before: Documents) -> Documents:
    """Without values that a constraint refuses, and without references to what has no row."""
    after = deepcopy(before)
    for one in after.values():
        for name in ("referredBy", "assistant"):
            if one.get(name) == "nobody":
                del one[name]
    after[f"products/{DESK}"]["stock"]["west"] = 1
    if after[f"products/{CHAIR}"].get("deletedAt"):
        after["customers/anna/orders/o2"]["items"].pop()
    return after


SHOP = World("shop", Path(__file__).parent, documents, edits, QUERIES, wanted, sound, DRAFTED, OUTSIDE)
