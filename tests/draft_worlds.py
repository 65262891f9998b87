"""Six apps whose catalogs are drafted: their schemas, their documents, and what a draft must find in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.cloud import firestore

AT = datetime(2026, 3, 1, 8, 30, 0, 123000, tzinfo=UTC)
ISO = "2026-03-01T08:30:00.123Z"
MILLISECONDS = 1_772_353_800_123
UUIDS = [f"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1{n}" for n in range(4)]


@dataclass(frozen=True)
class World:
    """`columns`: `table.column` -> its declaration as the draft writes it. `comments`: what stands in comments."""

    name: str
    schema: str
    documents: Callable[[Any], dict[str, dict[str, Any]]]
    columns: dict[str, str]
    paths: dict[str, tuple[str, ...]]
    comments: tuple[str, ...]
    schemas: str = "public"
    refused: frozenset[str] = frozenset()
    """Tables whose rows can't be declared as they are."""


# --- a clinic: generated ids, ISO and epoch times, enums, arrays, names that differ, triggers ---------------------------------

CLINIC = """
CREATE TYPE state AS ENUM ('open', 'done');
CREATE DOMAIN short_text AS varchar(40) CHECK (VALUE <> '');
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;
CREATE TABLE profiles (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, legacy_id text NOT NULL UNIQUE, full_name text NOT NULL DEFAULT '',
  nick_name short_text, email text, weight double precision, score_points bigint NOT NULL DEFAULT 0, born_on date,
  last_seen_at timestamptz, search text GENERATED ALWAYS AS (lower(full_name)) STORED, is_vip boolean NOT NULL DEFAULT false,
  settings jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER touched BEFORE UPDATE ON profiles FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE visits (
  id uuid PRIMARY KEY, status state NOT NULL DEFAULT 'open', tags text[] NOT NULL DEFAULT '{}', minutes integer[],
  starts_at timestamptz NOT NULL, ends_at timestamp, price numeric(10,2), duration_label text, notes jsonb, ip inet,
  visit_count integer, attachment bytea, paid boolean, code text, mixed_at timestamptz
);
CREATE TABLE questions (
  id text PRIMARY KEY, title text NOT NULL, body text NOT NULL, profile_id bigint REFERENCES profiles (id) ON DELETE SET NULL
);
CREATE TABLE audit (what text);
"""


