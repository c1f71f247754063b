"""What the TDS server knows: a DuckDB, the declared types of its columns, and which row versions are in flight."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot

from tests.servers.tds_sql import UNNAMED, Translated, translate
from tests.servers.tds_types import SqlType

_SETUP = """
    SET TimeZone = 'UTC';
    CREATE SCHEMA dbo; CREATE SCHEMA sys;
    CREATE SEQUENCE dbo.etl_versions;
    CREATE TABLE sys.databases (database_id INT, name VARCHAR, snapshot_isolation_state INT,
        is_read_committed_snapshot_on BOOLEAN);
    INSERT INTO sys.databases VALUES (1, 'master', 1, false);
    CREATE TABLE sys.database_recovery_status (database_id INT, recovery_fork_guid UUID);
    INSERT INTO sys.database_recovery_status VALUES (1, gen_random_uuid());
"""


class SqlError(Exception):
    """An error as SQL Server numbers it."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


@dataclass
class Result:
    """Rows to come, or the number of rows that were written."""

    columns: list[tuple[str, SqlType]] = field(default_factory=list)
    batches: Iterable[pa.RecordBatch] = ()
    changed: int = 0


class Engine:
    """The one database behind all connections."""

    def __init__(self) -> None:
        self.database = duckdb.connect()
        self.database.execute(_SETUP)
        self.declared: dict[str, dict[str, SqlType]] = {}
        """Columns by table, `schema.table` in lower case."""
        self.lock = threading.Lock()
        self.active: dict[Session, int] = {}
        """The first row version that a transaction may have used."""

    def next_version(self, connection: duckdb.DuckDBPyConnection) -> int:
        """Use up a row version, as every write of a row does."""
        ((found,),) = connection.execute("SELECT nextval('dbo.etl_versions')").fetchall()
        return int(found)

    def lowest_active(self) -> int:
        """MIN_ACTIVE_ROWVERSION: below it nothing is in flight any more."""
        with self.lock:
            upcoming = self.next_version(self.database)
            return min([*self.active.values(), upcoming])


