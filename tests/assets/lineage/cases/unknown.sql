-- COLUMNS(*)
SELECT id, COLUMNS('z|k') FROM b
-- id: b.id
-- z: unknown
-- k: unknown
-- rows:

-- an expression over COLUMNS(*)
SELECT min(COLUMNS(*)) FROM b
-- id: unknown
-- z: unknown
-- k: unknown
-- rows:

-- what follows an expansion is matched from the end
SELECT k AS first, COLUMNS('i.*'), z AS last FROM b
-- first: b.k
-- id: unknown
-- last: b.z
-- rows:

-- COLUMNS(*) in a condition
SELECT id FROM b WHERE COLUMNS('z|k') IS NOT NULL
-- id: b.id
-- rows: unknown

-- a star filtered by a pattern
SELECT * LIKE 'z%' FROM b
-- z: unknown
-- rows:

-- a pseudo-column
SELECT id, rowid AS r FROM b
-- id: b.id
-- r: unknown
-- rows:

-- a table function that is not followed
SELECT b.id, j.value AS v FROM b, json_each(json_object('k', b.k)) AS j
-- id: b.id
-- v: unknown
-- rows: unknown

-- SUMMARIZE as a table
SELECT column_name FROM (SUMMARIZE b)
-- column_name: unknown
-- rows: unknown

-- PIVOT with GROUP BY
SELECT * FROM b PIVOT (sum(z) FOR k IN ('p') GROUP BY id)
-- id: unknown
-- p: unknown
-- rows: b.id, b.k?

-- doubled names in a subquery are renamed in a way that is not followed
SELECT * FROM (SELECT a.k, b.k FROM a CROSS JOIN b)
-- k: unknown
-- k_1: unknown
-- rows:

-- a struct taken apart in a subquery
SELECT f FROM (SELECT unnest(s) FROM a)
-- f: unknown
-- rows: a.s?
