"""The captured tables of the bench: one table that a change log is followed of, into a lake."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from etl_assets.bronze import Bronze
from etl_assets.capture import Capture
from etl_assets.silver import Silver, SilverSpec
from etl_resources.change_log import LogTable, event_fields
from etl_resources.engines.duckdb import DuckDB
from etl_resources.lake import Lake
from etl_resources.source import LogCapture, Source, Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.capture import Tick
    from etl_assets.landing import Landed
    from etl_assets.run import Run

IMPORTS = (
    "pyarrow.compute", "pyarrow.parquet", "deltalake", "deltalake.transaction", "duckdb", "numpy", "stamina",
    "etl_assets.errors", "etl_resources.delta.evolution", "etl_resources.delta.staging",
)  # fmt: skip
OF_POSTGRES = (
    "psycopg", "adbc_driver_postgresql.dbapi", "etl_resources.changes.postgres_reading",
    "etl_resources.changes.pgoutput_events",
)  # fmt: skip
OF_SILVER = ("ibis", "ibis.backends.duckdb", "sqlglot.dialects.duckdb")
OF_MYSQL = ("pandas", "pymysql", "etl_resources.changes.mysql_reading")
PUBLICATION = "captured"


class Captured:
    """Some tables of one server, each a stream of its own name, and the capture of their log."""

    def __init__(
        self, kind: str, source: Source, settings: LogCapture, folder: str, keys: dict[str, tuple[str, ...]]
    ) -> None:
        self.source, self.lake, self.engine = source, Lake(uri=folder), DuckDB()
        options = {name: source.options_type.model_validate({"type": kind, "table": name}) for name in keys}
        self.streams = [Stream(name, its, settings) for name, its in options.items()]
        log = source.change_log("bench", [LogTable(stream, keys[stream.name]) for stream in self.streams], settings)
        bronzes = {stream.name: Bronze(self.lake, "bench", stream) for stream in self.streams}
        self.capture = Capture(bronzes, log, self.engine)

    def follow(self, run: Run, *, after: Tick | None = None) -> dict[str, Landed]:
        """Follow the log of all the tables."""
        return self.capture.follow(run, {stream.name: self._schema(stream) for stream in self.streams}, after=after)

    def _schema(self, stream: Stream) -> Callable[[], pa.Schema]:
        def schema() -> pa.Schema:
            import pyarrow as pa

            row = self.source.read_schema(stream)
            return pa.schema([*row, *event_fields(row)])

        return schema


def of_postgres(port: str, folder: str, keys: dict[str, tuple[str, ...]], slot: str, **settings: Any) -> Captured:
    """Return the capture of tables of a private PostgreSQL server, by a slot of its own."""
    from etl_resources.changes.postgres_settings import PostgresLogCapture
    from etl_resources.sources.postgres import PostgresSource

    source = PostgresSource(host="127.0.0.1", port=int(port), database="postgres", user="postgres", sslmode="disable")
    return Captured(
        "postgres", source, PostgresLogCapture(slot=slot, publication=PUBLICATION, **settings), folder, keys
    )


def of_mysql(port: str, folder: str, keys: dict[str, tuple[str, ...]], **settings: Any) -> Captured:
    """Return the capture of tables of a private MariaDB server."""
    from etl_resources.changes.mysql_settings import MysqlLogCapture
    from etl_resources.sources.mysql import MysqlSource

    source = MysqlSource(host="127.0.0.1", port=int(port), database="bench", user="root", ssl_mode="disabled")
    return Captured("mysql", source, MysqlLogCapture(**settings), folder, keys)


def captured_silver(folder: str, name: str = "orders", key: tuple[str, ...] = ("id",)) -> Silver:
    """Return the silver table of a captured one, without steps and rules: those are measured in case c."""
    return Silver(Lake(uri=folder), DuckDB(), SilverSpec("bench", name, list(key), log_key=list(key)))