class Session:
    """What one connection has open."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.connection = engine.database.cursor()
        self.connection.execute("SET search_path = 'dbo,main'; SET TimeZone = 'UTC'")
        self.in_transaction = False
        self.isolation = "READ COMMITTED"
        self._reader: pa.RecordBatchReader | None = None
        self._sent = 0

    def run(self, batch: str) -> Iterator[Result]:
        """Run the statements of a batch one after the other; each must be drained before the next is asked for."""
        self._let_go()
        statements = translate(batch, self.engine.declared)
        while True:
            try:
                if (statement := next(statements, None)) is None:
                    return
                result = self._one(statement)
            except duckdb.Error as error:
                raise _as_sql_server_says(error) from error
            except (sqlglot.ParseError, ValueError) as error:
                raise SqlError(102, f"Incorrect syntax: {error}".splitlines()[0]) from error
            yield result

    def _one(self, statement: Translated) -> Result:
        kind = statement.kind
        if kind == "describe":
            return self._describe(statement.sql, *statement.arguments)
        if kind == "select":
            return self._select(statement)
        if kind == "write":
            return Result(changed=self._write(statement.sql))
        if kind == "isolation":
            self.isolation = statement.sql
        elif kind == "load":
            self._load(*statement.arguments)
        elif kind == "create":
            self.engine.declared[statement.arguments[0]] = statement.types
            self.connection.execute(statement.sql)
        else:
            self.transact(kind)
        return Result()

    def transact(self, what: str) -> None:
        """Begin, commit or undo a transaction."""
        if what == "begin":
            self.connection.begin()
            self.in_transaction = True
            return
        if self.in_transaction:
            try:
                (self.connection.commit if what == "commit" else self.connection.rollback)()
            finally:
                self.in_transaction = False
                with self.engine.lock:
                    self.engine.active.pop(self, None)

    def _let_go(self) -> None:
        """End a result that its client has lost interest in."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        """Undo what was not committed, as a server does when a client is gone."""
        self._let_go()
        self.transact("rollback")
        self.connection.close()

    def _write(self, sql: str) -> int:
        with self.engine.lock:
            self.engine.active.setdefault(self, self.engine.next_version(self.engine.database))
        try:
            rows = self.connection.execute(sql).fetchall()
            return int(rows[0][0]) if rows else 0
        finally:
            if not self.in_transaction:
                with self.engine.lock:
                    self.engine.active.pop(self, None)

    def _load(self, table: str, path: str) -> None:
        """Fill a table from a Parquet file: how a test brings a million rows in."""
        columns = ", ".join('"' + name.replace('"', '""') + '"' for name in pq.read_schema(path).names)
        self._write(f"INSERT INTO {table} ({columns}) SELECT * FROM read_parquet('{path}')")

    def _select(self, statement: Translated) -> Result:
        self._check_isolation()
        sql = statement.sql
        if "MIN_ACTIVE_ROWVERSION()" in sql:
            sql = sql.replace("MIN_ACTIVE_ROWVERSION()", f"unhex('{self.engine.lowest_active():016x}')")
        sql = sql.replace("ROWCOUNT_BIG()", f"CAST({self._sent} AS BIGINT)")
        reader = self.connection.sql(sql).to_arrow_reader(8192)
        self._reader, self._sent = reader, 0
        columns = [
            (field_.name if not field_.name.startswith(UNNAMED) else "", given or _type_of(field_.type))
            for field_, given in zip(reader.schema, statement.columns or [None] * len(reader.schema), strict=True)
        ]
        return Result(columns, self._drained(reader))

    def _drained(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            for batch in reader:
                self._sent += batch.num_rows
                yield batch
            self._reader = None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _as_sql_server_says(error) from error

    def _check_isolation(self) -> None:
        if self.isolation != "SNAPSHOT" or not self.in_transaction:
            return
        allowed = self.connection.execute("SELECT snapshot_isolation_state FROM sys.databases").fetchall()
        if allowed != [(1,)]:
            raise SqlError(3952, "Snapshot isolation transaction failed accessing database 'master' because snapshot"
                                 " isolation is not allowed in this database.")  # fmt: skip

    def _describe(self, outer: str, query: str) -> Result:
        """Run `outer` over what sys.dm_exec_describe_first_result_set says of `query`: an error is a row, too."""
        rows: list[dict[str, object]] = []
        try:
            (statement,) = translate(query, self.engine.declared)
            reader = self.connection.sql(statement.sql).to_arrow_reader(1)
            found = reader.schema
            reader.close()
            for n, (field_, given) in enumerate(zip(found, statement.columns or [None] * len(found), strict=True)):
                rows.append({"column_ordinal": n + 1, "name": None if field_.name.startswith(UNNAMED) else field_.name,
                             "system_type_name": str(given or _type_of(field_.type)), "is_hidden": False})  # fmt: skip
        except duckdb.Error as error:
            said = _as_sql_server_says(error)
            rows.append({"column_ordinal": 0, "error_number": said.number, "error_message": str(said)})
        self.connection.register("etl_described", pa.Table.from_pylist(rows, schema=_DESCRIPTION))
        (statement,) = translate(outer, {})
        return self._select(statement)


_DESCRIPTION = pa.schema([
    ("column_ordinal", pa.int32()), ("name", pa.string()), ("system_type_name", pa.string()),
    ("user_type_name", pa.string()), ("is_hidden", pa.bool_()), ("error_number", pa.int32()),
    ("error_message", pa.string()),
])  # fmt: skip


def _type_of(arrow: pa.DataType) -> SqlType:
    """Return the T-SQL type of an expression whose type nobody has declared."""
    if pa.types.is_decimal(arrow):
        return SqlType("decimal", arrow.precision, arrow.scale)
    if pa.types.is_timestamp(arrow):
        return SqlType("datetimeoffset" if arrow.tz else "datetime2", scale=7)
    if pa.types.is_time(arrow):
        return SqlType("time", scale=7)
    names = {
        pa.bool_(): "bit", pa.int8(): "smallint", pa.uint8(): "tinyint", pa.int16(): "smallint", pa.int32(): "int",
        pa.int64(): "bigint", pa.float32(): "real", pa.float64(): "float", pa.date32(): "date",
    }  # fmt: skip
    if arrow in names:
        return SqlType(names[arrow])
    return SqlType("varbinary" if pa.types.is_binary(arrow) else "nvarchar", -1)


_ERRORS = (
    (r"Table with name \"?([^\s!\"]+)\"? does not exist", 208, "Invalid object name '{}'."),
    (r"Referenced column \"([^\"]*)\" not found|does not have a column named \"([^\"]*)\"", 207,
     "Invalid column name '{}'."),
    (r"Values list \"[^\"]*\" does not have a column named \"([^\"]*)\"", 207, "Invalid column name '{}'."),
    (r"syntax error at or near \"([^\"]*)\"", 102, "Incorrect syntax near '{}'."),
    (r"(?:division|divide) by zero", 8134, "Divide by zero error encountered."),
    (r"Duplicate key|violates primary key", 2627, "Violation of PRIMARY KEY constraint."),
    (r"TransactionContext Error.*[Cc]onflict", 3960, "Snapshot isolation transaction aborted due to update conflict."),
    (r"Could not convert|Conversion Error", 245, "Conversion failed."),
)  # fmt: skip


def _as_sql_server_says(error: BaseException) -> SqlError:
    for pattern, number, text in _ERRORS:
        if match := re.search(pattern, str(error)):
            return SqlError(number, text.format(*[g for g in match.groups() if g is not None] or [""]))
    return SqlError(50_000, str(error).splitlines()[0])
