"""The first load of a table, in parts that are read between two pieces of its log, in the order of a unique key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.change_log import READ, Changes
from etl_resources.changes.mysql_position import Progress
from etl_resources.changes.mysql_unreadable import unreadable_event
from etl_resources.exceptions import ConfigurationError
from etl_resources.mysql_sql import literal, quote
from etl_resources.source import Batch, unreadable_schema
from etl_resources.sources.mysql_values import fit

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.mysql_collect import Stream
    from etl_resources.changes.mysql_shapes import Definition
    from etl_resources.mysql_session import Session
    from etl_resources.sources.mysql_plan import Plan

BATCH_ROWS = 65_536
FIRST = -(2**62)
"""`_seq` of the first row of a snapshot: any event at the same place comes after them all."""
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_NUMBERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year"})
_WORDS = frozenset({"date", "time", "datetime", "timestamp", "uuid", "inet4", "inet6"})


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column by which the table is walked through."""

    name: str
    sql_type: str

    @property
    def selected(self) -> str:
        """What is selected, to go on behind it."""
        own = f"t.{quote(self.name)}"
        return f"{own} + 0" if self.sql_type in {"enum", "set", "bit"} else own

    def kept(self, cell: bytes) -> str:
        """Return a value as text that a position can hold."""
        return cell.hex() if self.sql_type in _BYTES else cell.decode()

    def literal(self, kept: str) -> str:
        """Return the value in SQL."""
        if self.sql_type in _BYTES:
            return f"x'{kept}'" if kept else "''"
        return literal(kept) if self.sql_type in _TEXTS | _WORDS else kept


def walk(session: Session, definition: Definition) -> list[KeyColumn]:
    """Return the columns of the primary key, or of another unique key without nulls.

    Raises:
        ConfigurationError: there is none, or it is of a type that cannot be walked through.
    """
    rows = session.rows(
        "SELECT index_name, column_name, sub_part, nullable FROM information_schema.statistics"  # noqa: S608 - literals
        f" WHERE table_schema = {literal(definition.database)} AND table_name = {literal(definition.table)}"
        " AND non_unique = 0 ORDER BY index_name <> 'PRIMARY', index_name, seq_in_index"
    )
    keys: dict[str, list[tuple[str, bool]]] = {}
    for index, column, part, nullable in rows:
        keys.setdefault(str(index), []).append((str(column), part is None and nullable != "YES"))
    known = _TEXTS | _BYTES | _NUMBERS | _WORDS | {"enum", "set", "bit"}
    for columns in keys.values():
        found = [KeyColumn(name, definition.sql_types[name]) for name, _ in columns]
        if all(whole for _, whole in columns) and all(column.sql_type in known for column in found):
            return found
    raise ConfigurationError(
        "the table has no primary key, nor a unique one without nulls, by which it could be read in parts",
        where=f"stream {definition.name}, {session.where}", fix="give it a primary key, or choose another capture",
    )  # fmt: skip


class Snapshot:
    """Reads parts of one stream's table."""

    def __init__(self, stream: Stream, progress: Progress, key: Sequence[KeyColumn]) -> None:
        self.stream, self.progress, self.key = stream, progress, key
        self.ended = False

    def part(self, session: Session, pos: int, rows: int) -> Iterator[Changes]:
        """Yield at most `rows` rows as they are at `pos`; `progress` has moved on when all have been yielded."""
        definition, done = self.stream.definition, 0
        columns = definition.plan.columns
        last: list[bytes] = []
        _, blocks = session.stream(self.query(rows), rows=min(rows, BATCH_ROWS))
        for block in blocks:
            cells = block.columns(len(columns) + len(self.key), session.where)
            last = [cell[-1].as_py() for cell in cells[len(columns) :]]
            first = FIRST + self.progress.rows + done
            done += len(block)
            yield self._changes(cells[: len(columns)], first, pos, session.where)
        after = tuple(k.kept(cell) for k, cell in zip(self.key, last, strict=True)) if last else self.progress.after
        began = pos - 1 if self.progress.began is None else self.progress.began
        self.progress = Progress(began, after, self.progress.rows + done)
        self.ended = done < rows

    def query(self, rows: int) -> str:
        """Return the SELECT of the next rows."""
        plan, key = self.stream.definition.plan, self.key
        selected = [f"{c.select} AS {quote(c.name)}" for c in plan.columns]
        selected += [f"{k.selected} AS {quote(f'__key_{n}')}" for n, k in enumerate(key)]
        after = self.progress.after
        condition = f" WHERE {_behind(key, after)}" if after else ""
        order = ", ".join(k.selected for k in key)
        return f"SELECT {', '.join(selected)} FROM {plan.relation} AS t{condition} ORDER BY {order} LIMIT {rows}"  # noqa: S608

    def _changes(self, cells: list[pa.Array], first: int, pos: int, where: str) -> Changes:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        plan = self.stream.definition.plan
        count = len(cells[0])
        self.stream.streamed.rows_read += count
        fitted = [fit(cell, column) for cell, column in zip(cells, plan.columns, strict=True)]
        schema = _schema(plan)
        constant = {"_op": READ, "_pos": pos}
        arrays = [array for array, _ in fitted]
        for field in list(schema)[len(arrays) :]:
            if field.name == "_seq":
                arrays.append(pa.array(np.arange(first, first + count), pa.int64()))
            elif field.name in constant:
                arrays.append(pa.repeat(pa.scalar(constant[field.name], field.type), count))
            else:
                arrays.append(pa.nulls(count, field.type))
        data, unreadable = pa.RecordBatch.from_arrays(arrays, schema=schema), None
        odd = {c.name: misfits for (_, misfits), c in zip(fitted, plan.columns, strict=True) if misfits is not None}
        if odd:
            is_odd = pa.array(np.zeros(count, bool))
            for texts in odd.values():
                is_odd = pc.or_(is_odd, pc.is_valid(texts))
            unreadable = self._unreadable(data.filter(is_odd), {n: t.filter(is_odd) for n, t in odd.items()}, where)
            data = data.filter(pc.invert(is_odd))
        return Changes(self.stream.definition.name, Batch(data, self.stream.streamed.rows_read, None, unreadable))

    def _unreadable(self, events: pa.RecordBatch, odd: dict[str, pa.Array], where: str) -> pa.RecordBatch | None:
        import pyarrow as pa

        definition, found = self.stream.definition, []
        texts = {name: values.to_pylist() for name, values in odd.items()}
        for n, event in enumerate(events.to_pylist()):
            here = {name: values[n] for name, values in texts.items() if values[n] is not None}
            found.append(unreadable_event(event, definition.plan.schema, definition.log_table.key, here, where))
        return pa.RecordBatch.from_pylist(found, schema=unreadable_schema()) if found else None


def _schema(plan: Plan) -> pa.Schema:
    import pyarrow as pa

    from etl_resources.change_log import event_fields

    return pa.schema([*plan.schema, *event_fields(plan.schema)])


def _behind(key: Sequence[KeyColumn], after: Sequence[str]) -> str:
    """Return the condition for rows behind a key, in a form of which the server can use the index."""
    values = [k.literal(value) for k, value in zip(key, after, strict=True)]
    ways = []
    for n, column in enumerate(key):
        same = [f"{k.selected} = {value}" for k, value in zip(key[:n], values[:n], strict=True)]
        ways.append("(" + " AND ".join([*same, f"{column.selected} > {values[n]}"]) + ")")
    return f"{key[0].selected} >= {values[0]} AND ({' OR '.join(ways)})"
