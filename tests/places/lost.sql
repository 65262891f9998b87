-- Drift on the side of the rows: lost, edited by hand, and made up.
DELETE FROM places.place_notes WHERE id = 'n2';
UPDATE places.regions SET parent_id = 'asia' WHERE id = 'asia';
UPDATE places.places SET region_id = 'asia', owner_tenant = 't2', owner_id = 'u1' WHERE firestore_id = 'p2';
UPDATE places.places SET embedding = '{0.5}', details = '{}' WHERE firestore_id = 'p1';
DELETE FROM places.ratings WHERE person = 'u1';
INSERT INTO places.ratings VALUES ('made', 'up', 1);
INSERT INTO places.media VALUES ('f0', 'photo', NULL, 'f0.jpg'), ('poster', 'editorial', NULL, 'poster.png');
UPDATE places.visits SET ticket = 'X' WHERE ticket = 'D';
DELETE FROM places.list_places WHERE list_id = 'l2';
