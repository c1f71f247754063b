"""The DuckDB that types the values of blocks, which are parsed side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etl_resources.engines.duckdb import literal

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


class Database:
    """One database for many threads: to open one for each block would take as long as all the rest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def over(self, texts: Mapping[str, object], zone: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a connection that sees the arrays as a table `texts`; times without a zone are in `zone`."""
        import duckdb
        import pyarrow as pa

        with self._lock:
            if self._database is None:
                self._database = duckdb.connect()
                self._database.execute("SET threads = 1")
            cursor = self._database.cursor()
        try:
            cursor.execute(f"SET TimeZone = {literal(zone)}")
            cursor.register("texts", pa.table(dict(texts)))
            yield cursor
        finally:
            cursor.close()

    def table(self, sql: str, texts: Mapping[str, object], zone: str = "UTC") -> pa.Table:
        """Return what a query over `texts` finds."""
        with self.over(texts, zone) as connection:
            return connection.sql(sql).to_arrow_table()

    def close(self) -> None:
        """Let go of it; the next use opens another."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None
