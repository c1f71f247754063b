"""Prepare (log): an access log in the combined format of `lines` lines at `path`: `lines path`."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from bench.said import timed

SQL = r"""
    SELECT format('{}.{}.{}.{} - {} [{}] "{} {} HTTP/1.1" {} {} "{}" "{}"',
        1 + i % 223, i % 256, (i * 7) % 256, (i * 13) % 256, CASE WHEN i % 50 = 0 THEN 'user' || i % 1000 ELSE '-' END,
        strftime(TIMESTAMP '2024-01-01' + to_milliseconds(i * 37), '%d/%b/%Y:%H:%M:%S +0000'),
        ['GET', 'GET', 'GET', 'POST', 'HEAD'][1 + i % 5],
        '/shop/category-' || i % 97 || '/product-' || (i * 7919) % 50021 || '.html?ref=' || md5(i::VARCHAR)[:8],
        [200, 200, 200, 304, 404, 500][1 + i % 6], CASE WHEN i % 6 = 3 THEN '-' ELSE ((i * 37) % 100000)::VARCHAR END,
        CASE WHEN i % 3 = 0 THEN '-' ELSE 'https://www.example.org/search?q=' || md5((i % 5000)::VARCHAR) END,
        'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/1' || i % 40 ||
        '.0.0.0 Safari/537.36') AS line
    FROM range({lines}) AS r(i)
"""


def main(lines: str, path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    query = SQL.replace("{lines}", lines)
    options = "format csv, header false, quote '', escape '', delimiter '\x01'"
    with duckdb.connect() as connection:
        timed(lambda: connection.execute(f"COPY ({query}) TO '{path}' ({options})").fetchall())


if __name__ == "__main__":
    main(*sys.argv[1:])
