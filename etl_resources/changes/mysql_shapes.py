"""What becomes of the rows of a table, as it was at one moment of the log: their columns and how they are decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_resources.change_log import LogTable, event_fields
from etl_resources.changes import mysql_types as kinds
from etl_resources.changes.mysql_row_values import Target
from etl_resources.exceptions import ConfigurationError
from etl_resources.mysql_sql import literal, unquoted
from etl_resources.sources.mysql_plan import make_plan

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.mysql_types import Physical, TableMap
    from etl_resources.mysql_session import Session
    from etl_resources.sources.mysql import MysqlStreamOptions
    from etl_resources.sources.mysql_plan import Plan


@dataclass(slots=True)
class Definition:
    """A captured table as the server has it now."""

    log_table: LogTable
    database: str
    table: str
    plan: Plan
    sql_types: dict[str, str]
    """Name of a column -> its type without length, all columns, also those that `SELECT *` leaves out."""
    chosen: tuple[str, ...] | None
    """The columns that the user wants; None: all."""

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.log_table.name


@dataclass(slots=True)
class Shape:
    """A version of a table, with the columns of its events in the order of the stream."""

    stream: str
    key: tuple[str, ...]
    columns: list[Physical]
    places: list[int]
    """Of each target, where its column is among `columns`."""
    targets: list[Target]
    row: pa.Schema = field(init=False)
    schema: pa.Schema = field(init=False)

    def __post_init__(self) -> None:
        import pyarrow as pa

        self.row = pa.schema([(target.name, target.arrow) for target in self.targets])
        self.schema = pa.schema([*self.row, *event_fields(self.row)])


def define(session: Session, log_table: LogTable, options: MysqlStreamOptions, database: str) -> Definition:
    """Look up a captured table.

    Raises:
        NotFoundError, ConfigurationError: as `make_plan`; also for a query and a view.
    """
    where = f"stream {log_table.name}, {session.where}"
    if options.table is None:
        raise ConfigurationError(
            "a query has no change log", where=where, fix="give the `table`, or choose another capture"
        )
    plan = make_plan(session, log_table.stream, options, database)
    schema, table = unquoted(plan.relation)
    rows = session.rows(
        "SELECT column_name, data_type FROM information_schema.columns"  # noqa: S608 - literals
        f" WHERE table_schema = {literal(schema)} AND table_name = {literal(table)}"
    )
    names = {column.name for column in plan.columns}
    if missing := [name for name in log_table.key if name not in names]:
        raise ConfigurationError(
            f"the key has the column {missing[0]}, which is not read", where=where, fix="correct `key` or `columns`"
        )
    chosen = tuple(column.name for column in plan.columns) if options.columns else None
    return Definition(log_table, schema, table, plan, {n: _plain(t) for n, t in rows}, chosen)


def shape(table: TableMap, definition: Definition) -> Shape:
    """Return how events of this version of the table are decoded.

    A column that is no longer there is given as far as the log describes it; one that is hidden is left out.

    Raises:
        ConfigurationError: the key is not among the columns.
    """
    now = {column.name: column.arrow for column in definition.plan.columns}
    by_name = {column.name: n for n, column in enumerate(table.columns)}
    wanted = definition.chosen or [n for n in by_name if n in now or n not in definition.sql_types]
    places = [by_name[name] for name in wanted if name in by_name]
    targets = [_target(table.columns[place], now, definition.sql_types) for place in places]
    key = definition.log_table.key
    if missing := [name for name in key if name not in {target.name for target in targets}]:
        raise ConfigurationError(
            f"table {table.database}.{table.table} had no column {missing[0]} at this place of its log, and it is"
            " part of the key", where=f"stream {definition.name}", fix="read the stream anew",
        )  # fmt: skip
    return Shape(definition.name, key, table.columns, places, targets)


def _target(column: Physical, now: dict[str, pa.DataType], sql_types: dict[str, str]) -> Target:
    import pyarrow as pa

    arrow, current = column.arrow(), now.get(column.name)
    if current is not None and current != arrow:
        is_flag = column.kind == kinds.TINY and not column.unsigned and pa.types.is_boolean(current)
        is_bytes = column.kind == kinds.STRING and column.charset == kinds.BINARY_CHARSET
        if is_flag or (is_bytes and pa.types.is_string(current)):
            return Target(column.name, current, sql_types.get(column.name, ""))
    return Target(column.name, arrow)


def _plain(sql_type: object) -> str:
    return (sql_type.decode() if isinstance(sql_type, bytes) else str(sql_type)).lower()
