-- Drift on the side of the rows: lost, edited by hand, and made up.
DELETE FROM shop.order_lines WHERE order_id = 'o3';
UPDATE shop.profiles SET tags = '{}', referred_by = NULL WHERE firestore_id IN ('anna', 'cleo');
UPDATE shop.products SET price = price + 0.01 WHERE sku = 'DESK';
UPDATE shop.product_texts SET summary = 'by hand' WHERE language = 'en';
DELETE FROM shop.carts WHERE cart_id = 'now' AND items = '[]';
INSERT INTO shop.stock SELECT id, 'moon', 1 FROM shop.products WHERE sku = 'DESK';
INSERT INTO shop.orders (id, channel, total, placed_at) VALUES ('k0', 'counter', 5, now()), ('p2', 'phone', 5, now());
UPDATE shop.orders SET total = 0 WHERE id = 'k2';
DELETE FROM shop.messages WHERE id = 2;