def clinic(client: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for n in range(3):
        found[f"v3_users/user{n}"] = {
            "fullname": f"Secret Name {n}", "nickName": f"nick{n}", "email": f"u{n}@example.org", "weight": 70.5 + n,
            "scorePoints": 2**40 + n, "bornOn": "1990-02-0" + str(n + 1), "lastSeen": MILLISECONDS + n, "isVip": n == 1,
            "settings": {"since": AT, "theme": "dark"}, "createdAt": AT, "updatedAt": AT,
        }  # fmt: skip
        found[f"visits/{UUIDS[n]}"] = {
            "status": "open" if n else "cancelled", "tags": ["a", "b"], "minutes": [5, 10], "startsAt": ISO, "endsAt": 1_772_353_800 + n,
            "priceCents": 1999 + n, "durationLabel": 5 + n if n else "five", "notes": [{"by": "x"}], "ip": "10.0.0.1",
            "visitCount": str(n), "attachment": b"x", "paid": "true", "code": AT, "mixedAt": ISO if n else AT,
            "createdAt": ISO, "modified": MILLISECONDS + n, "edited": "2026-03-01T08:30:00+00:00",
        }  # fmt: skip
        found[f"questions_rev20230926/q{n}"] = {"title": f"title {n}", "body": "a body", "profile": f"user{n}"}
    return found


# --- a market: references, geopoints, trees, keys of columns, odd names, parents that don't exist ------------------------------

MARKET = """
CREATE TABLE categories (
  id text PRIMARY KEY, name text NOT NULL, parent_id text REFERENCES categories (id)
);
CREATE TABLE sellers (
  id text PRIMARY KEY, display_name text NOT NULL, lat double precision, lng double precision, place_path text,
  joined_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE offers (
  id text PRIMARY KEY, seller_id text NOT NULL REFERENCES sellers (id) ON DELETE CASCADE,
  category_id text REFERENCES categories (id) ON DELETE SET NULL, label text, follower_ids text[], extra jsonb,
  updated_at timestamptz
);
CREATE TABLE seller_ratings (
  seller_id text NOT NULL REFERENCES sellers (id), buyer_id text NOT NULL, stars integer NOT NULL,
  PRIMARY KEY (seller_id, buyer_id)
);
CREATE TABLE rating_flags (
  id text PRIMARY KEY, seller_id text NOT NULL, buyer_id text NOT NULL, flag_reason text NOT NULL,
  FOREIGN KEY (seller_id, buyer_id) REFERENCES seller_ratings (seller_id, buyer_id)
);
CREATE TABLE "2nd-hand items" (id text PRIMARY KEY, "shelf mark" text, item_size integer);
CREATE TABLE order_lines (order_id text NOT NULL, position smallint NOT NULL, sku text NOT NULL, quantity integer NOT NULL,
                          PRIMARY KEY (order_id, position));
CREATE TABLE seller_members (
  seller_id text NOT NULL REFERENCES sellers (id), member_id text NOT NULL, role text NOT NULL, since timestamptz,
  PRIMARY KEY (seller_id, member_id)
);
CREATE TABLE offer_pictures (
  offer_id text NOT NULL REFERENCES offers (id), line_no integer NOT NULL, url text NOT NULL, width_px integer,
  PRIMARY KEY (offer_id, line_no)
);
CREATE TABLE offer_steps (id text PRIMARY KEY, offer_id text NOT NULL REFERENCES offers (id), label text NOT NULL, minutes integer);
CREATE TABLE team_settings (id text PRIMARY KEY, quota integer NOT NULL, region text);
CREATE TABLE seller_settings (id text PRIMARY KEY, currency text NOT NULL, holiday boolean NOT NULL);
CREATE TABLE parcels (id text PRIMARY KEY, courier text NOT NULL, tracking_code text);
"""


def market(client: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for n in range(3):
        seller = client.document(f"sellers/s{n}")
        found[f"categories/c{n}"] = {
            "name": f"category {n}",
            "parent": client.document(f"categories/c{n - 1}") if n else None,
        }
        found[f"sellers/s{n}"] = {
            "displayName": f"Secret Seller {n}",
            "location": firestore.GeoPoint(37.5, 127.0 + n),
            "joined": AT - timedelta(days=n),
            "members": {f"b{n}": {"role": "owner", "since": AT}, f"x{n}": {"role": "help"}},
        }
        found[f"offers/o{n}"] = {
            "owner": seller, "category": client.document(f"categories/c{n}"), "offer.label": f"label {n}",
            "pictures": [{"url": f"https://example.org/{i}", "widthPx": 10} for i in range(n)],
            "steps": [{"label": "first", "minutes": 1}, "odd"], "followerIds": [seller], "extra": {"home": firestore.GeoPoint(1.0, 2.0)}, "updatedAt": AT,
        }  # fmt: skip
        found[f"sellers/s{n}/ratings/b{n}"] = {"stars": n}
        found[f"sellers/s{n}/settings/main"] = {"currency": "KRW", "holiday": False}
        found[f"teams/t{n}/settings/main"] = {"quota": n, "region": "east"}  # no team exists
        found[f"flags/f{n}"] = {"sellerId": f"s{n}", "buyerId": f"b{n}", "flagReason": "x"}
        found[f"2nd-hand items/i{n}"] = {"shelf mark": f"m{n}", "itemSize": n}
        found[f"orders/r{n}"] = {"lines": [{"sku": "x", "quantity": n, "position": n}]}
        found[f"years/2026/parcels/p{n}"] = {"courier": "fast", "trackingCode": f"t{n}"}
    return found


# --- a music service: three schemas, tables of one name, natural keys, own ids, partitions, views, a foreign table -----------------

MUSIC = """
CREATE SCHEMA music; CREATE SCHEMA billing;
CREATE TYPE music.plan AS ENUM ('free', 'paid');
CREATE TABLE public.users (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email text NOT NULL UNIQUE, plan music.plan NOT NULL DEFAULT 'free', display_name text,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE public.user_settings (user_id uuid PRIMARY KEY REFERENCES public.users, theme text, locale text);
CREATE TABLE public.messages (
  id text PRIMARY KEY, sender_id uuid NOT NULL REFERENCES public.users, user_id uuid NOT NULL REFERENCES public.users, body text NOT NULL
);
CREATE TABLE music.artists (id text PRIMARY KEY, name text NOT NULL, bio text, monthly_listeners bigint);
CREATE TABLE music.albums (
  id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, slug text NOT NULL UNIQUE,
  artist_id text NOT NULL REFERENCES music.artists ON DELETE CASCADE, title text NOT NULL, released date, cover jsonb
);
CREATE TABLE music.tracks (
  album_id bigint NOT NULL REFERENCES music.albums, disc smallint NOT NULL, no smallint NOT NULL, title text NOT NULL,
  duration_ms integer NOT NULL, length interval GENERATED ALWAYS AS (duration_ms * interval '1 millisecond') STORED,
  PRIMARY KEY (album_id, disc, no)
);
CREATE TABLE music.playlists (
  id text PRIMARY KEY, owner_id uuid NOT NULL REFERENCES public.users, created_by uuid REFERENCES public.users, title text,
  starts_at timestamptz NOT NULL, updated_at timestamptz
);
CREATE TABLE music.playlist_items (
  id text PRIMARY KEY, playlist_id text NOT NULL REFERENCES music.playlists ON DELETE CASCADE, track_ref text NOT NULL,
  added_by uuid REFERENCES public.users
);
CREATE TABLE music.playlist_covers (
  id text PRIMARY KEY DEFAULT gen_random_uuid(), playlist_id text NOT NULL REFERENCES music.playlists, size text NOT NULL, url text NOT NULL,
  UNIQUE (playlist_id, size)
);
CREATE TABLE music.plays (
  id text NOT NULL, user_id uuid NOT NULL, played_at timestamptz NOT NULL, PRIMARY KEY (id, played_at)
) PARTITION BY RANGE (played_at);
CREATE TABLE music.plays_2026 PARTITION OF music.plays FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE music.devices (id text NOT NULL, user_id uuid NOT NULL, name text, kind text, PRIMARY KEY (user_id, id)) PARTITION BY HASH (user_id);
CREATE TABLE music.devices_0 PARTITION OF music.devices FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE public.vouchers (code text PRIMARY KEY, user_id uuid NOT NULL REFERENCES public.users, state text NOT NULL);
CREATE TABLE public.subscriptions (id text PRIMARY KEY, user_id uuid NOT NULL REFERENCES public.users, state text NOT NULL);
CREATE TABLE billing.subscriptions (
  id text PRIMARY KEY, user_id uuid NOT NULL REFERENCES public.users, amount_cents integer NOT NULL, currency char(3) NOT NULL
);
CREATE TABLE public.billing_subscriptions (id text PRIMARY KEY, note text, region text);
CREATE TABLE "Odd Schema Table" ("Id" text PRIMARY KEY, "select" text, "öl" text, "100%" integer);
CREATE VIEW music.top AS SELECT * FROM music.artists;
CREATE MATERIALIZED VIEW music.charts AS SELECT * FROM music.artists;
CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE music.radio (id text, place integer) SERVER far;
CREATE TABLE billing.empty ();
"""


def music(client: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for n, user in enumerate(UUIDS):
        other = UUIDS[(n + 1) % 4]
        found[f"users/{user}"] = {
            "email": f"Secret{n}@example.org", "plan": "paid" if n else "free", "createdAt": AT,
            "displayName" if n % 2 else "name": f"Secret {n}",
        }  # fmt: skip
        found[f"users/{user}/settings/app"] = {"theme": "dark", "locale": "de"}
        found[f"users/{user}/messages/m{n}"] = {"senderId": other, "userId": user, "body": "Secret"}
        found[f"users/{user}/devices/d{n}"] = {"name": "Secret phone", "kind": "ios"}
        found[f"users/{user}/subscriptions/s{n}"] = {"amountCents": 5, "currency": "EUR"}
        found[f"artists/ar{n}"] = {"name": f"Secret {n}", "bio": None, "monthlyListeners": 2**33}
        found[f"artists/ar{n}/albums/al{n}"] = {
            "slug": f"slug-{n}", "title": "t", "released": "2020-01-01", "cover": {"url": "x"},
            "tracks": [{"disc": 1, "no": i, "title": "x", "durationMs": 1000 + i} for i in range(3)],
        }  # fmt: skip
        found[f"playlists/p{n}"] = {
            "owner": client.document(f"users/{user}"), "createdBy": other, "title": "t", "startsAt": AT, "updatedAt": AT,
            "items": [{"id": f"i{n}{i}", "trackRef": f"tr{i}", "addedBy": user} for i in range(2)],
            "covers": [{"size": f"{i}", "url": "x"} for i in range(2)],
        }  # fmt: skip
        found[f"plays/pl{n}"] = {"userId": user, "playedAt": AT}
        found[f"vouchers/Zz{n}"] = {"code": f"CODE{n}", "user": user, "state": "on"}
        found[f"subscriptions/su{n}"] = {"id": f"su{n}" if n else "Secret", "user": user, "state": "on"}
        found[f"billingSubscriptions/b{n}"] = {"id": f"b{n}", "note": "n", "region": "r"}
        found[f"Odd Schema Table/o{n}"] = {"select": "x", "öl": "y", "100%": 5}
    return found


# --- a practice: domains as keys, numbered visits, dates as keys, fixed ids, a map of consents, several references to one table ----

PRACTICE = """
CREATE SCHEMA practice;
CREATE TYPE practice.state AS ENUM ('booked', 'done', 'no_show');
CREATE DOMAIN practice.mrn AS text CHECK (VALUE ~ '^[A-Z0-9-]+$');
CREATE TABLE practice.doctors (id text PRIMARY KEY, name text NOT NULL, specialty text NOT NULL DEFAULT 'general');
CREATE TABLE practice.patients (
  mrn practice.mrn PRIMARY KEY, given_name text NOT NULL, family_name text NOT NULL,
  full_name text GENERATED ALWAYS AS (given_name || ' ' || family_name) STORED, born date, phone text,
  primary_doctor_id text REFERENCES practice.doctors, referred_by text REFERENCES practice.patients ON DELETE SET NULL
);
CREATE TABLE practice.appointments (
  id text PRIMARY KEY, patient_mrn practice.mrn NOT NULL REFERENCES practice.patients, doctor_id text NOT NULL REFERENCES practice.doctors,
  referring_doctor_id text REFERENCES practice.doctors, state practice.state NOT NULL DEFAULT 'booked', starts_at timestamptz NOT NULL,
  minutes smallint NOT NULL DEFAULT 30, price numeric(8,2), cancelled_at timestamptz
);
CREATE TABLE practice.visits (
  patient_mrn practice.mrn NOT NULL REFERENCES practice.patients, visit_no integer NOT NULL, notes text, weight_kg numeric(5,2),
  recorded_at timestamptz, PRIMARY KEY (patient_mrn, visit_no)
);
CREATE TABLE practice.prescriptions (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), patient_mrn practice.mrn NOT NULL REFERENCES practice.patients, label text NOT NULL UNIQUE,
  firestore_id text NOT NULL UNIQUE, dose text, valid_until date
);
CREATE TABLE practice.doctor_shifts (
  doctor_id text NOT NULL REFERENCES practice.doctors, day date NOT NULL, starts time NOT NULL, ends time NOT NULL, PRIMARY KEY (doctor_id, day)
);
CREATE TABLE practice.insurance (patient_mrn practice.mrn PRIMARY KEY REFERENCES practice.patients, company text NOT NULL, policy_number text NOT NULL);
CREATE TABLE practice.contacts (
  patient_mrn practice.mrn NOT NULL REFERENCES practice.patients, email text NOT NULL, relation text, PRIMARY KEY (patient_mrn, email)
);
CREATE TABLE practice.consents (
  patient_mrn practice.mrn NOT NULL REFERENCES practice.patients, topic text NOT NULL, given boolean NOT NULL, PRIMARY KEY (patient_mrn, topic)
);
CREATE TABLE practice.handovers (
  id text PRIMARY KEY, from_doctor_id text NOT NULL REFERENCES practice.doctors, by_doctor_id text NOT NULL REFERENCES practice.doctors, reason text
);
"""


def practice(client: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for n in range(4):
        doctor, patient = f"doctors/doc{n}", f"patients/MRN-{n}"
        found[doctor] = {
            "name": f"Secret {n}", "specialty": "x",
            "shifts": {f"2026-0{n + 1}-0{i + 1}": {"starts": "08:00", "ends": "12:00"} for i in range(2)},
        }  # fmt: skip
        found[f"{doctor}/handovers/h{n}"] = {"by": f"doc{(n + 1) % 4}", "reason": "Secret"}
        found[patient] = {
            "givenName": "Secret", "familyName": "Secret", "mrn": f"MRN-{n}", "born": "1990-01-01",
            "phone" if n % 2 else "phoneNumber": "1", "primaryDoctor": client.document(doctor),
            "referredBy": f"MRN-{n - 1}" if n else None, "consents": {"newsletter": True, "research": n % 2 == 0},
        }  # fmt: skip
        found[f"{patient}/contacts/c{n}"] = {"email": f"Secret{n}@example.org", "relation": "mother"}
        found[f"{patient}/insurance/current"] = {"company": "c", "policyNumber": "p"}
        found[f"{patient}/visits/v{n}"] = {"visitNo": n, "notes": "Secret", "weightKg": 70.5, "recordedAt": AT}
        found[f"{patient}/prescriptions/AbCdEfGhIjKlMnOpQr{n}"] = {
            "label": f"Secret {n}",
            "dose": "1",
            "validUntil": AT,
        }
        found[f"appointments/ap{n}"] = {
            "patient": f"MRN-{n}", "doctor": f"doc{n}", "referringDoctor": f"doc{(n + 1) % 4}", "state": "booked", "startsAt": AT,
            "minutes": 30, "priceCents": 500, "cancelledAt": None,
        }  # fmt: skip
    return found


# --- a school: whole numbers as ids, keys of several columns that others reference, ids of two parts, odd types and names -----------

SCHOOL = """
CREATE SCHEMA school; CREATE EXTENSION citext;
CREATE TYPE school.mark AS ENUM ('A', 'B', 'C');
CREATE DOMAIN school.last_mark AS school.mark;
CREATE DOMAIN school.place AS integer CHECK (VALUE > 0);
CREATE TABLE school.people (
  id bigint PRIMARY KEY, email citext UNIQUE NOT NULL, full_name text, nick text COLLATE "C", born date, meta jsonb NOT NULL DEFAULT '{}'::jsonb,
  photo_url text, photo text, tags citext[], scores integer[] NOT NULL DEFAULT '{}', best school.mark, last school.last_mark,
  embedding double precision[], rank school.place, "Weird ""quoted"" col" text, ip cidr, span tstzrange, money money, bits bit(3), uid uuid,
  doubled integer GENERATED ALWAYS AS (length(full_name) * 2) STORED
);
CREATE TABLE school.teachers (person_id bigint PRIMARY KEY REFERENCES school.people ON DELETE CASCADE, subject text, salary numeric(10,2) NOT NULL DEFAULT 0);
CREATE TABLE school.children (id text PRIMARY KEY, name text);
CREATE TABLE school.students (mark school.mark, PRIMARY KEY (id)) INHERITS (school.children);
CREATE TABLE school.courses (id text PRIMARY KEY DEFERRABLE, title text NOT NULL, teacher_id bigint);
CREATE TABLE school.classes (school text NOT NULL, year integer NOT NULL, letter char(1) NOT NULL, room text, PRIMARY KEY (school, year, letter) INCLUDE (room));
CREATE TABLE school.lessons (
  id uuid PRIMARY KEY, school text NOT NULL, year integer NOT NULL, letter char(1) NOT NULL, held_on date NOT NULL, topic text,
  FOREIGN KEY (school, year, letter) REFERENCES school.classes
);
CREATE TABLE school.houses (school text NOT NULL, house text NOT NULL, motto text, PRIMARY KEY (school, house));
CREATE TABLE school.house_rules (
  id text PRIMARY KEY, of_house text NOT NULL, at_school text NOT NULL, rule text NOT NULL,
  FOREIGN KEY (at_school, of_house) REFERENCES school.houses (school, house)
);
CREATE TABLE school.attendance (
  lesson_id uuid NOT NULL REFERENCES school.lessons, student_id text NOT NULL REFERENCES school.students, present boolean NOT NULL,
  PRIMARY KEY (lesson_id, student_id)
);
CREATE TABLE school.marks (
  id text PRIMARY KEY DEFAULT gen_random_uuid(), student_id text NOT NULL REFERENCES school.students ON DELETE CASCADE, subject text NOT NULL,
  mark school.mark NOT NULL, given_at timestamptz NOT NULL DEFAULT now(), UNIQUE (student_id, subject)
);
CREATE TABLE school.bookings (room text NOT NULL, during tstzrange NOT NULL, EXCLUDE USING gist (during WITH &&));
CREATE TABLE school.tokens (
  token text PRIMARY KEY, person_id bigint NOT NULL REFERENCES school.people, issued_at timestamptz NOT NULL, expires_at timestamptz NOT NULL,
  CONSTRAINT one_each EXCLUDE (person_id WITH =)
);
CREATE TABLE "Ünïcode" ("Schlüssel" text PRIMARY KEY, "größe" integer);
CREATE TABLE "per%cent" (id integer PRIMARY KEY, "a%s" text, "b{c}" text);
"""


def school(client: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for n in range(4):
        found[f"people/{100 + n}"] = {
            "email": f"Secret{n}@X.org", "name": {"full": f"Secret {n}", "nick": "n"}, "born": AT, "meta": {"a": AT}, "photoUrl": "Secret",
            "tags": ["a"], "scores": [1, 2], "best": "A", "last": "B", "embedding": [0.1, 0.2], "rank": 3, 'Weird "quoted" col': "x",
            "ip": "10.0.0.0/8", "uid": UUIDS[n].upper(), "span": "[2026-01-01,2026-02-01)", "money": 5.5, "bits": "101",
        }  # fmt: skip
        found[f"people/{100 + n}/roles/teacher"] = {"subject": "Secret", "salary": 100.5}
        found[f"students/st{n}"] = {"name": "Secret", "mark": "A", "id": f"st{n}"}
        for subject in ("math", "art"):
            found[f"students/st{n}/marks/{subject}"] = {"mark": "A", "givenAt": AT}
        found[f"courses/c{n}"] = {"title": "t", "teacher": client.document(f"people/{100 + n}")}
        found[f"schools/s/classes/2026_{'abcd'[n]}"] = {"year": 2026, "letter": "abcd"[n], "room": "r"}
        found[f"schools/s/houses/h{n}"] = {"motto": "Secret"}
        found[f"schools/s/houses/h{n}/rules/ru{n}"] = {"rule": "Secret"}
        found[f"lessons/{UUIDS[n]}"] = {
            "school": "s", "year": 2026, "letter": "a", "heldOn": "2026-03-01", "topic": "Secret",
            "attendance": {f"st{i}": i % 2 == 0 for i in range(n + 1)},
        }  # fmt: skip
        found[f"tokens/tok{n}"] = {
            "person": 100 + n,
            "issuedAt": MILLISECONDS,
            "expires": {"_seconds": 1_772_353_800, "_nanoseconds": 0},
        }
        found[f"Ünïcode/k{n}"] = {"größe": n}
        found[f"per%cent/{n}"] = {"a%s": "x", "b{c}": "y"}
    return found


# --- freight: tenants in every key, three levels of references, entries of scalars, comments below two kinds of parent --------------

FREIGHT = """
CREATE SCHEMA freight;
CREATE DOMAIN freight.given AS text NOT NULL;
CREATE DOMAIN freight.color AS text DEFAULT 'red' NOT NULL;
CREATE TABLE freight.companies (id text PRIMARY KEY, name text NOT NULL, owner_uid freight.given, color freight.color);
CREATE TABLE freight.company_members (
  company_id text NOT NULL REFERENCES freight.companies, user_uid text NOT NULL, role text NOT NULL DEFAULT 'member', PRIMARY KEY (company_id, user_uid)
);
CREATE TABLE freight.warehouses (
  tenant_id text NOT NULL REFERENCES freight.companies, id text NOT NULL, address_city text, address_geo_lat double precision, PRIMARY KEY (tenant_id, id)
);
CREATE TABLE freight.shelves (
  tenant_id text NOT NULL, warehouse_id text NOT NULL, id text NOT NULL, capacity integer, PRIMARY KEY (tenant_id, warehouse_id, id),
  FOREIGN KEY (tenant_id, warehouse_id) REFERENCES freight.warehouses
);
CREATE TABLE freight.shelf_items (
  tenant_id text NOT NULL, warehouse_id text NOT NULL, shelf_id text NOT NULL, sku text NOT NULL, qty integer NOT NULL,
  PRIMARY KEY (tenant_id, warehouse_id, shelf_id, sku), FOREIGN KEY (tenant_id, warehouse_id, shelf_id) REFERENCES freight.shelves
);
CREATE TABLE freight.shipments (
  id text PRIMARY KEY, tenant_id text NOT NULL REFERENCES freight.companies, weight numeric(12,3), eta date, carrier_code text,
  created_on timestamp NOT NULL DEFAULT now(), cancelled boolean, parent_shipment_id text REFERENCES freight.shipments
);
CREATE TABLE freight.shipment_events (
  shipment_id text NOT NULL REFERENCES freight.shipments ON DELETE CASCADE, seq integer NOT NULL, kind text NOT NULL, happened_at timestamptz NOT NULL,
  PRIMARY KEY (shipment_id, seq)
);
CREATE TABLE freight.drivers (id text PRIMARY KEY, name text NOT NULL, current_shipment_id text UNIQUE REFERENCES freight.shipments ON DELETE SET NULL);
CREATE TABLE freight.driver_papers (
  id bigserial PRIMARY KEY, driver_id text NOT NULL REFERENCES freight.drivers, paper_id text NOT NULL, kind text NOT NULL, UNIQUE (driver_id, paper_id)
);
CREATE TABLE freight.comments (
  id text PRIMARY KEY, shipment_id text REFERENCES freight.shipments, driver_id text REFERENCES freight.drivers, body text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE freight.shipment_watchers (
  shipment_id text NOT NULL REFERENCES freight.shipments, user_uid text NOT NULL, created_at timestamptz NOT NULL, PRIMARY KEY (shipment_id, user_uid)
);
CREATE TABLE freight.links (a_id text NOT NULL, b_id text NOT NULL, since timestamptz, PRIMARY KEY (a_id, b_id));
CREATE TABLE freight.likes (comment_id text NOT NULL REFERENCES freight.comments, uid text NOT NULL, PRIMARY KEY (comment_id, uid));
CREATE TABLE freight.rates (from_currency char(3) NOT NULL, to_currency char(3) NOT NULL, rate numeric NOT NULL, PRIMARY KEY (from_currency, to_currency));
"""


def freight(client: Any) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for n in range(4):
        company, driver = f"companies/co{n}", f"drivers/d{n}"
        found[company] = {
            "name": "Secret",
            "ownerUid": f"uid{n}",
            "members": {f"uid{n}": "owner", f"uid{n + 5}": "member"},
        }
        found[f"{company}/warehouses/w{n}"] = {"address": {"city": "Secret", "geo": firestore.GeoPoint(1.0, 2.0)}}
        found[f"{company}/warehouses/w{n}/shelves/sh{n}"] = {
            "capacity": 5,
            "items": {f"sku{n}{i}": i + 1 for i in range(2)},
        }
        found[f"{company}/shipments/s{n}"] = {
            "weight": 5 if n % 2 else 5.5, "eta": "2026-04-01", "carrier": "fast", "createdOn": AT, "cancelled": None,
            "parentShipment": client.document("companies/co0/shipments/s0") if n else None,
            "events": [{"kind": "a", "happenedAt": AT, "seq": i} for i in range(2)],
            "watchers": {f"uid{i}": AT for i in range(n, n + 2)},
        }  # fmt: skip
        found[f"{company}/shipments/s{n}/comments/cm{n}"] = {
            "body": "Secret",
            "createdAt": AT,
            "likes": [f"uid{n}", "uid9"],
        }
        found[driver] = {"name": "Secret", "currentShipmentId": f"s{n}"}
        found[f"{driver}/papers/p{n}"] = {"kind": "id"}
        found[f"{driver}/comments/dc{n}"] = {"body": "Secret", "createdAt": AT, "likes": ["uid7"]}
        found[f"links/a{n}_b{n}"] = {"since": AT}
        found[f"rates/EU{'RSTU'[n]}_USD"] = {"rate": 1.1, "from": f"EU{'RSTU'[n]}", "to": "USD"}
    return found


WORLDS = [
    World(
        "clinic", CLINIC, clinic,
        {
            "profiles.legacy_id": "Column('legacy_id', 'key', DocumentId())",
            "profiles.full_name": "Column('full_name', 'compared', Field('fullname'), required=True, absent='')",
            "profiles.nick_name": "Column('nick_name', 'compared', Field('nickName'))",
            "profiles.weight": "Column('weight', 'compared', Field('weight'), 'numeric')",
            "profiles.score_points": "Column('score_points', 'derived', Field('scorePoints'), 'integer', required=True, absent=0)",
            "profiles.born_on": "Column('born_on', 'compared', Field('bornOn'))",
            "profiles.last_seen_at": "Column('last_seen_at', 'compared', Field('lastSeen') >> epoch_milliseconds)",
            "profiles.settings": "Column('settings', 'compared', Field('settings') >> plain_json, required=True, absent={})",
            "profiles.updated_at": "Column('updated_at', 'insert_only', Field('updatedAt', CreateTime()), 'timestamp', required=True)",
            "visits.id": "Column('id', 'key', DocumentId())",
            "visits.status": "Column('status', 'compared', Field('status'), required=True, absent='open')",
            "visits.tags": "Column('tags', 'compared', Field('tags') >> array, required=True, absent=[])",
            "visits.minutes": "Column('minutes', 'compared', Field('minutes') >> array)",
            "visits.starts_at": "Column('starts_at', 'compared', Field('startsAt') >> iso_time, required=True)",
            "visits.ends_at": "Column('ends_at', 'compared', Field('endsAt') >> epoch_seconds)",
            "visits.price": "Column('price', 'compared', Field('priceCents') >> scaled(-2))",
            "visits.duration_label": "Column('duration_label', 'compared', Field('durationLabel') >> text)",
            "visits.notes": "Column('notes', 'compared', Field('notes'), 'json')",
            "visits.ip": "Column('ip', 'compared', Field('ip'))",
            "visits.visit_count": "Column('visit_count', 'derived', Field('visitCount') >> integer)",
            "visits.paid": "Column('paid', 'compared', Field('paid') >> boolean)",
            "visits.code": "Column('code', 'compared', Field('code') >> iso_text)",
            "questions.profile_id": "Column('profile_id', 'compared', Field('profile'), references=Parent('profiles', holds='id'))",
            "questions.title": "Column('title', 'compared', Field('title'), required=True)",
        },
        {"profiles": ("v3_users/{user}",), "questions": ("questions_rev20230926/{question}",)},
        (
            "id (bigint): left out: Postgres makes it",
            "check_fields=(Check('createdAt', iso_time), Check('modified', epoch_milliseconds),),  # GUESS from its fields' names and types,",
            "GUESS 'edited' says when it was written, but no window can ask for it: ISO time is in another style",
            "search (text): left out: Postgres makes it",
            "trigger touched sets it, so it is never compared",
            "1 of 2 sampled texts are no label of state ('open', 'done'): one_of({...}) maps them",
            "mixed_at (timestamp with time zone): TODO field 'mixedAt' looks like it and holds ISO time and timestamp",
            "No collection looks like table audit",
        ),
    ),
    World(
        "market", MARKET, market,
        {
            "order_lines.order_id": "Column('order_id', 'key', DocumentId())",
            "order_lines.position": "Column('position', 'key', EntryField('position') >> text)",
            "order_lines.sku": "Column('sku', 'compared', EntryField('sku'), required=True)",
            "seller_members.seller_id": "Column('seller_id', 'key', Segment('seller'), references='sellers')",
            "seller_members.member_id": "Column('member_id', 'key', EntryKey())",
            "seller_members.role": "Column('role', 'compared', EntryField('role'), required=True)",
            "seller_members.since": "Column('since', 'compared', EntryField('since'), 'timestamp')",
            "offer_pictures.line_no": "Column('line_no', 'key', EntryIndex())",
            "offer_pictures.width_px": "Column('width_px', 'compared', EntryField('widthPx'), 'integer')",
            "sellers.lat": "Column('lat', 'compared', Field('location') >> latitude)",
            "sellers.lng": "Column('lng', 'compared', Field('location') >> longitude)",
            "sellers.joined_at": "Column('joined_at', 'compared', Field('joined', CreateTime()), 'timestamp', required=True)",
            "offers.seller_id": "Column('seller_id', 'compared', Field('owner') >> reference_id, required=True, references='sellers')",
            "offers.category_id": "Column('category_id', 'compared', Field('category') >> reference_id, references='categories')",
            "offers.label": "Column('label', 'compared', Field(('offer.label',)))",
            "offers.follower_ids": "Column('follower_ids', 'compared', Field('followerIds') >> each(reference_id))",
            "offers.extra": "Column('extra', 'compared', Field('extra') >> plain_json)",
            "seller_ratings.seller_id": "Column('seller_id', 'key', Segment('seller'), references='sellers')",
            "seller_ratings.buyer_id": "Column('buyer_id', 'key', DocumentId())",
            "2nd-hand items.shelf mark": "Column('shelf mark', 'compared', Field('shelf mark'))",
            "rating_flags.seller_id": "Column('seller_id', 'compared', Field('sellerId'), required=True, references=Parent('seller_ratings', holds='seller_id'))",
            "rating_flags.buyer_id": "Column('buyer_id', 'compared', Field('buyerId'), required=True, references=Parent('seller_ratings', holds='buyer_id'))",
            "rating_flags.flag_reason": "Column('flag_reason', 'compared', Field('flagReason'), required=True)",
        },
        {
            "team_settings": ("teams/{team}/settings/main",),
            "seller_settings": ("sellers/{seller}/settings/main",),
            "order_lines": ("orders/{order}",),
            "offer_pictures": ("offers/{offer}",),
            "parcels": ("years/{year}/parcels/{parcel}",),
            "rating_flags": ("flags/{flag}",),
        },
        (
            "foreign key, on delete set null",
            "entries=ArrayElements('lines'),  # GUESS from its name and 2 of 2 columns",
            "entries=MapEntries('members'),  # GUESS from its name and 1 of 1 columns",
            "GUESS from its name, 3 of 3 sampled entries, integer, TODO no sampled document has two entries: is it unique?",
            "GUESS no field looks like it: the element's place, EntryIndex(1) if from 1",
            "the maps in array 'steps' of offers/{offer} look like its rows, by 2 of their fields; beside them lie elements that are no maps",
            "No table looks like orders/{order} (3 sampled) itself: rows come from its lines.",
            "teams/{team}: no document is there itself, only collections below",
        ),
    ),
    World(
        "music", MUSIC, music,
        {
            "users.id": "Column('id', 'key', DocumentId())",
            "users.display_name": "Column('display_name', 'compared', FirstOf(Field('displayName'), Field('name')))",
            "messages.sender_id": "Column('sender_id', 'compared', Field('senderId'), required=True, references='users')",
            "messages.user_id": "Column('user_id', 'compared', Segment('user'), required=True, references='users')",
            "vouchers.code": "Column('code', 'key', Field('code'), required=True)",
            "subscriptions.amount_cents": "Column('amount_cents', 'compared', Field('amountCents'), 'integer', required=True)",
            "playlists.created_by": "Column('created_by', 'compared', Field('createdBy'), references='users')",
            "playlists.starts_at": "Column('starts_at', 'compared', Field('startsAt'), 'timestamp', required=True)",
            "plays.played_at": "Column('played_at', 'key', Field('playedAt'), 'timestamp', required=True)",
            "playlist_items.id": "Column('id', 'key', EntryField('id'))",
            "playlist_items.playlist_id": "Column('playlist_id', 'compared', Segment('playlist'), required=True, references='playlists')",
            "playlist_covers.size": "Column('size', 'key', EntryField('size'))",
            "devices.user_id": "Column('user_id', 'key', Segment('user'))",
            "Odd Schema Table.100%": "Column('100%', 'compared', Field('100%'), 'integer')",
        },
        {
            "subscriptions": ("subscriptions/{subscription}",),
            "billing_subscriptions": ("billingSubscriptions/{billing_subscription}",),
            "billing_subscriptions_2": ("users/{user}/subscriptions/{subscription}",),
            "user_settings": ("users/{user}/settings/app",),
        },
        (
            "GUESS the id 'app' is fixed: below 4 sampled parents",
            "Column('id', 'key', DocumentId()),  # GUESS the document's id, TODO field 'id' looks like it, and isn't that id in 1 of 4 sampled",
            "Column('id', 'key', DocumentId()),  # GUESS the document's id, which field 'id' is in each of 4 sampled documents",
            "# GUESS the id above, which field 'userId' is in each of 4 sampled documents",
            "# GUESS of several fields, each of 4 sampled documents has just one: 'displayName' in 2, 'name' in 2",
            "unique among all sampled entries",
            "unique within each sampled document",
            "id (text): left to its default, gen_random_uuid()",
            "TODO music.albums can't be declared: The documents that may have a natural key are searched in one collection",
            "TODO music.tracks can't be declared: key 'album_id' is 'id' of its parent's row, and it references music.albums, which isn't",
            "length (interval): left out: Postgres makes it",
            "No collection looks like table billing.empty.",
        ),
        "public, music, billing", frozenset({"music.albums", "music.tracks"}),
    ),
    World(
        "practice", PRACTICE, practice,
        {
            "patients.mrn": "Column('mrn', 'key', DocumentId())",
            "patients.phone": "Column('phone', 'compared', FirstOf(Field('phone'), Field('phoneNumber')))",
            "patients.referred_by": "Column('referred_by', 'compared', Field('referredBy'), references='patients')",
            "doctor_shifts.day": "Column('day', 'key', EntryKey())",
            "prescriptions.firestore_id": "Column('firestore_id', 'key', DocumentId())",
            "contacts.email": "Column('email', 'key', Field('email'), required=True)",
            "appointments.starts_at": "Column('starts_at', 'compared', Field('startsAt'), 'timestamp', required=True)",
            "appointments.referring_doctor_id": "Column('referring_doctor_id', 'compared', Field('referringDoctor'), references='doctors')",
            "insurance.patient_mrn": "Column('patient_mrn', 'key', Segment('patient'), references='patients')",
        },
        {"insurance": ("patients/{patient}/insurance/current",), "contacts": ("patients/{patient}/contacts/{contact}",)},
        (
            "GUESS the id 'current' is fixed: below 4 sampled parents",
            "id (uuid): left to its default, gen_random_uuid()",
            "TODO practice.visits can't be declared: A key comes from an id or a text of the document; beside the document's id, also from a timestamp: column 'visit_no' is integer",
            "map 'consents' of patients/{patient} is called like it, but its keys seem to be names of fields, or its values",
            "GUESS the id above: no field looks like it; TODO it could be 'by_doctor_id', which references practice.doctors too",
        ),
        "practice", frozenset({"practice.visits"}),
    ),
    World(
        "school", SCHOOL, school,
        {
            "people.photo_url": "Column('photo_url', 'compared', Field('photoUrl'))",
            "classes.school": "Column('school', 'key', Segment('school'))",
            "classes.year": "Column('year', 'key', Segment('year'))",
            "lessons.year": "Column('year', 'compared', Field('year') >> text, required=True, references=Parent('classes', holds='year'))",
            "house_rules.at_school": "Column('at_school', 'compared', Segment('school'), required=True, references=Parent('houses', holds='school'))",
            "house_rules.of_house": "Column('of_house', 'compared', Segment('house'), required=True, references=Parent('houses', holds='house'))",
            "marks.subject": "Column('subject', 'key', DocumentId())",
            "tokens.expires_at": "Column('expires_at', 'compared', Field('expires') >> timestamp_map, required=True)",
            "tokens.person_id": "Column('person_id', 'compared', Field('person') >> text, required=True, references='people')",
        },
        {"classes": ("schools/{school}/classes/{year}_{letter}",), "teachers": ("people/{person}/roles/teacher",)},
        (
            "TODO school.courses can't be declared: the table has no unique key, or only one that is checked late (DEFERRABLE)",
            "Column('teacher_id', 'compared', Field('teacher') >> reference_id >> integer)",
            "money (money): TODO field 'money' looks like it and holds number: no conversion of docs/catalog.md makes money of that",
            "photo (text): no field looks like it",
            "doubled (integer): left out: Postgres makes it",
            "No collection looks like table school.children",
            "TODO nothing here declares what may refuse rows of school.tokens: one_each (exclusion).",
        ),
        "school, public", frozenset({"school.courses"}),
    ),
    World(
        "freight", FREIGHT, freight,
        {
            "shelves.tenant_id": "Column('tenant_id', 'key', Segment('company'), references=Parent('warehouses', holds='tenant_id'))",
            "shelf_items.shelf_id": "Column('shelf_id', 'key', Segment('shelf'), references=Parent('shelves', holds='id'))",
            "shelf_items.sku": "Column('sku', 'key', EntryKey())",
            "shipments.parent_shipment_id": "Column('parent_shipment_id', 'compared', Field('parentShipment') >> reference_id, references='shipments')",
            "comments.driver_id": "Column('driver_id', 'compared', ParentId('drivers'), references='drivers')",
            "shipment_watchers.created_at": "Column('created_at', 'compared', EntryValue(), 'timestamp', required=True)",
            "companies.owner_uid": "Column('owner_uid', 'compared', Field('ownerUid'), required=True)",
            "driver_papers.paper_id": "Column('paper_id', 'key', DocumentId())",
        },
        {
            "rates": ("rates/{from_currency}_{to_currency}",),
            "comments": ("drivers/{driver}/comments/{comment}", "companies/{company}/shipments/{shipment}/comments/{comment}"),
        },
        (
            "color (freight.color): no field looks like it; it gets its default, 'red'::text",
            "TODO freight.links can't be declared: its key column 'b_id' isn't known; all sampled ids split at '_': if that is its key, the "
            "path is 'links/{a}_{b}', and each column its Segment.",
            "current_shipment_id (text): TODO references='shipments' is refused: A referenced document's path must be known",
            "GUESS likes of companies/{company}/shipments/{shipment}/comments/{comment} looks like rows of freight.likes too",
            "Column('shipment_id', 'key', Segment('shipment'), references='shipments'),  # GUESS the document's id: no field looks like it",
            "TODO nothing here declares what may refuse rows of freight.drivers: drivers_current_shipment_id_fkey (foreign key).",
        ),
        "freight", frozenset({"freight.links"}),
    ),
]  # fmt: skip
