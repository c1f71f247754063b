"""Checksums of a MySQL or MariaDB table, computed by the server in one snapshot, to hold the lake against.

The snapshot stands at a known place of the log (see `mysql_moment`): it contains the transactions before that place,
and no others. So the lake as of exactly this moment can be made out of its log, however much has been landed since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from etl_resources.changes.mysql_moment import is_transactional, moment
from etl_resources.changes.mysql_position import Cursor, encoded
from etl_resources.changes.mysql_server import Server
from etl_resources.compared import ComparedColumn, ComparedTable, Form
from etl_resources.exceptions import ConfigurationError
from etl_resources.source import Position
from etl_resources.sources.mysql_parallel import ranges

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.change_log import LogTable
    from etl_resources.changes.mysql import MysqlLog
    from etl_resources.changes.mysql_moment import Moment
    from etl_resources.changes.mysql_shapes import Definition
    from etl_resources.sources.mysql_columns import Column

PART_SEGMENTS = 250
"""Segments of which the totals are asked for at once, where the key can be cut: about half a million rows."""
_BATCH_ROWS = 65_536
_UNHASHED = 2**100
"""In place of a hash that is NULL: more than the hashes of all rows that there can be."""
_IMPLICIT = 2**52
"""The highest bit of a double's mantissa, which is not stored."""
_BIAS, _LOWEST, _HIGHEST = 1023, -1022, 1023
"""Of the exponents of doubles."""


@contextmanager
def opened(log: MysqlLog, table: LogTable) -> Iterator[MysqlCompared]:
    """Begin a transaction that sees one snapshot of a table.

    Raises:
        NotFoundError, ConfigurationError: the table is not there, or not as the stream says, or has no snapshots.
        UnavailableError: MySQL: the table could not be locked for the moment in which the snapshot begins.
    """
    with ExitStack() as stack:
        server = Server.of(stack.enter_context(log.source.session()))
        definition = log.define(server.session, table)
        if not is_transactional(server.session, definition.database, definition.table):
            raise ConfigurationError(
                "the table is of an engine without transactions: it is not the same when it is asked a second time",
                where=definition.plan.where,
                fix="`etl capture resnapshot` reads the table anew, whatever is wrong",
            )
        at = stack.enter_context(
            moment(
                log.source, server, definition.plan, base=0, not_before=0, lock_wait=log.capture.lock_wait,
                transactional=True,
            )
        )  # fmt: skip
        yield MysqlCompared(at, server.identity, definition)


