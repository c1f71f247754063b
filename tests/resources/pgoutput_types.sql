-- One table with every kind of type; what a snapshot and the log make of its rows has to be the same.
CREATE TYPE mood AS ENUM ('sad', 'happy, "so" \ {so}');
CREATE DOMAIN price AS numeric(5, 1) CHECK (VALUE > 0);
CREATE DOMAIN prices AS price[];
CREATE DOMAIN dearer AS price CHECK (VALUE > 1);
CREATE DOMAIN flag AS bool;
CREATE TYPE pair AS (x int, y text);
CREATE TYPE "Deep, ""odd""" AS (
    b bool, n numeric, f float8, d date, t timestamp, z timestamptz, j jsonb, p pair, a text[], i int[], ps pair[],
    grid int[], grids text[], "na""me" text, m mood, u uuid, o bytea, r int4range, pr price
);
CREATE TABLE t (
    id int PRIMARY KEY,
    bool_ bool, int2_ int2, int4_ int4, int8_ int8, float4_ float4, float8_ float8,
    numeric_ numeric, numeric12_2 numeric(12, 2), numeric38_8 numeric(38, 8), numeric39 numeric(39, 0),
    numeric_wide numeric(2, -5), numeric_small numeric(3, 5), money_ money,
    text_ text, varchar_ varchar(40), char_ char(4), name_ name, one_char "char", bytea_ bytea,
    date_ date, time_ time, timetz_ timetz, timestamp_ timestamp, timestamptz_ timestamptz, interval_ interval,
    json_ json, jsonb_ jsonb, uuid_ uuid, mood_ mood, inet_ inet, cidr_ cidr, macaddr_ macaddr, oid_ oid, xml_ xml,
    bit_ bit(3), varbit_ varbit, point_ point, box_ box, tsvector_ tsvector, lsn_ pg_lsn, vector_ int2vector,
    int4range_ int4range, tstzrange_ tstzrange, tsrange_ tsrange, numrange_ numrange, multirange_ int4multirange,
    price_ price, dearer_ dearer, prices_ prices, pair_ pair, deep_ "Deep, ""odd""",
    bools bool[], int2s int2[], int4s int4[], int8s int8[], float4s float4[], float8s float8[], numerics numeric[],
    numerics4_2 numeric(4, 2)[], texts text[], varchars varchar(9)[], chars char(4)[], names name[], byteas bytea[],
    dates date[], times time[], timestamps timestamp[], timestamptzs timestamptz[], intervals interval[],
    jsons json[], jsonbs jsonb[], uuids uuid[], moods mood[], inets inet[], moneys money[], ranges int4range[],
    flags flag[], dearers dearer[], pairs pair[], xmls xml[], boxes box[], oids oid[]
);
INSERT INTO t (id) VALUES (1);
INSERT INTO t VALUES (
    2, true, 32767, -2147483648, 9223372036854775807, 3.4028235e38, 1.7976931348623157e308,
    1e-30, -1234567890.12, 123456789012345678901234567890.12345678, repeat('9', 39)::numeric, 1234567, 0.00012, -1234567.05,
    E'ž "quoted" \\ \n\t, {x} ''y'' 𝄞', 'varchar', 'ab', 'name', 'c', '\x00ff5c22',
    '2024-02-29', '24:00:00', '12:34:56.789012+05:30', '2024-07-01 12:34:56.000001', '2024-07-01 12:34:56.7+02',
    '1 year -2 months 3 days -04:05:06.789', '{"b" : 1, "a":[1.10]}', '{"b": 1, "a": [1.10, "\u00e9\\"]}',
    '6f0e9f0e-0000-4000-8000-000000000001', 'sad', '10.1.2.3', '10.0.0.0/8', '08:00:2b:01:02:03', 4294967295,
    '<?xml version="1.0" encoding="UTF-8"?><a b="c">&lt;</a>', '101', '10', '(1.5,-2)', '((0,0),(1,1.25))', 'a:1 b:2',
    '16/B374D848', '1 2 3', '[1,5)', '["2024-07-01 12:00+02",)', '(,"2024-07-01 12:00:00.5"]', 'empty', '{[1,3), [5,)}',
    1.5, 2.5, '{1.5,NULL}', '(1,a)',
    ROW(true, 1e-10, 0.1, '2024-02-29', '2024-07-01 12:00:00.5', '2024-07-01 12:00+02', '{"k": "v"}', ROW(1, E'y"\\,()\n'),
        ARRAY['a,b', NULL, '', 'NULL', '"q"\'], ARRAY[1, NULL], ARRAY[ROW(1, 'p')::pair],
        '{{1,NULL},{3,4}}', '[2:3][0:0]={{"a,}}"},{NULL}}', E'ta\tb\x01', 'happy, "so" \ {so}',
        '6f0e9f0e-0000-4000-8000-000000000001', '\x00ff', '[1,2)', 3.5)::"Deep, ""odd""",
    '{t,f,NULL}', '{1,NULL,-3}', '{1,NULL}', '{9223372036854775807}', '{1.5,NaN,Infinity}', '{0.1,-Infinity,NULL}',
    '{1e-30,NaN,NULL}', '{1.50,NULL,-99.99}', ARRAY['a', NULL, 'NULL', '', ' ', 'a,b', '{}', '"', '\', '\"', '\\', E'\n', 'ž'],
    '{a,b}', '{a,"b ",NULL}', '{n,NULL}', ARRAY['\x00ff'::bytea, NULL, '\x'], '{2024-02-29,NULL}', '{24:00:00,NULL}',
    '{2024-07-01 12:34:56.000001,NULL}', '{2024-07-01 12:34:56.7+02}', '{1 mon 3 days,NULL}', ARRAY['{"a":[1,"x"]}'::json],
    ARRAY['{"a":[1,"x\\"]}'::jsonb, 'null', NULL], '{6f0e9f0e-0000-4000-8000-000000000001}',
    ARRAY['happy, "so" \ {so}', 'sad', NULL]::mood[], '{10.1.2.3,10.0.0.0/8,::1,NULL}', '{1.50,-1234.5}', '{"[1,5)",empty}',
    '{t,f,NULL}', '{2.5,NULL}', ARRAY[ROW(1, 'a,"b"')::pair, NULL, ROW(NULL, NULL)::pair],
    ARRAY['<?xml version="1.0" encoding="UTF-8"?><a/>'::xml], '{(1,1),(0,0);(3,3),(2,2)}', '{4294967295}'
);
INSERT INTO t VALUES (
    3, false, -32768, 2147483647, -9223372036854775808, 'NaN', 'Infinity', 'NaN', 0, -0.00000001, -1, -1200000, -0.00999, 0.05,
    '', '', '', '', '', '', '0001-01-01', '00:00:00', '00:00:00+00', '0001-01-01', '9999-12-31 23:59:59.999999+00', '0',
    'null', 'null', '00000000-0000-0000-0000-000000000000', 'happy, "so" \ {so}', '::1', '::/0', '00:00:00:00:00:00', 0, '<a/>',
    '000', '', '(0,0)', '((0,0),(0,0))', '', '0/0', '', 'empty', 'empty', '[-infinity,infinity]', '[1.10,2.20]', '{}', 0.1, 1.1,
    '{}', '(,)', ROW(false, 'NaN', '-Infinity', 'infinity', '-infinity', '0044-03-15 12:00+00 BC', 'null', NULL, '{}', '{}',
        ARRAY[NULL]::pair[], '[0:1]={1,2}', '{{{a},{b}},{{c},{d}}}', '', 'sad', NULL, '\x', 'empty', NULL)::"Deep, ""odd""",
    '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
    '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'
);
