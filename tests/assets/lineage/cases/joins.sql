-- ON
SELECT a.id, b.z FROM a JOIN b ON a.id = b.id AND a.x > 0
-- id: a.id
-- z: b.z
-- rows: a.id, b.id, a.x

-- USING: the common column is the first that is not null
SELECT * EXCLUDE (y, k, s, l) FROM a FULL JOIN b USING (id)
-- id: a.id, b.id
-- x: a.x
-- z: b.z
-- rows: a.id, b.id

-- USING in an inner join: both sides are equal
SELECT id, z FROM a JOIN b USING (id)
-- id: a.id, b.id
-- z: b.z
-- rows: a.id, b.id

-- NATURAL
SELECT id, k, x, z FROM a NATURAL JOIN b
-- id: a.id, b.id
-- k: a.k, b.k
-- x: a.x
-- z: b.z
-- rows: a.id, b.id, a.k, b.k

-- LEFT JOIN with a default
SELECT a.id, coalesce(b.z, a.x) AS best FROM a LEFT JOIN b ON a.id = b.id
-- id: a.id
-- best: a.x, b.z
-- rows: a.id, b.id

-- CROSS JOIN decides nothing
SELECT a.id, b.z FROM a CROSS JOIN b
-- id: a.id
-- z: b.z
-- rows:

-- a join in WHERE
SELECT a.x, b.z FROM a, b WHERE a.id = b.id
-- x: a.x
-- z: b.z
-- rows: a.id, b.id

-- SEMI JOIN
SELECT a.x FROM a SEMI JOIN b ON a.id = b.id
-- x: a.x
-- rows: a.id, b.id

-- ANTI JOIN USING
SELECT a.x FROM a ANTI JOIN b USING (id)
-- x: a.x
-- rows: a.id, b.id

-- ASOF JOIN
SELECT a.x, b.z FROM a ASOF JOIN b ON a.id >= b.id
-- x: a.x
-- z: b.z
-- rows: a.id, b.id

-- a table joined to itself
SELECT l.x AS mine, r.x AS theirs FROM a AS l JOIN a AS r ON l.id = r.id + 1
-- mine: a.x
-- theirs: a.x
-- rows: a.id

-- parentheses around a join
SELECT z, x FROM (a JOIN b ON a.id = b.id)
-- z: b.z
-- x: a.x
-- rows: a.id, b.id

-- LATERAL
SELECT a.id, t.m FROM a, LATERAL (SELECT a.x + b.z AS m FROM b WHERE b.id = a.id) AS t
-- id: a.id
-- m: a.x, b.z
-- rows: a.id, b.id

-- a condition with a subquery
SELECT a.id, b.z FROM a JOIN b ON a.id = b.id AND b.z > (SELECT min(amount) FROM silver.sales)
-- id: a.id
-- z: b.z
-- rows: a.id, b.id, b.z, silver.sales.amount
