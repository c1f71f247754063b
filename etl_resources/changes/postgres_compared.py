"""Checksums of a PostgreSQL table, computed by the server in one snapshot, to hold the lake against.

Which events the snapshot contains is asked of the snapshot (see `postgres_visibility`): so the lake as of exactly this
moment can be made out of its log, however many transactions were under way and have been landed since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from etl_resources.changes.postgres_link import Link
from etl_resources.changes.postgres_position import Cursor
from etl_resources.changes.postgres_tables import facts
from etl_resources.changes.postgres_visibility import View
from etl_resources.compared import NAN, ComparedColumn, ComparedTable, Form
from etl_resources.postgres_errors import translated
from etl_resources.postgres_sql import quote
from etl_resources.source import Position
from etl_resources.sources.postgres_columns import describe, unambiguous

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.change_log import LogTable
    from etl_resources.changes.postgres_tables import TableFacts
    from etl_resources.postgres import PostgresConnection
    from etl_resources.postgres_session import Session
    from etl_resources.sources.postgres_columns import Column

_BATCH_BYTES = 4 << 20
_DAY = 86_400_000_000
_INSTANT = (
    "CASE WHEN isfinite({0}) THEN round(extract(epoch FROM {0})::numeric * 1000000)::int8::text ELSE {0}::text END"
)
_BITS = (
    f"CASE WHEN {{0}} = 'NaN' THEN '{NAN}' "
    "ELSE ('x' || encode(float8send({0}::float8), 'hex'))::bit(64)::int8::text END"
)
_FORMS: dict[str, tuple[Form, str]] = {
    **dict.fromkeys(("bool", "int2", "int4", "int8", "text", "varchar", "name"), ("text", "{}::text")),
    "bpchar": ("padded", "rtrim({}::text, ' ')"),
    "bytea": ("hex", "encode({}, 'hex')"),
    "date": ("day", "CASE WHEN isfinite({0}) THEN ({0} - DATE '1970-01-01')::text ELSE {0}::text END"),
    **dict.fromkeys(("timestamp", "timestamptz"), ("instant", _INSTANT)),
    **dict.fromkeys(("float4", "float8"), ("bits", _BITS)),
}


@contextmanager
def opened(connection: PostgresConnection, table: LogTable) -> Iterator[PostgresCompared]:
    """Begin a transaction that sees one snapshot of a table.

    Raises:
        NotFoundError, ConfigurationError: the table is not there, or not as the stream says.
    """
    with ExitStack() as stack:
        link = Link(connection)
        stack.callback(link.close)
        found = facts(link, [table])[table.name]
        names = ", ".join(f"t.{quote(name)}" for name in found.columns)
        with translated(link.where):
            columns = describe(link.client, f"(SELECT {names} FROM {found.relation} AS t)")  # noqa: S608 - quoted
        session = link.session
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        stack.callback(session.execute, "ROLLBACK")
        session.rows(unambiguous(local=True))
        view, at = session.rows(
            "SELECT pg_current_snapshot()::text, (extract(epoch FROM clock_timestamp()) * 1000000)::int8"
        )[0]
        yield PostgresCompared(session, found, columns, View.parse(view), int(at))


class PostgresCompared(ComparedTable):
    """A table within one transaction."""

    def __init__(self, session: Session, table: TableFacts, columns: Sequence[Column], view: View, at: int) -> None:
        self._session, self._table = session, table
        self._texts: dict[str, str] = {}
        found: list[ComparedColumn] = []
        self.left_out: dict[str, str] = {}
        for column in columns:
            form = _form(column)
            if form is None:
                self.left_out[column.name] = "its type is not compared"
                continue
            self._texts[column.name] = form[1]
            found.append(ComparedColumn(column.name, form[0]))
        self.columns = found
        self._seen = _seen(view, at)

    def segments(self, number: int, columns: Sequence[ComparedColumn]) -> pa.Table:
        """Return number of rows and total of their hashes, of every segment."""
        import pyarrow as pa

        rows = self._session.rows(
            f"SELECT {self._segment(number)}, count(*), sum({self._hash(columns)})::text "  # noqa: S608 - quoted
            f"FROM {self._table.relation} AS t GROUP BY 1"
        )
        parts = list(zip(*rows, strict=True)) or [(), (), ()]
        kinds = {"segment": pa.int64(), "rows": pa.int64(), "total": pa.string()}
        return pa.table({name: pa.array(part, kind) for (name, kind), part in zip(kinds.items(), parts, strict=True)})

    def rows(self, number: int, segments: Sequence[int], columns: Sequence[ComparedColumn]) -> Iterator[pa.RecordBatch]:
        """Yield keys and hashes of the rows of some segments."""
        keys = ", ".join(f"{self._texts[name]} AS k{n}" for n, name in enumerate(self._table.key))
        listed = ", ".join(map(str, segments))
        query = (
            f"SELECT {keys}, {self._hash(columns)} AS hash FROM {self._table.relation} AS t "  # noqa: S608 - quoted
            f"WHERE {self._segment(number)} IN ({listed})"
        )
        with self._session.stream(query, batch_bytes=_BATCH_BYTES) as batches:
            yield from batches

    def unfinished(self, position: Position | None) -> str | None:
        """Return why the lake cannot be compared: the first load has to be over."""
        if position is None:
            return "the table was never read"
        return None if Cursor.from_position(position).snapshot is None else "the snapshot of the table has not ended"

    def seen(self, position: Position) -> str:  # noqa: ARG002 - events say their transactions, wherever they are read
        """Return the condition for events whose transactions the snapshot contains."""
        return self._seen

    def _segment(self, number: int) -> str:
        return f"({_md5(self._row(self._table.key))} % {number})"

    def _hash(self, columns: Sequence[ComparedColumn]) -> str:
        return _md5(self._row([column.name for column in columns]))

    def _row(self, names: Sequence[str]) -> str:
        parts = [f"coalesce(char_length({self._texts[name]}) || ':' || {self._texts[name]}, '-')" for name in names]
        return " || ".join(parts)


def _md5(text: str) -> str:
    return f"('x' || substr(md5(convert_to({text}, 'UTF8')), 1, 15))::bit(60)::int8"


def _form(column: Column) -> tuple[Form, str] | None:
    """Return how the values of a column are written, and the SQL that writes them; None: they are not compared."""
    import pyarrow as pa

    own, type_ = f"t.{quote(column.name)}", column.type
    if type_ is None or type_.element is not None or pa.types.is_nested(column.arrow):
        return None
    if type_.kind == "b" and type_.name in _FORMS:
        form, sql = _FORMS[type_.name]
        return form, sql.format(own)
    if pa.types.is_decimal(column.arrow):
        return "number", f"trim_scale({own})::text"
    if pa.types.is_string(column.arrow) or type_.name == "oid":
        return "text", f"({column.select})::text"
    return None


def _seen(view: View, at: int) -> str:
    """Return SQL over events: their transaction is in the view; those of a day ago are in any case."""
    half = 2**31
    xid = f"({view.xmax} - {half} + ((_xid::BIGINT - {view.xmax - half}) % {2 * half} + {2 * half}) % {2 * half})"
    running = "".join(f" AND {xid} <> {one}" for one in sorted(view.running))
    young = f"_xid IS NOT NULL AND coalesce(_commit_ts >= make_timestamptz({at - _DAY}), true)"
    return f"NOT ({young} AND NOT ({xid} < {view.xmin} OR ({xid} < {view.xmax}{running})))"
