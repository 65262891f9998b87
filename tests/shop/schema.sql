-- The shop's tables, as a team designs them that doesn't think of Firestore.
CREATE EXTENSION IF NOT EXISTS citext;
CREATE SCHEMA shop;
CREATE TYPE shop.order_state AS ENUM ('open', 'paid', 'shipped', 'canceled');
CREATE TYPE shop.weekday AS ENUM ('mon', 'tue', 'wed');
CREATE DOMAIN shop.sku AS varchar(12) CHECK (VALUE ~ '^[A-Z0-9-]+$');
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;

CREATE TABLE shop.tax_classes (code text PRIMARY KEY);  -- never was in Firestore
INSERT INTO shop.tax_classes VALUES ('full'), ('books');

CREATE TABLE shop.profiles (
  id bigint GENERATED ALWAYS AS IDENTITY (START 1000) PRIMARY KEY,
  firestore_id text NOT NULL UNIQUE,
  full_name text NOT NULL,
  display_name varchar(20),
  email citext,
  phone char(12),
  city text,
  born_on date,
  credit bigint NOT NULL DEFAULT 0,
  points integer NOT NULL DEFAULT 0,
  newsletter boolean NOT NULL DEFAULT false,
  tags text[] NOT NULL DEFAULT '{}',
  lucky_numbers integer[],
  delivery_day shop.weekday,
  preferences jsonb NOT NULL DEFAULT '{}',
  last_ip inet,
  last_seen_at timestamptz(0),
  trial_ends_at timestamp,
  origin text NOT NULL,
  referred_by bigint REFERENCES shop.profiles ON DELETE SET NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX profiles_one_email ON shop.profiles (lower(email::text));
CREATE TRIGGER touched BEFORE UPDATE ON shop.profiles FOR EACH ROW EXECUTE FUNCTION shop.touch();

CREATE TABLE shop.products (
  id uuid PRIMARY KEY,
  sku shop.sku NOT NULL UNIQUE,
  name varchar(40) NOT NULL,
  price numeric(10,2) NOT NULL,
  weight real,
  rating double precision,
  on_sale daterange,
  preparation interval,
  spec json,
  photo bytea,
  main_tag text,
  tag_count smallint NOT NULL DEFAULT 0,
  note text,
  tax_class text REFERENCES shop.tax_classes,
  search text GENERATED ALWAYS AS (lower(name)) STORED,
  updated_at timestamptz NOT NULL
);
CREATE TABLE shop.product_categories (
  product_id uuid REFERENCES shop.products ON DELETE CASCADE, category text, PRIMARY KEY (product_id, category)
);
CREATE TABLE shop.stock (
  product_id uuid REFERENCES shop.products ON DELETE CASCADE, warehouse text, amount integer NOT NULL CHECK (amount >= 0),
  PRIMARY KEY (product_id, warehouse)
);
CREATE TABLE shop.product_labels (
  product_id uuid REFERENCES shop.products ON DELETE CASCADE, label text, PRIMARY KEY (label, product_id)
);
CREATE TABLE shop.product_texts (
  product_id uuid REFERENCES shop.products ON DELETE CASCADE, language char(2), title text NOT NULL, summary text,
  PRIMARY KEY (product_id, language)
);
CREATE TABLE shop.product_variants (
  product_id uuid REFERENCES shop.products ON DELETE CASCADE, size text, colour text, PRIMARY KEY (product_id, size, colour)
);

CREATE TABLE shop.orders (
  id text PRIMARY KEY,
  channel text NOT NULL CHECK (channel IN ('web', 'counter', 'phone')),
  profile_id bigint REFERENCES shop.profiles ON DELETE CASCADE,
  assistant_id bigint REFERENCES shop.profiles ON DELETE SET NULL,
  state shop.order_state NOT NULL DEFAULT 'open',
  total numeric(10,2) NOT NULL,
  placed_at timestamptz NOT NULL,
  paid_at timestamptz,
  invoiced_at timestamptz,
  shipped_at timestamptz,
  shipping_days int4range,
  changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shop.order_lines (
  order_id text REFERENCES shop.orders ON DELETE CASCADE, position smallint, product_id uuid NOT NULL REFERENCES shop.products,
  quantity integer NOT NULL, price numeric(10,2) NOT NULL, PRIMARY KEY (order_id, position)
);
CREATE TABLE shop.order_discounts (
  order_id text REFERENCES shop.orders ON DELETE CASCADE, code text, amount text NOT NULL, PRIMARY KEY (order_id, code)
);

CREATE TABLE shop.carts (
  profile_id bigint NOT NULL REFERENCES shop.profiles ON DELETE CASCADE, cart_id text NOT NULL, items jsonb NOT NULL DEFAULT '[]',
  PRIMARY KEY (profile_id, cart_id)
) PARTITION BY HASH (profile_id);
CREATE TABLE shop.carts_0 PARTITION OF shop.carts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE shop.carts_1 PARTITION OF shop.carts FOR VALUES WITH (MODULUS 2, REMAINDER 1);

CREATE TABLE shop.messages (
  id bigint PRIMARY KEY, profile_id bigint NOT NULL REFERENCES shop.profiles ON DELETE CASCADE, body text NOT NULL,
  sent_at timestamptz NOT NULL, raw jsonb
);
