-- count(*) is computed from no column
SELECT y, count(*) AS n, count(x) AS xs, sum(x) AS total FROM a GROUP BY y
-- y: a.y
-- n:
-- xs: a.x
-- total: a.x
-- rows: a.y

-- GROUP BY ALL
SELECT y, k, max(x) AS most FROM a GROUP BY ALL
-- y: a.y
-- k: a.k
-- most: a.x
-- rows: a.y, a.k, a.x

-- GROUP BY position
SELECT y || k AS both, max(x) AS most FROM a GROUP BY 1
-- both: a.y, a.k
-- most: a.x
-- rows: a.y, a.k

-- FILTER
SELECT sum(x) FILTER (WHERE id > 2) AS total, count(*) FILTER (WHERE y = 'q') AS qs FROM a
-- total: a.x, a.id
-- qs: a.y
-- rows:

-- HAVING
SELECT y, max(id) AS top FROM a GROUP BY y HAVING sum(x) > 1
-- y: a.y
-- top: a.id
-- rows: a.y, a.x

-- an ordered aggregate
SELECT list(x ORDER BY id) AS xs FROM a
-- xs: a.x, a.id
-- rows:

-- arg_max
SELECT arg_max(y, x) AS best FROM a
-- best: a.y, a.x
-- rows:

-- DISTINCT
SELECT count(DISTINCT k) AS kinds FROM a
-- kinds: a.k
-- rows:

-- SELECT DISTINCT decides on rows by all its columns
SELECT DISTINCT y, k FROM a
-- y: a.y
-- k: a.k
-- rows: a.y, a.k

-- DISTINCT ON
SELECT DISTINCT ON (y) y, x FROM a ORDER BY y, id, x
-- y: a.y
-- x: a.x
-- rows: a.y, a.id, a.x

-- ROLLUP
SELECT y, k, sum(x) AS total FROM a GROUP BY ROLLUP (y, k)
-- y: a.y
-- k: a.k
-- total: a.x
-- rows: a.y, a.k

-- an aggregate of an aggregate
SELECT max(total) AS top FROM (SELECT k, sum(z) AS total FROM b GROUP BY k)
-- top: b.z
-- rows: b.k

-- LIMIT makes ORDER BY decide
SELECT id FROM a ORDER BY x, id LIMIT 2
-- id: a.id
-- rows: a.x, a.id

-- ORDER BY an alias
SELECT id, x * 2 AS twice FROM a ORDER BY twice, id LIMIT 3
-- id: a.id
-- twice: a.x
-- rows: a.x, a.id

-- a limit that is data
SELECT z FROM b LIMIT (SELECT max(id) FROM a)
-- z: b.z
-- rows: a.id
