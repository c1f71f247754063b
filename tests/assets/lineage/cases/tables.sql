-- a common table expression
WITH c AS (SELECT id, x + 1 AS more FROM a) SELECT id, more FROM c
-- id: a.id
-- more: a.x
-- rows:

-- table expressions that build on each other, one of them unused
WITH c AS (SELECT id, x FROM a), d AS (SELECT id AS n, x * 2 AS x2 FROM c), e AS (SELECT z FROM b) SELECT x2, n FROM d
-- x2: a.x
-- n: a.id
-- rows:

-- a table expression that hides the table it reads
WITH a AS (SELECT id AS x, x AS id FROM a) SELECT id, x FROM a
-- id: a.x
-- x: a.id
-- rows:

-- columns named by the table expression
WITH c (n, m) AS (SELECT id, y FROM a) SELECT m, n FROM c
-- m: a.y
-- n: a.id
-- rows:

-- recursion in which one column flows into another only on the second round
WITH RECURSIVE t(n, v, w) AS (
    SELECT 0::BIGINT, x, id::DOUBLE FROM a UNION ALL SELECT n + 1, w, w FROM t WHERE n < 2
)
SELECT n, v, w FROM t
-- n:
-- v: a.x, a.id
-- w: a.id
-- rows:

-- recursion bounded by data
WITH RECURSIVE t(n) AS (SELECT id FROM a UNION ALL SELECT n + 1 FROM t WHERE n < 4) SELECT n FROM t
-- n: a.id
-- rows: a.id

-- values
SELECT v.p, v.q FROM (VALUES (1, 'a'), (2, 'b')) AS v(p, q)
-- p:
-- q:
-- rows:

-- values joined to a table
SELECT a.id, v.label FROM a JOIN (VALUES ('p', 'first'), ('q', 'second')) AS v(k, label) ON v.k = a.k
-- id: a.id
-- label:
-- rows: a.k

-- constants
SELECT 1 AS one, 'a' AS letter, NULL AS nothing, id FROM a
-- one:
-- letter:
-- nothing:
-- id: a.id
-- rows:

-- a generated series whose length is data
SELECT r.i FROM (SELECT max(id) AS n FROM a) AS t, range(t.n) AS r(i)
-- i: a.id
-- rows: a.id

-- FROM first
FROM a SELECT id WHERE x > 1
-- id: a.id
-- rows: a.x