class MysqlCompared(ComparedTable):
    """A table within one transaction."""

    def __init__(self, at: Moment, server: str, definition: Definition) -> None:
        from pyarrow import types

        self._session, self._file, self._place, self._server = at.session, at.file, at.place, server
        self._relation, self._where, self._key = (
            definition.plan.relation,
            definition.plan.where,
            definition.log_table.key,
        )
        self._columns = definition.plan.columns
        self._selected = {column.name: column.select for column in self._columns}
        forms = {column.name: _form(column) for column in self._columns}
        self._texts = {name: text for name, (_, text) in forms.items()}
        self._lengths = {
            # Text has as many characters before it is converted.
            column.name: f"CHAR_LENGTH({column.select if types.is_string(column.arrow) else self._texts[column.name]})"
            for column in self._columns
        }
        self.columns = [ComparedColumn(name, form) for name, (form, _) in forms.items()]
        self.left_out = {}

    def segments(self, number: int, columns: Sequence[ComparedColumn]) -> pa.Table:
        """Return number of rows and total of their hashes, of every segment."""
        import pyarrow as pa

        hashed = f"SUM(IFNULL({self._hash(columns)}, {_UNHASHED}))"
        found: dict[int, tuple[int, int]] = {}
        for part in self._parts(number):
            rows = self._session.rows(
                f"SELECT {self._segment(number)} AS segment, COUNT(*), {hashed} FROM {self._relation} AS t "  # noqa: S608
                f"WHERE {part} GROUP BY segment"
            )
            self._check(sum(int(total) // _UNHASHED for _, _, total in rows))
            for segment, count, total in rows:
                before = found.get(segment, (0, 0))
                found[segment] = before[0] + int(count), before[1] + int(total)
        return pa.table(
            {
                "segment": pa.array(found, pa.int64()),
                "rows": pa.array([count for count, _ in found.values()], pa.int64()),
                "total": pa.array([str(total) for _, total in found.values()], pa.string()),
            }
        )

    def _parts(self, number: int) -> list[str]:
        """Return conditions that cut the table, so that the server need not add up for long without a word."""
        import pyarrow as pa

        if number > PART_SEGMENTS:
            for column in self._columns:
                if column.name == self._key[0] and pa.types.is_integer(column.arrow):
                    return ranges(self._session, self._relation, column.name, -(-number // PART_SEGMENTS))
        return ["TRUE"]

    def rows(self, number: int, segments: Sequence[int], columns: Sequence[ComparedColumn]) -> Iterator[pa.RecordBatch]:
        """Yield keys and hashes of the rows of some segments."""
        import pyarrow as pa

        keys = [self._texts[name] for name in self._key]
        query = (
            f"SELECT {', '.join(keys)}, {self._hash(columns)} FROM {self._relation} AS t "  # noqa: S608 - quoted
            f"WHERE {self._segment(number)} IN ({', '.join(map(str, segments))})"
        )
        _, blocks = self._session.stream(query, rows=_BATCH_ROWS)
        for block in blocks:
            *texts, hashes = (cell.cast(pa.string()) for cell in block.columns(len(keys) + 1, self._session.where))
            names = [f"k{n}" for n in range(len(keys))]
            yield pa.RecordBatch.from_arrays([*texts, hashes.cast(pa.int64())], [*names, "hash"])

    def unfinished(self, position: Position | None) -> str | None:
        """Return why the lake cannot be compared: the first load has to be over."""
        if position is None:
            return "the table was never read"
        return None if Cursor.from_position(position).snapshot is None else "the snapshot of the table has not ended"

    def seen(self, position: Position) -> str:
        """Return the condition for events before the snapshot's place in the log."""
        cursor = Cursor.from_position(position)
        pos = encoded(cursor.base, self._file, self._place)
        if cursor.server != self._server or cursor.pos < pos:
            raise ConfigurationError(
                f"the log was read to {cursor.file}:{cursor.place} of server {cursor.server}, and the table at"
                f" {self._file}:{self._place} of server {self._server}",
                where=self._where, fix="compare again; the connection has to lead to one server",
            )  # fmt: skip
        return f"coalesce(_pos <= {pos}, true)"

    def _check(self, unhashed: int) -> None:
        """Refuse totals that leave rows out: of what is too long for it, the server makes NULL."""
        if unhashed:
            raise ConfigurationError(
                f"the server cannot hash {unhashed} rows: they are longer than its max_allowed_packet",
                where=self._where,
                fix="raise `max_allowed_packet` of the server",
            )

    def _segment(self, number: int) -> str:
        return f"({_md5(self._row(self._key))} % {number})"

    def _hash(self, columns: Sequence[ComparedColumn]) -> str:
        return _md5(self._row([column.name for column in columns]))

    def _row(self, names: Sequence[str]) -> str:
        # Not COALESCE: a text that is too long is NULL as well, and has to stay so.
        parts = [
            f"IF({self._selected[name]} IS NULL, '-', CONCAT({self._lengths[name]}, ':', {self._texts[name]}))"
            for name in names
        ]
        return f"CONCAT({', '.join(parts)})"


def _md5(text: str) -> str:
    return f"CAST(CONV(LEFT(MD5({text}), 15), 16, 10) AS UNSIGNED)"


def _form(column: Column) -> tuple[Form, str]:
    """Return how the values of a column are written, and the SQL that writes them; NULL also of what is too long."""
    from pyarrow import types

    own, kind = column.select, column.arrow
    digits = f"CONCAT({own} + 0)"  # without the zeros that ZEROFILL shows
    # Days that no calendar has are no number of days.
    instant = f"COALESCE(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {own}), CONCAT({own}))"
    forms: list[tuple[Callable[[pa.DataType], bool], Form, str]] = [
        (types.is_boolean, "text", f"CASE {own} WHEN 0 THEN 'false' WHEN 1 THEN 'true' ELSE CONCAT({own}) END"),
        (types.is_integer, "text", digits),
        (types.is_decimal, "number", _trimmed(digits) if types.is_decimal(kind) and kind.scale else digits),
        (types.is_floating, "bits", f"CONCAT({_bits(own)})"),
        (types.is_date, "day", f"COALESCE(DATEDIFF({own}, '1970-01-01'), CONCAT({own}))"),
        (types.is_timestamp, "instant", instant),
        (types.is_binary, "hex", f"LOWER(HEX({own}))"),
        (types.is_string, "text", f"CONVERT({own} USING utf8mb4)"),
    ]
    return next((form, sql) for is_such, form, sql in forms if is_such(kind))


def _trimmed(digits: str) -> str:
    return f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {digits}))"


def _bits(own: str) -> str:
    """Return the eight bytes of a double as a signed integer, by arithmetic of which every step is exact.

    The logarithm may be rounded to the wrong side of a power of two, and is put right by comparing. Numbers below the
    smallest power of two have its exponent, and no implicit bit: there it is taken away again.
    """
    size = f"ABS({own})"
    guess = f"LEAST(GREATEST(FLOOR(LOG2(GREATEST({size}, 2.2250738585072014e-308))), {_LOWEST}), {_HIGHEST})"
    power = f"POW(2, {guess})"
    exponent = f"GREATEST({guess} - ({size} < {power}) + ({size} - {power} >= {power}), {_LOWEST})"
    mantissa = f"CAST(({size} / POW(2, {exponent}) - 1e0) * {_IMPLICIT}e0 AS SIGNED)"
    is_negative = f"{own} < 0 OR ({own} = 0 AND ATAN2({own}, -1) < 0)"
    return (
        f"CAST({exponent} + {_BIAS} AS SIGNED) * {_IMPLICIT} + {mantissa}"
        f" + IF({is_negative}, -9223372036854775807 - 1, 0)"
    )
