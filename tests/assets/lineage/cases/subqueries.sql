-- scalar
SELECT id, (SELECT max(z) FROM b) AS top FROM a
-- id: a.id
-- top: b.z
-- rows:

-- correlated: what it compares decides, what it returns is the value
SELECT id, (SELECT max(z) FROM b WHERE b.k = a.k) AS top FROM a
-- id: a.id
-- top: b.z
-- rows: a.k, b.k

-- a correlated column without its table
SELECT id, (SELECT max(z) + x FROM b) AS top FROM a
-- id: a.id
-- top: b.z, a.x
-- rows:

-- EXISTS has no value but whether there are rows
SELECT a.x, EXISTS (SELECT 1 FROM b WHERE b.id = a.id) AS found FROM a
-- x: a.x
-- found: a.id, b.id
-- rows: a.id?, b.id?

-- IN
SELECT id, x IN (SELECT z FROM b) AS found FROM a
-- id: a.id
-- found: a.x, b.z
-- rows:

-- EXISTS in WHERE
SELECT x FROM a WHERE EXISTS (FROM b WHERE b.id = a.id AND z > 1)
-- x: a.x
-- rows: a.id, b.id, b.z

-- IN over two columns in WHERE
SELECT x FROM a WHERE (id, k) IN (SELECT id, k FROM b)
-- x: a.x
-- rows: a.id, a.k, b.id, b.k

-- a derived table with named columns
SELECT p, q FROM (SELECT id, x FROM a) AS t(q, p)
-- p: a.x
-- q: a.id
-- rows:

-- array of a subquery
SELECT id, ARRAY(SELECT z FROM b ORDER BY z) AS zs FROM a
-- id: a.id
-- zs: b.z
-- rows: b.z?

-- ANY
SELECT id > ANY (SELECT id FROM b) AS above FROM a
-- above: a.id, b.id
-- rows:
