"""The shop's catalog, as its team would write it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from dualwrite.model.check_fields import Check
from dualwrite.model.conditions import Absent, AllOf, Is, Not
from dualwrite.model.conversions import (
    Conversion,
    array,
    boolean,
    count,
    epoch_milliseconds,
    epoch_seconds,
    first,
    hexadecimal,
    http_date,
    integer,
    iso_time,
    json_text,
    lower,
    null_if_empty,
    number,
    one_of,
    plain_json,
    scaled,
    text,
    timestamp_map,
    trim,
)
from dualwrite.model.declaration import (
    ArrayElements,
    Catalog,
    Collection,
    Column,
    Computed,
    ComputedEntries,
    Constant,
    DocumentId,
    EntryField,
    EntryIndex,
    EntryKey,
    EntryValue,
    Field,
    FirstOf,
    MapEntries,
    Parent,
    Segment,
    WholeDocument,
)

EXPORT_TIME = datetime(2026, 3, 1, tzinfo=UTC)


def full_name(given: str, family: str) -> str:
    return f"{given} {family}"


def sale_of(begins: str | None, ends: str | None) -> str | None:
    """Two days of a document, both inside, as a daterange."""
    return None if begins is None and ends is None else f"[{begins or ''},{ends or ''}]"


def days(least: int | None, most: int | None) -> str | None:
    return None if least is None else f"[{least},{most}]"


def variants(sizes: list[dict[str, Any]] | None) -> list[dict[str, str]]:
    """Arrays within an array: the colours of each size."""
    return [{"size": one["size"], "colour": colour} for one in sizes or () for colour in one["colours"]]


def money(cents: int, currency: str) -> str:
    return f"{cents // 100}.{cents % 100:02} {currency}"


def any_time(value: object) -> datetime:
    """Old clients wrote milliseconds, new ones ISO strings."""
    return (iso_time if isinstance(value, str) else epoch_milliseconds).convert(value)


shipped = Conversion("any_time", any_time, "timestamp")
digits = Conversion("digits", lambda value: re.sub(r"[^0-9+]", "", value), "text")
STATES = {"open": "open", "paid": "paid", "shipped": "shipped", "CANCELLED": "canceled", "canceled": "canceled"}
WEEKDAYS = {"mon": "mon", 1: "mon", "tue": "tue", 2: "tue", "wed": "wed", 3: "wed"}

UPDATED = (Check("updated", iso_time),)
CUSTOMER = Column(
    "profile_id", "compared", Segment("customer"), required=True, references=Parent("profiles", holds="id")
)

PROFILES = Collection(
    name="profiles", table="shop.profiles", paths=("customers/{customer}",), selected=True, sentinel=True,
    check_fields=UPDATED, written_columns=("updated_at",),
    columns=(
        Column("firestore_id", "key", DocumentId()),
        Column("full_name", "compared", Computed(full_name, "name.given", "name.family"), required=True),
        Column("display_name", "compared", FirstOf(Field("displayName"), Field("userName"))),
        Column("email", "compared", Field("email") >> trim >> lower),
        Column("phone", "compared", Field("phone") >> text >> digits),
        Column("city", "compared", Field("address.city")),
        Column("born_on", "compared", Field("bornOn")),
        Column("credit", "compared", Field("credit"), "integer", absent=0),
        Column("points", "derived", Field("points"), "integer", absent=0),
        Column("newsletter", "compared", Field("newsletter") >> boolean, absent=False),
        Column("tags", "compared", Field("tags") >> array, absent=[]),
        Column("lucky_numbers", "compared", Field("lucky") >> array),
        Column("delivery_day", "compared", Field("deliveryDay") >> one_of(WEEKDAYS)),
        Column("preferences", "compared", Field("preferences") >> plain_json, absent={}),
        Column("last_ip", "compared", Field("lastIp")),
        Column("last_seen_at", "compared", Field("lastSeen") >> epoch_milliseconds),
        Column("trial_ends_at", "compared", Field("trialEnds") >> epoch_seconds),
        Column("origin", "compared", Constant("firebase")),
        Column("referred_by", "compared", Field("referredBy"), references=Parent("profiles", holds="id")),
        Column("created_at", "compared", Field("created") >> iso_time, required=True),
        Column("updated_at", "insert_only", Field("updated") >> iso_time, required=True),  # then a trigger's
    ),
)  # fmt: skip

PRODUCTS = Collection(
    name="products", table="shop.products", paths=("products/{product}",), where=Absent("deletedAt"), selected=True,
    check_fields=("updatedAt",), written_columns=("updated_at",), unique=(("sku",),),
    columns=(
        Column("id", "key", DocumentId()),
        Column("sku", "compared", Field("sku"), required=True),
        Column("name", "compared", Field("name"), required=True),
        Column("price", "compared", Field("priceCents") >> scaled(-2), required=True),
        Column("weight", "compared", Field("weight"), "numeric"),
        Column("rating", "compared", Field("rating") >> number),
        Column("on_sale", "compared", Computed(sale_of, "sale.from", "sale.to")),
        Column("preparation", "compared", Field("preparation")),
        Column("spec", "compared", Field("spec") >> json_text),
        Column("photo", "compared", Field("photo") >> hexadecimal),
        Column("main_tag", "compared", Field("tags") >> first),
        Column("tag_count", "compared", Field("tags") >> count, absent=0),
        Column("note", "compared", Field("note") >> null_if_empty),
        Column("tax_class", "compared", Field("taxClass")),
        Column("updated_at", "compared", Field("updatedAt"), "timestamp", required=True),
    ),
)  # fmt: skip


def of_products(
    name: str, entries: ArrayElements | ComputedEntries | MapEntries, *columns: Column, **more: object
) -> Collection:
    product = Column("product_id", "key", Segment("product"), references="products")
    return Collection(name, f"shop.{name}", PRODUCTS.paths, (product, *columns), entries=entries, check_fields=("updatedAt",),
                      selected=True, **{"where": Absent("deletedAt"), **more})  # fmt: skip


CATEGORIES = of_products("product_categories", ArrayElements("categoryIds"), Column("category", "key", EntryKey()))
STOCK = of_products(
    "stock", MapEntries("stock"), Column("warehouse", "key", EntryKey()),
    Column("amount", "compared", EntryValue() >> integer, required=True),
)  # fmt: skip
LABELS = of_products(
    "product_labels", MapEntries("labels"), Column("label", "key", EntryKey()),
    where=AllOf(Absent("deletedAt"), Is(EntryValue(), True)),
)  # fmt: skip
TEXTS = of_products(
    "product_texts", MapEntries("texts"), Column("language", "key", EntryKey()),
    Column("title", "compared", EntryField("title"), required=True), Column("summary", "compared", EntryField("summary")),
)  # fmt: skip
VARIANTS = of_products(
    "product_variants", ComputedEntries(variants, "sizes"),
    Column("size", "key", EntryField("size")), Column("colour", "key", EntryField("colour")),
    where=AllOf(Absent("deletedAt"), Not(Is(EntryField("colour"), "none"))),
)  # fmt: skip

WEB_ORDERS = Collection(
    name="orders", table="shop.orders", rows={"channel": "web"}, paths=("customers/{customer}/orders/{order}",),
    check_fields=UPDATED, written_columns=("changed_at",), selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        CUSTOMER,
        Column("assistant_id", "compared", Field("assistant"), references=Parent("profiles", holds="id")),
        Column("state", "compared", Field("state") >> one_of(STATES), required=True, absent="open"),
        Column("total", "compared", Field("totalCents") >> scaled(-2), required=True),
        Column("placed_at", "compared", Field("placed") >> iso_time, required=True),
        Column("paid_at", "compared", Field("paid") >> http_date),
        Column("invoiced_at", "compared", Field("invoiced") >> timestamp_map),
        Column("shipped_at", "compared", Field("shipped") >> shipped),
        Column("shipping_days", "compared", Computed(days, "days.least", "days.most")),
        Column("changed_at", "compared", Field("updated") >> iso_time),
    ),
)  # fmt: skip
COUNTER_ORDERS = Collection(
    name="counter_orders", table="shop.orders", rows={"channel": "counter"}, paths=("counterOrders/{order}",),
    check_fields=("at",), written_columns=("changed_at",), selected=True,
    columns=(
        Column("id", "key", DocumentId()),
        Column("state", "compared", Constant("paid")),
        Column("total", "compared", Field("total"), "numeric", required=True),
        Column("placed_at", "compared", Field("at"), "timestamp", required=True),
        Column("changed_at", "compared", Field("at"), "timestamp", required=True),
    ),
)  # fmt: skip
ORDER = Column("order_id", "key", Segment("order"), references="orders")
LINES = Collection(
    name="order_lines", table="shop.order_lines", paths=WEB_ORDERS.paths, entries=ArrayElements("items"),
    check_fields=UPDATED, selected=True,
    columns=(
        ORDER,
        Column("position", "key", EntryIndex(1)),
        Column("product_id", "compared", EntryField("product"), required=True, references="products"),
        Column("quantity", "compared", EntryField("quantity"), "integer", required=True),
        Column("price", "compared", EntryField("cents") >> scaled(-2), required=True),
    ),
)  # fmt: skip
DISCOUNTS = Collection(
    name="order_discounts", table="shop.order_discounts", paths=WEB_ORDERS.paths, entries=ArrayElements("discounts"),
    check_fields=UPDATED, selected=True, where=Absent(EntryField("revoked")),
    columns=(
        ORDER,
        Column("code", "key", EntryField("code")),
        Column("amount", "compared", Computed(money, EntryField("cents"), "currency"), required=True),
    ),
)  # fmt: skip

CARTS = Collection(
    name="carts", table="shop.carts", paths=("customers/{customer}/carts/{cart}",), selected=True,
    columns=(
        Column("profile_id", "key", Segment("customer"), references=Parent("profiles", holds="id")),
        Column("cart_id", "key", DocumentId()),
        Column("items", "compared", Field("items") >> plain_json, absent=[]),
    ),
)  # fmt: skip
MESSAGES = Collection(
    name="messages", table="shop.messages", paths=("customers/{customer}/messages/{message}",), selected=True,
    where=Is("kind", "text", "photo"), check_fields=("sentAt",), written_columns=("sent_at",),
    columns=(
        Column("id", "key", DocumentId()),
        CUSTOMER,
        Column("body", "compared", FirstOf(Field("body"), Field("caption")), required=True),
        Column("sent_at", "compared", Field("sentAt"), "timestamp", required=True),
        Column("raw", "insert_only", WholeDocument() >> plain_json),
    ),
)  # fmt: skip

CATALOG = Catalog((
    PROFILES, PRODUCTS, CATEGORIES, STOCK, LABELS, TEXTS, VARIANTS, WEB_ORDERS, COUNTER_ORDERS, LINES, DISCOUNTS, CARTS, MESSAGES,
))  # fmt: skip
