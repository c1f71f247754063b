-- PIVOT: a cell comes from its aggregate and from the column that says which cell
SELECT * FROM b PIVOT (sum(z) FOR k IN ('p', 'q'))
-- id: b.id
-- p: b.z, b.k
-- q: b.z, b.k
-- rows: b.id, b.k?

-- PIVOT with two aggregates
SELECT * FROM b PIVOT (sum(z) AS s, max(id) AS m FOR k IN ('p', 'q')) AS t
-- p_s: b.z, b.k
-- p_m: b.id, b.k
-- q_s: b.z, b.k
-- q_m: b.id, b.k
-- rows: b.k?

-- PIVOT of a subquery
SELECT id, q FROM (SELECT id, k, z * 2 AS zz FROM b) PIVOT (max(zz) FOR k IN ('p', 'q'))
-- id: b.id
-- q: b.z, b.k
-- rows: b.id, b.k?

-- conditional aggregation, the pivot of every dialect
SELECT id, sum(CASE WHEN k = 'p' THEN z END) AS p, max(z) FILTER (WHERE k = 'q') AS q FROM b GROUP BY id
-- id: b.id
-- p: b.z, b.k
-- q: b.z, b.k
-- rows: b.id

-- UNPIVOT: the name column holds constants; a null makes no row
SELECT * FROM (SELECT id::DOUBLE AS id, z, k FROM b) UNPIVOT (v FOR n IN (id, z))
-- k: b.k
-- n:
-- v: b.id, b.z
-- rows: b.id, b.z

-- the UNPIVOT statement
UNPIVOT (SELECT id, x, s.f::DOUBLE AS f FROM a) ON x, f INTO NAME n VALUE v
-- id: a.id
-- n:
-- v: a.x, a.s
-- rows: a.x, a.s

-- the UNPIVOT statement as a table
SELECT v, k FROM (UNPIVOT (SELECT k, id::DOUBLE AS id, z FROM b) ON id, z INTO NAME n VALUE v)
-- v: b.id, b.z
-- k: b.k
-- rows: b.id, b.z
