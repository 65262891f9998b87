-- What the export brought, a day before: whole rows, old ones, and such as have lost their documents by now. Derived ids are uuids v5 of
-- the documents' paths.
INSERT INTO places.regions VALUES ('asia', 'Asia', NULL), ('korea', 'Old Korea', NULL), ('old', 'Old', 'asia'), ('older', 'Older', 'old');
INSERT INTO places.people VALUES ('t1', 'u1', 'Anna', 37.5, 127.25, '2026-03-02 10:00Z'), ('t1', 'u9', 'Gone', NULL, NULL, '2026-03-02 10:00Z'),
  ('t2', 'u3', 'Kept', NULL, NULL, '2026-03-02 10:00Z');
INSERT INTO places.person_details VALUES ('t1', 'u1', '0'), ('t1', 'u9', 'of a person who is gone');
INSERT INTO places.places (id, firestore_id, owner_tenant, owner_id, lat, lng, changed_at) VALUES
  ('c613d925-1ed7-519f-ab2a-11b562ff8a7a', 'p2', NULL, NULL, 37.5, 127, '2026-03-02 10:00Z'),
  ('d2588244-0522-5140-b283-bd06d9ea52b4', 'p3', NULL, NULL, 0, 0, '2026-03-02 10:00Z'),
  ('84c3a88c-979d-559f-9511-a1326b547b06', 'p5', NULL, NULL, 0, 0, '2026-03-02 10:00Z'),
  ('517eb9f9-80e9-5f0d-b6d0-d3bf6b71f438', 'p8', NULL, NULL, 0, 0, '2026-03-02 10:00Z');
INSERT INTO places.media VALUES ('f2', 'photo', 'c613d925-1ed7-519f-ab2a-11b562ff8a7a', 'f2.jpg', NULL), ('f5', 'photo', '84c3a88c-979d-559f-9511-a1326b547b06', 'f5.jpg', NULL), ('f9', 'photo', 'c613d925-1ed7-519f-ab2a-11b562ff8a7a', 'f9.jpg', NULL),
  ('v9', 'video', 'c613d925-1ed7-519f-ab2a-11b562ff8a7a', 'v9.mp4', 1);
INSERT INTO places.place_notes VALUES ('n2', 'c613d925-1ed7-519f-ab2a-11b562ff8a7a', 'an old body'), ('gone', 'c613d925-1ed7-519f-ab2a-11b562ff8a7a', 'gone');
INSERT INTO places.visits VALUES ('1ba1720f-053b-590b-ae88-3e0e792fba40', 'c613d925-1ed7-519f-ab2a-11b562ff8a7a', '[2026-03-02 13:00Z,2026-03-02 15:00Z)', 'D'),
  ('6ed73671-05b1-55ba-9d0c-42219a32e702', '84c3a88c-979d-559f-9511-a1326b547b06', '[2026-03-03 06:00Z,2026-03-03 07:00Z)', 'F');
INSERT INTO places.ratings VALUES ('u1', 'p1', 5), ('u2', 'p2', 2), ('u', '1_p1', 1), ('u9', 'p9', 4);
INSERT INTO places."2nd lists" VALUES ('l1', 'A 1'), ('l9', NULL);
INSERT INTO places.list_places VALUES ('l1', 'c613d925-1ed7-519f-ab2a-11b562ff8a7a'), ('l1', '84c3a88c-979d-559f-9511-a1326b547b06'), ('l9', 'c613d925-1ed7-519f-ab2a-11b562ff8a7a');
