-- a field belongs to its struct column
SELECT s.f AS f, a.s.g AS g, s['f'] AS h, struct_extract(s, 'g') AS i FROM a
-- f: a.s
-- g: a.s
-- h: a.s
-- i: a.s
-- rows:

-- a struct made and taken apart
SELECT st.p AS p FROM (SELECT struct_pack(p := x, q := y) AS st FROM a)
-- p: a.x, a.y?
-- rows:

-- struct, list and map literals
SELECT {'p': x, 'q': {'r': y}} AS st, [x, id] AS pair, map {'k': k} AS m FROM a
-- st: a.x, a.y
-- pair: a.x, a.id
-- m: a.k
-- rows:

-- a lambda whose parameter hides a column
SELECT list_transform(l, lambda x: x + id) AS moved FROM a
-- moved: a.l, a.id
-- rows:

-- list functions
SELECT list_sum(l) AS total, len(l) AS n, l[1] AS first, list_filter(l, lambda e: e > id) AS big FROM a
-- total: a.l
-- n: a.l
-- first: a.l
-- big: a.l, a.id
-- rows:

-- a list comprehension
SELECT [e * 2 FOR e IN l IF e > id] AS twice FROM a
-- twice: a.l, a.id
-- rows:

-- unnest in SELECT: the length decides on rows
SELECT id, unnest(l) AS item FROM a
-- id: a.id
-- item: a.l
-- rows: a.l

-- unnest in FROM
SELECT a.id, u.item FROM a, unnest(a.l) AS u(item)
-- id: a.id
-- item: a.l
-- rows: a.l

-- unnest in a subquery
SELECT item, id FROM (SELECT unnest(l) AS item, id FROM a)
-- item: a.l
-- id: a.id
-- rows: a.l

-- unnest of a struct: its fields
SELECT id, unnest(s) FROM a
-- id: a.id
-- f: a.s
-- g: a.s
-- rows: a.s?

-- columns made rows by a list of structs
SELECT id, unnest([{'n': 'x', 'v': x}, {'n': 'id', 'v': id}]) AS pair FROM a
-- id: a.id
-- pair: a.x, a.id
-- rows: a.x?, a.id?
