-- The tables of an app of places, as a team designs them that doesn't think of Firestore.
CREATE SCHEMA places;
CREATE DOMAIN places.degrees AS double precision CHECK (VALUE BETWEEN -180 AND 180);

CREATE TABLE places.regions (
  id text PRIMARY KEY, name text NOT NULL, parent_id text REFERENCES places.regions ON DELETE SET NULL
);
CREATE TABLE places.people (
  tenant text, id text, name text NOT NULL, lat places.degrees, lng places.degrees, seen_at timestamptz, PRIMARY KEY (tenant, id)
);
CREATE TABLE places.person_details (
  tenant text, person_id text, phone text, PRIMARY KEY (tenant, person_id),
  FOREIGN KEY (tenant, person_id) REFERENCES places.people ON DELETE CASCADE
);
CREATE TABLE places.places (
  id uuid PRIMARY KEY,
  firestore_id text NOT NULL UNIQUE,
  region_id text REFERENCES places.regions ON DELETE SET NULL,
  owner_tenant text,
  owner_id text,
  lat places.degrees NOT NULL,
  lng places.degrees NOT NULL,
  label text,
  admins text[] NOT NULL DEFAULT '{}',
  details jsonb NOT NULL DEFAULT '{}',
  fee numeric(8,2),
  embedding real[],
  visit_count integer NOT NULL DEFAULT 0,
  cover_id text,
  changed_at timestamptz NOT NULL,
  FOREIGN KEY (owner_tenant, owner_id) REFERENCES places.people ON DELETE SET NULL
);
CREATE TABLE places.media (
  id text PRIMARY KEY, kind text NOT NULL CHECK (kind IN ('photo', 'video', 'editorial')),
  place_id uuid REFERENCES places.places ON DELETE CASCADE, "file name" text NOT NULL, seconds integer
);
ALTER TABLE places.places ADD FOREIGN KEY (cover_id) REFERENCES places.media ON DELETE SET NULL;
INSERT INTO places.media VALUES ('logo', 'editorial', NULL, 'logo.svg', NULL);
CREATE TABLE places.place_notes (
  id text PRIMARY KEY, place_id uuid NOT NULL REFERENCES places.places ON DELETE CASCADE, body text NOT NULL
);
CREATE TABLE places.person_notes (
  id text PRIMARY KEY, tenant text NOT NULL, person_id text NOT NULL, body text NOT NULL,
  about_id text REFERENCES places.place_notes ON DELETE SET NULL,
  FOREIGN KEY (tenant, person_id) REFERENCES places.people ON DELETE CASCADE
);
CREATE TABLE places.visits (
  id uuid PRIMARY KEY, place_id uuid NOT NULL REFERENCES places.places ON DELETE CASCADE, during tstzrange NOT NULL, ticket text,
  EXCLUDE USING gist (during WITH &&), UNIQUE NULLS NOT DISTINCT (ticket)
);
CREATE TABLE places.ratings (person text, slug text, stars smallint NOT NULL, PRIMARY KEY (person, slug));
CREATE TABLE places."2nd lists" (id text PRIMARY KEY, "shelf mark" text);
CREATE TABLE places.list_places (
  list_id text REFERENCES places."2nd lists" ON DELETE CASCADE, place_id uuid REFERENCES places.places ON DELETE CASCADE,
  PRIMARY KEY (list_id, place_id)
);
