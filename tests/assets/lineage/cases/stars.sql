-- every column
SELECT * FROM b
-- id: b.id
-- z: b.z
-- k: b.k
-- rows:

-- EXCLUDE and REPLACE
SELECT * EXCLUDE (s, l, y) REPLACE (x + id AS x) FROM a
-- id: a.id
-- x: a.x, a.id
-- k: a.k
-- rows:

-- RENAME
SELECT * RENAME (id AS number) FROM b
-- number: b.id
-- z: b.z
-- k: b.k
-- rows:

-- the star of one table
SELECT b.*, a.x FROM a JOIN b ON a.id = b.id
-- id: b.id
-- z: b.z
-- k: b.k
-- x: a.x
-- rows: a.id, b.id

-- the star of one table, with REPLACE
SELECT t.* REPLACE (upper(k) || z AS k) FROM b AS t
-- id: b.id
-- z: b.z
-- k: b.k, b.z
-- rows:

-- a star over a star
SELECT * FROM (SELECT * EXCLUDE (k) FROM (SELECT *, z * 2 AS twice FROM b))
-- id: b.id
-- z: b.z
-- twice: b.z
-- rows:

-- the same column twice
SELECT id, id FROM b
-- id: b.id
-- rows:

-- one name for two columns
SELECT a.k, b.k FROM a CROSS JOIN b
-- k: a.k, b.k
-- rows:

-- a whole row as a value
SELECT b FROM b
-- b: b.id, b.z, b.k
-- rows:

-- the fields of a struct
SELECT id, s.* FROM a
-- id: a.id
-- f: a.s
-- g: a.s
-- rows:
