-- UNION ALL: every arm
SELECT id, x FROM a UNION ALL SELECT id, z FROM b UNION ALL SELECT day, amount FROM silver.sales
-- id: a.id, b.id, silver.sales.day
-- x: a.x, b.z, silver.sales.amount
-- rows:

-- UNION ALL by position, not by name
SELECT id, x FROM a UNION ALL SELECT z, id FROM b
-- id: a.id, b.z
-- x: a.x, b.id
-- rows:

-- UNION removes doubles
SELECT id FROM a UNION SELECT id FROM b
-- id: a.id, b.id
-- rows: a.id, b.id

-- UNION ALL BY NAME
SELECT x, id FROM a UNION ALL BY NAME SELECT id, z FROM b
-- x: a.x
-- id: a.id, b.id
-- z: b.z
-- rows:

-- EXCEPT: the right side only decides
SELECT id, k FROM a EXCEPT SELECT id, k FROM b
-- id: a.id
-- k: a.k
-- rows: a.id, a.k, b.id, b.k

-- INTERSECT
SELECT id FROM a INTERSECT SELECT id FROM b
-- id: a.id
-- rows: a.id, b.id

-- ORDER BY and LIMIT of a union
SELECT id FROM a UNION ALL SELECT id FROM b ORDER BY 1 LIMIT 3
-- id: a.id, b.id
-- rows: a.id, b.id

-- a union as a table
SELECT sum(v) AS total FROM (SELECT x AS v FROM a UNION ALL SELECT z FROM b)
-- total: a.x, b.z
-- rows:
