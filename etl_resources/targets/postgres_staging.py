"""Getting batches of rows into a table whose columns may refuse some of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from etl_resources.exceptions import SchemaConflictError
from etl_resources.postgres_errors import RefusedStatementError
from etl_resources.postgres_sql import columns, quote
from etl_resources.targets.postgres_refusals import Refusals, apply_in_halves, record_of
from etl_resources.targets.postgres_types import to_wire

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.postgres_session import Session
    from etl_resources.targets.postgres_table import Table

NUMBER = "_etl_number"
"""Column of the staging tables: the place of a row in the load, from 1."""
STAGE, _WIRE = "_etl_stage", "_etl_wire"
_COPY_ROWS = 65_536


class Staging:
    """Copies batches into a staging table with the types of the target, or into the target itself."""

    def __init__(self, session: Session, table: Table, refusals: Refusals, *, into_target: bool) -> None:
        self._session, self._table, self._refusals = session, table, refusals
        self._into_target = into_target
        self._is_direct = all(c.is_direct for c in table.columns) and (table.takes_copy or not into_target)
        self._wires = [column.sent for column in table.columns]
        self._has_wire_table = False
        self.read = 0
        self.loaded = 0
        if not into_target:
            body = "".join(f"{quote(c.name)} {c.sql}, " for c in table.columns)
            session.execute(f"CREATE TEMP TABLE {STAGE} ({body}{NUMBER} int8) ON COMMIT DROP")

    def load(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        """Take all batches; `read` and `loaded` then say how many rows came, and how many are in the table.

        Raises:
            SchemaConflictError: a batch has other columns than the load.
        """
        for batch in _joined(batches, schema, self._table):
            first = self.read + 1
            self.read += batch.num_rows
            self._put(batch, first)

    def _put(self, batch: pa.RecordBatch, first: int) -> None:
        numbered = self._numbered(batch, first)
        if self._is_direct:
            try:
                with self._session.savepoint():
                    self._copy(numbered)
            except RefusedStatementError:
                pass  # some row of it: below, they are told apart
            else:
                self.loaded += batch.num_rows
                return
        self._make_wire_table()
        self._copy_in_halves(numbered, batch)
        done, refused = apply_in_halves(self._session, first, first + batch.num_rows - 1, self._move)
        self.loaded += done
        for number, error in refused:
            self._refusals.add(row_as_json(self._session, _WIRE, number), error)
        self._session.execute(f"TRUNCATE pg_temp.{_WIRE}")

    def _numbered(self, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
        import pyarrow as pa

        number = pa.arange(first, first + batch.num_rows)
        return pa.RecordBatch.from_arrays([*to_wire(batch, self._wires), number], names=[*self._table.names, NUMBER])

    def _copy(self, numbered: pa.RecordBatch) -> None:
        if self._into_target:
            self._session.copy(self._table.schema, self._table.name, numbered.select(self._table.names))
        else:
            self._session.copy(None, STAGE, numbered)

    def _make_wire_table(self) -> None:
        if not self._has_wire_table:
            body = "".join(f"{quote(c.name)} {'text' if c.sent.as_json else c.sent.sql}, " for c in self._table.columns)
            self._session.execute(f"CREATE TEMP TABLE {_WIRE} ({body}{NUMBER} int8) ON COMMIT DROP")
            self._session.execute(f"CREATE INDEX ON pg_temp.{_WIRE} ({NUMBER})")
            self._has_wire_table = True

    def _copy_in_halves(self, numbered: pa.RecordBatch, batch: pa.RecordBatch) -> None:
        """Copy what can be sent at all; text with a zero byte cannot."""
        try:
            with self._session.savepoint():
                self._session.copy(None, _WIRE, numbered)
        except RefusedStatementError as error:
            if batch.num_rows == 1:
                self._refusals.add(record_of(batch.to_pylist()[0]), error)
                return
            middle = batch.num_rows // 2
            for part in (slice(0, middle), slice(middle, None)):
                self._copy_in_halves(numbered[part], batch[part])

    def move_to_target(self) -> int:
        """Insert what is staged into the target; return the rows inserted."""
        if not self.read:
            return 0
        index = functools.partial(index_stage, self._session)
        done, refused = apply_in_halves(self._session, 1, self.read, self._insert, before_halving=index)
        for number, error in refused:
            self._refusals.add(row_as_json(self._session, STAGE, number), error)
        return done

    def _insert(self, first: int, last: int) -> int:
        names = columns(self._table.names)
        return self._session.execute(
            f"INSERT INTO {self._table.quoted} ({names}) OVERRIDING SYSTEM VALUE SELECT {names}"  # noqa: S608 - quoted
            f" FROM pg_temp.{STAGE} WHERE {NUMBER} BETWEEN {first} AND {last} ORDER BY {NUMBER}"
        )

    def _move(self, first: int, last: int) -> int:
        """Move rows from the wire table on, as the target's types; a value that these refuse is an error."""
        selected = ", ".join(
            f"{quote(c.name)}::{c.sql}" if c.needs_cast else quote(c.name) for c in self._table.columns
        )
        into, names = f"pg_temp.{STAGE}", columns(self._table.names)
        if self._into_target:
            into = self._table.quoted
        else:
            selected, names = f"{selected}, {NUMBER}", f"{names}, {NUMBER}"
        return self._session.execute(
            f"INSERT INTO {into} ({names}) OVERRIDING SYSTEM VALUE SELECT {selected} FROM pg_temp.{_WIRE}"  # noqa: S608
            f" WHERE {NUMBER} BETWEEN {first} AND {last} ORDER BY {NUMBER}"
        )


def index_stage(session: Session) -> None:
    """Let parts of the staging table be found by row number."""
    session.execute(f"CREATE INDEX IF NOT EXISTS _etl_stage_number ON pg_temp.{STAGE} ({NUMBER})")


def row_as_json(session: Session, table: str, number: int) -> str:
    """Return a row of a staging table as JSON text."""
    query = f"SELECT (to_jsonb(s) - '{NUMBER}')::text FROM pg_temp.{table} s WHERE {NUMBER} = {number}"  # noqa: S608
    return str(session.value(query))


def _joined(batches: Iterable[pa.RecordBatch], schema: pa.Schema, table: Table) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches that are worth a COPY each."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if not batch.schema.equals(schema):
            raise SchemaConflictError(
                f"a batch has the columns {batch.schema.names}, the load {schema.names}", where=table.quoted
            )
        if batch.num_rows:
            held.append(batch)
            rows += batch.num_rows
        if rows >= _COPY_ROWS:
            yield pa.concat_batches(held)
            held, rows = [], 0
    if held:
        yield pa.concat_batches(held)
