-- CASE: the condition counts
SELECT CASE WHEN x > 1 THEN y ELSE k END AS c FROM a
-- c: a.x, a.y, a.k
-- rows:

-- an alias used further to the right
SELECT x + 1 AS more, more * 2 AS twice FROM a WHERE more > 2
-- more: a.x
-- twice: a.x
-- rows: a.x

-- a column wins over an alias of its name
SELECT y AS k, k AS y FROM a
-- k: a.y
-- y: a.k
-- rows:

-- cast
SELECT x::VARCHAR AS text, TRY_CAST(y AS BIGINT) AS number FROM a
-- text: a.x
-- number: a.y?
-- rows:

-- expressions without a name are called as DuckDB calls them
SELECT x + 1, upper(y), count(*) OVER () FROM a
-- (x + 1): a.x
-- upper(y): a.y
-- count() OVER ():
-- rows:

-- JSON
SELECT json_object('i', id, 'n', y) AS j, json_object('k', k)->>'$.k' AS k FROM a
-- j: a.id, a.y
-- k: a.k
-- rows:

-- IN a list, BETWEEN, LIKE
SELECT y IN ('p', k) AS i, x BETWEEN 1 AND id AS j, y LIKE k AS m FROM a
-- i: a.y, a.k
-- j: a.x, a.id
-- m: a.y, a.k
-- rows:
