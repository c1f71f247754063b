-- partition and order are part of the value
SELECT id, sum(x) OVER (PARTITION BY y ORDER BY id) AS running FROM a
-- id: a.id
-- running: a.x, a.y, a.id
-- rows:

-- a named window
SELECT id, sum(x) OVER w AS running FROM a WINDOW w AS (PARTITION BY y ORDER BY k)
-- id: a.id
-- running: a.x, a.y, a.k
-- rows:

-- a filtered window aggregate
SELECT sum(x) FILTER (WHERE y = 'q') OVER (PARTITION BY k) AS total FROM a
-- total: a.x, a.y, a.k
-- rows:

-- lag with a default
SELECT lag(x, 1, id) OVER (ORDER BY id, y) AS before FROM a
-- before: a.x, a.id, a.y
-- rows:

-- QUALIFY decides on rows
SELECT y, x FROM a QUALIFY row_number() OVER (PARTITION BY y ORDER BY id, x) = 1
-- y: a.y
-- x: a.x
-- rows: a.y, a.id, a.x

-- QUALIFY by an alias
SELECT k, rank() OVER (ORDER BY z) AS place FROM b QUALIFY place <= 2
-- k: b.k
-- place: b.z
-- rows: b.z

-- a rank over everything
SELECT cume_dist() OVER (ORDER BY x) AS share, count(*) OVER () AS n FROM a
-- share: a.x
-- n:
-- rows:
