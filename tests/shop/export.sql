-- What the export brought, a day before: whole rows, old ones, and such as have lost their documents by now.
INSERT INTO shop.profiles (firestore_id, full_name, display_name, email, phone, city, born_on, credit, points, newsletter, tags,
  lucky_numbers, delivery_day, preferences, last_ip, last_seen_at, trial_ends_at, origin, referred_by, created_at, updated_at)
VALUES
  ('anna', 'Anna Kim', 'anna', 'anna@example.org', '821012345678', 'Seoul', '1990-02-01', 1099511627776, 6, true, '{a b,c}', '{7,13}',
   'mon', '{"dark": true, "since": "2026-03-02T09:30:15.123Z"}', '10.0.0.1', '2026-03-02 09:30:16+00', '2026-03-02 09:30:15', 'firebase',
   NULL, '2026-03-02 09:30:15.123+00', '2026-03-02 09:30:15.123+00'),
  ('ben', 'Ben Kim', 'benny', 'ben@example.org', NULL, 'Seoul', NULL, 0, 3, false, '{}', NULL, NULL, '{}', NULL, NULL, NULL, 'firebase',
   NULL, '2026-03-02 09:30:15.123+00', '2026-03-02 09:30:15.123+00'),
  ('emil', 'Emil Kim', 'emil', 'emil@example.org', NULL, 'Seoul', NULL, 0, 0, false, '{}', NULL, NULL, '{}', NULL, NULL, NULL, 'firebase',
   NULL, '2026-03-02 09:30:15.123+00', '2026-03-02 09:30:15.123+00'),
  ('gone', 'Gone Kim', 'gone', 'gone@example.org', NULL, 'Seoul', NULL, 0, 0, false, '{}', NULL, NULL, '{}', NULL, NULL, NULL, 'firebase',
   NULL, '2026-03-02 09:30:15.123+00', '2026-03-02 09:30:15.123+00');

INSERT INTO shop.products (id, sku, name, price, weight, rating, on_sale, preparation, spec, photo, main_tag, tag_count, note, tax_class,
  updated_at)
VALUES
  ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a10', 'LAMP', 'Lamp', 19.99, 0.1, 4.5, '[2026-03-01,2026-03-31]', '36 hours', '{"watts": 7}', '\x00ff',
   'light', 2, NULL, 'full', '2026-03-02 09:30:15.123+00'),
  ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'CHAIR', 'Chair', 19.99, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL,
   '2026-03-02 09:30:15.123+00'),
  ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a19', 'SOLD', 'Sold', 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL,
   '2026-03-02 09:30:15.123+00');
INSERT INTO shop.product_categories VALUES
  ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a10', 'home'), ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a10', 'old'),
  ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'home');
INSERT INTO shop.stock VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a10', 'east', 2), ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'east', 1);
INSERT INTO shop.product_variants VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a10', 'S', 'red'), ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a10', 'S', 'none');
INSERT INTO shop.product_labels (product_id, label) VALUES
  ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a10', 'old'), ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'new');

INSERT INTO shop.orders (id, channel, profile_id, assistant_id, state, total, placed_at, paid_at, invoiced_at, shipped_at, shipping_days,
  changed_at)
SELECT o.id, o.channel, p.id, NULL, 'paid', o.total, '2026-03-02 09:30:15.123+00', NULL, NULL, NULL, NULL, '2026-03-02 09:30:15.123+00'
FROM (VALUES ('o1', 'web', 'anna', 50.00), ('o3', 'web', 'ben', 12.49), ('o4', 'web', 'cleo', 0.12), ('o7', 'web', 'gone', 50.00),
             ('gone', 'web', 'anna', 1), ('k1', 'counter', NULL, 10.01), ('k9', 'counter', NULL, 9), ('p1', 'phone', NULL, 99))
     AS o (id, channel, customer, total)
LEFT JOIN shop.profiles p ON p.firestore_id = o.customer
WHERE o.customer IS NULL OR p.id IS NOT NULL;
INSERT INTO shop.order_lines VALUES
  ('o1', 1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a10', 1, 2.50), ('o1', 3, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 1, 2.50),
  ('o7', 1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a10', 1, 2.50);
INSERT INTO shop.order_discounts VALUES ('o1', 'GIFT', '0.05 EUR');
INSERT INTO shop.carts SELECT id, c.cart, c.items::jsonb
FROM shop.profiles, (VALUES ('anna', 'now', '[]'), ('anna', 'left', '[1]'), ('gone', 'now', '[]')) AS c (customer, cart, items)
WHERE firestore_id = c.customer;
INSERT INTO shop.messages SELECT m.id, p.id, m.body, '2026-03-02 09:30:15.123+00'
FROM shop.profiles p JOIN (VALUES (9007199254740993, 'hello'), (9007199254740992, 'gone'), (4, '?'), (3, 'joined')) AS m (id, body)
ON p.firestore_id = 'anna';
