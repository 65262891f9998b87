"""A second world that shares nothing with the first: a shop, in a schema of its own, nested otherwise, without write_ops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

EXPORTED = datetime(2026, 3, 1, tzinfo=UTC)

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.stores (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, opened_at TIMESTAMPTZ, created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE shop.customers (
  id TEXT PRIMARY KEY, full_name TEXT NOT NULL DEFAULT '', email TEXT, vip BOOLEAN NOT NULL DEFAULT false,
  preferences JSONB, city TEXT, created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE shop.customer_store_roles (
  id TEXT PRIMARY KEY DEFAULT gen_random_uuid()::text,
  customer_id TEXT NOT NULL REFERENCES shop.customers (id), store_id TEXT NOT NULL REFERENCES shop.stores (id),
  role TEXT NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now(), UNIQUE (customer_id, store_id)
);
CREATE TABLE shop.orders (
  id TEXT PRIMARY KEY, customer_id TEXT NOT NULL REFERENCES shop.customers (id),
  store_id TEXT NOT NULL REFERENCES shop.stores (id), status TEXT NOT NULL DEFAULT 'open', total NUMERIC NOT NULL DEFAULT 0,
  placed_at TIMESTAMPTZ NOT NULL DEFAULT now(), changed_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE shop.order_lines (
  id TEXT PRIMARY KEY, order_id TEXT NOT NULL REFERENCES shop.orders (id), sku TEXT NOT NULL, quantity INTEGER NOT NULL,
  note TEXT, added_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE shop.coupons (
  customer_id TEXT NOT NULL REFERENCES shop.customers (id), code TEXT NOT NULL, percent INTEGER NOT NULL DEFAULT 0,
  created_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (customer_id, code)
);
CREATE TABLE shop.audit (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what TEXT);
"""


def documents() -> dict[str, dict[str, Any]]:
    """Four customers in two stores, half of what they did after the export; some fields absent."""
    found: dict[str, dict[str, Any]] = {}
    for store in ("north", "south"):
        found[f"stores/{store}"] = {"name": store.title(), "openedAt": EXPORTED, "createdAt": EXPORTED}
    for c in range(4):
        at = EXPORTED + timedelta(days=c - 2)
        customer: dict[str, Any] = {
            "fullName": f"Customer {c}",
            "email": f"c{c}@example.org",
            "vip": c == 1,
            "preferences": {"theme": "dark", "size": c},
            "address": {"city": "Seoul"},
            "storeRoles": {("north", "south")[c % 2]: "buyer"},
            "createdAt": at,
            "updatedAt": at,
        }
        if c == 3:
            del customer["email"]
        found[f"customers/c{c}"] = customer
        found[f"customers/c{c}/coupons/SPRING{c}"] = {"percent": 10 * c, "createdAt": at}
        for o in range(3):
            order = f"customers/c{c}/orders/o{c}{o}"
            placed = at + timedelta(hours=o)
            found[order] = {
                "storeId": "north",
                "status": "paid",
                "total": 12.5 + o,
                "placedAt": placed,
                "changedAt": placed,
            }
            for line in range(2):
                found[f"{order}/lines/l{c}{o}{line}"] = {
                    "sku": f"sku-{line}", "quantity": line + 1, "note": "a secret note", "addedAt": placed,
                }  # fmt: skip
        found[f"customers/c{c}/searches/s{c}"] = {"text": "not moved"}
    return found


def load(client: Any, dsn: str) -> None:
    """The documents, the schema, and of the rows only the stores and customers of before the export."""
    for path, fields in documents().items():
        client.document(path).set(fields)
    with psycopg.connect(dsn) as connection:
        connection.execute(SCHEMA)
        for path, fields in documents().items():
            if path.startswith("stores/"):
                connection.execute(
                    "INSERT INTO shop.stores (id, name, opened_at, created_at) VALUES (%s, %s, %s, %s)",
                    (path.split("/")[1], fields["name"], fields["openedAt"], fields["createdAt"]),
                )
        for c in (0, 1):
            at = EXPORTED + timedelta(days=c - 2)
            connection.execute(
                "INSERT INTO shop.customers (id, full_name, email, vip, preferences, city, created_at, updated_at) "
                "VALUES (%s, %s, %s, %s, %s, 'Seoul', %s, %s)",
                (f"c{c}", f"Customer {c}", f"c{c}@example.org", c == 1,
                 Jsonb({"theme": "dark", "size": c}), at, at),
            )  # fmt: skip
