-- a schema in front
SELECT silver.sales.amount, sales.day FROM silver.sales
-- amount: silver.sales.amount
-- day: silver.sales.day
-- rows:

-- two tables of one name in two places
SELECT s.amount AS here, t.amount AS there FROM silver.sales AS s CROSS JOIN silver.shop.sales AS t
-- here: silver.sales.amount
-- there: silver.shop.sales.amount
-- rows:

-- three parts in front
SELECT silver.shop.sales.amount * 2 AS twice FROM silver.shop.sales
-- twice: silver.shop.sales.amount
-- rows:

-- quoted names with upper case and a blank
SELECT "Id", "Unit Price" * 2 AS "Double Price" FROM "Mixed Case"
-- Id: "Mixed Case".Id
-- Double Price: "Mixed Case".Unit Price
-- rows:

-- case does not matter to DuckDB; the table's spelling comes out
SELECT ID, "unit price" FROM "mixed case"
-- Id: "Mixed Case".Id
-- Unit Price: "Mixed Case".Unit Price
-- rows:

-- the case of an alias is kept
SELECT id AS "ID", x AS CamelCase FROM a
-- ID: a.id
-- CamelCase: a.x
-- rows:

-- keywords as names
SELECT "group", "SELECT" FROM (SELECT "group", "Id" AS "SELECT" FROM "Mixed Case")
-- group: "Mixed Case".group
-- SELECT: "Mixed Case".Id
-- rows:

-- a field of a struct is not mistaken for a table
SELECT a.s.f AS f FROM a CROSS JOIN (SELECT 1 AS f) AS s
-- f: a.s
-- rows:
