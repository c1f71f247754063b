"""MySQL and MariaDB tables and queries as a source: whole, or what has changed since the last read."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from etl_resources.changes.mysql_settings import MysqlLogCapture
from etl_resources.exceptions import ConfigurationError
from etl_resources.mysql import MysqlConnection
from etl_resources.read_ahead import read_ahead
from etl_resources.source import (
    Batch,
    Capabilities,
    Estimate,
    LogCapture,
    Position,
    Source,
    Stream,
    StreamOptions,
)
from etl_resources.sources.mysql_columns import TinyInt1
from etl_resources.tables import TableOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.change_log import ChangeLog, LogTable
    from etl_resources.hashed import HashedTable


class Parallel(BaseModel):
    """Read a table in ranges of a column, over one connection each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = Field(description="An integer column with an index, best the primary key.")
    parts: int = Field(ge=2, le=64)


class MysqlStreamOptions(TableOptions):
    """A table or a query, and how to read it."""

    table: str | None = Field(default=None, description="`table` or `database.table`.")
    query: str | None = Field(default=None, description="A SELECT; for whatever a table does not give.")
    tinyint1: TinyInt1 = Field(
        default="boolean", description="What tinyint(1) is: boolean (2 and the like are then unreadable), or integer."
    )
    settle: float = Field(
        default=5.0, ge=0, le=600,
        description="Incremental: seconds to wait for transactions that are open when the read begins.",
    )  # fmt: skip
    late_by: int | None = Field(
        default=None, ge=0,
        description="Incremental: how much older than its statement (seconds, or steps of an integer) a cursor may be."
        " Where open transactions cannot be seen it is a promise: a row that is committed later than that is lost.",
    )  # fmt: skip
    parallel: Parallel | None = Field(default=None, description="Ranges of one big table, read at the same time.")
    read_ahead: int = Field(default=2, ge=0, le=64, description="Batches fetched while earlier ones are worked on.")

    @model_validator(mode="after")
    def _of_a_table(self) -> MysqlStreamOptions:
        if self.parallel and self.table is None:
            raise ValueError("`parallel` needs a `table`: several connections see the same moment of one table only")
        return self


class MysqlSource(MysqlConnection, Source):
    """Reads over the text protocol into Arrow, in one consistent snapshot per read, in bounded memory.

    Incremental capture reads every row whose cursor has grown since the last read, also those that are committed late
    (see `mysql_horizon`); deletes, and updates that leave the cursor alone, are not seen by it. Streams carry no `_op`
    and no `_seq`: a table tells neither what was done to a row, nor in which order.
    """

    options_type: ClassVar[type[StreamOptions]] = MysqlStreamOptions
    log_type: ClassVar[type[LogCapture]] = MysqlLogCapture
    capabilities: ClassVar[Capabilities] = Capabilities(
        captures=frozenset({"snapshot", "incremental", "log"}), windows=True
    )

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the Arrow schema; unsigned numbers, enums and the like as `mysql_columns` has it."""
        from etl_resources.sources.mysql_plan import make_plan

        with self.session() as session:
            return make_plan(session, stream, _options(stream), self.database).schema

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the rows of one snapshot; only the last batch carries a position, except for a window, which has none.

        A snapshot of an empty table is one batch without rows: the table is known to be empty.

        Raises:
            ConfigurationError: also where the user may not see what an incremental read needs.
            SchemaConflictError: the table changed while it was read.
        """
        yield from read_ahead(self._read(stream, since, batch_rows), _options(stream).read_ahead)

    def latest(self, stream: Stream) -> Position | None:  # noqa: ARG002 - of all tables, as only the server knows
        """Return what differs if anything was written to the server since; None: it does not let the user see that."""
        from etl_resources.sources.mysql_news import news

        with self.session() as session:
            return news(session)

    def estimate(self, stream: Stream, since: Position | None) -> Estimate | None:
        """Return what the server's planner expects of a table; None for a query."""
        from etl_resources.sources.mysql_horizon import Horizon, kind_of
        from etl_resources.sources.mysql_plan import make_plan, new_rows

        options = _options(stream)
        if options.table is None:
            return None
        with self.session() as session:
            plan = make_plan(session, stream, options, self.database)
            conditions = list(plan.conditions)
            if plan.cursor is not None and since is not None:
                conditions += new_rows(plan.cursor, Horizon.from_position(since, kind_of(plan.cursor, plan.where)))
            # MySQL has a column `filtered` between the rows and the remarks.
            rows = session.rows(f"EXPLAIN {plan.query(conditions)}")[0][-2 if session.is_mariadb else -3]
        return Estimate(int(rows)) if str(rows).isdigit() else None

    def change_log(self, pipeline: str, tables: Sequence[LogTable], capture: LogCapture) -> ChangeLog:
        """Return the row binlog of the server for some tables."""
        from etl_resources.changes.mysql import MysqlLog

        settings = capture if isinstance(capture, MysqlLogCapture) else MysqlLogCapture(**capture.model_dump())
        return MysqlLog(self, pipeline, tables, settings)

    def hashed(self, stream: Stream, key: Sequence[str]) -> AbstractContextManager[HashedTable] | None:
        """Return a snapshot of a table whose rows the server hashes.

        None for a query or a view, which the server would compute again for every question, and for a table of an
        engine without transactions, which is not the same when it is asked a second time.
        """
        from etl_resources.changes.mysql_moment import is_transactional
        from etl_resources.mysql_sql import unquoted
        from etl_resources.sources.mysql_hashes import opened
        from etl_resources.sources.mysql_plan import make_plan

        options = _options(stream)
        if options.table is None:
            return None
        with self.session() as session:
            plan = make_plan(session, stream, options, self.database)
            if not is_transactional(session, *unquoted(plan.relation)):
                return None
        return opened(self, stream, options, key)

    def _read(self, stream: Stream, since: Position | None, batch_rows: int) -> Generator[Batch, None, None]:
        from etl_resources.sources.mysql_plan import make_plan
        from etl_resources.sources.mysql_reading import Reading

        options = _options(stream)
        with self.session() as session:
            plan = make_plan(session, stream, options, self.database)
            reading = Reading(plan, options, batch_rows, positioned=stream.window is None)
            reading.begin(session, since)
            yield from reading.batches(self, session)


def _options(stream: Stream) -> MysqlStreamOptions:
    if not isinstance(stream.options, MysqlStreamOptions):
        raise ConfigurationError(f"stream {stream.name} is not a mysql stream", where=str(stream.options))
    return stream.options


SOURCE = MysqlSource
