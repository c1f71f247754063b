"""Texts of the fields of entries become typed columns, in SQL; a text that does not fit is told, never nulled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from etl_resources.engines.duckdb import literal, quote
from etl_resources.logs.database import Database
from etl_resources.logs.formats import Column
from etl_resources.logs.texts import REQUEST_PARTS, nulled, split_request

if TYPE_CHECKING:
    import pyarrow as pa

_LEAP_YEARS_APART = 8
_NEWEST = "$newest"
_KINDS = {"integer": "int64", "number": "float64", "epoch": "timestamptz", "time": "timestamptz",
          "iso_time": "timestamptz", "yearless_time": "timestamptz"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Output:
    """A column as it arrives: its Arrow type, and the SQL that makes it of the text `text`; None: it is the text."""

    name: str
    type: pa.DataType
    column: Column
    sql: str | None = None


class Values:
    """Types the fields of a format.

    `declared` types are those that a user gave to text columns, `time_formats` their `strptime` formats; `zone` holds
    for times that do not name theirs.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        declared: Mapping[str, pa.DataType],
        time_formats: Mapping[str, str],
        zone: str,
        database: Database,
    ) -> None:
        self._declared, self._time_formats = declared, time_formats
        self._columns = columns
        self.outputs = [output for column in columns for output in self._outputs(column)]
        self._zone, self._database = zone, database

    def schema(self) -> pa.Schema:
        """Return the columns that `typed` gives."""
        import pyarrow as pa

        return pa.schema([(output.name, output.type) for output in self.outputs])

    def typed(self, texts: Mapping[str, Any], at: datetime) -> tuple[pa.Table, list[Any]]:
        """Return the typed columns, and reasons why a value of a row does not fit, as arrays that are null elsewhere.

        `at` is when the newest of them may have been written: what a time without a year is taken from.
        """
        import pyarrow as pa

        plain = {c.name: nulled(texts[c.name], c.nothing) for c in self._columns if c.kind != "request"}
        made: dict[str, Any] = {}
        for column in self._columns:
            if column.kind == "request":
                made |= split_request(texts[column.name])
        made |= {o.name: plain[o.column.name] for o in self.outputs if o.sql is None and o.column.kind != "request"}
        casts = [o for o in self.outputs if o.sql is not None]
        reasons = []
        if casts:
            found = self._cast(casts, plain, at)
            for o in casts:
                made[o.name] = found.column(o.name).combine_chunks().cast(o.type)
                if made[o.name].null_count != plain[o.column.name].null_count:
                    reasons.append(_misfits(o, made[o.name], plain[o.column.name]))
        return pa.table([made[o.name] for o in self.outputs], schema=self.schema()), reasons

    def _cast(self, casts: Sequence[Output], plain: Mapping[str, Any], at: datetime) -> pa.Table:
        columns = ", ".join(f"{o.sql} AS {quote(o.name)}" for o in casts)
        if any(o.column.kind == "yearless_time" for o in casts):
            columns = columns.replace(_NEWEST, f"TIMESTAMPTZ {literal(at.isoformat())}")
        texts = {o.column.name: plain[o.column.name] for o in casts}
        return self._database.table(f"SELECT {columns} FROM texts", texts, self._zone)  # noqa: S608

    def _outputs(self, column: Column) -> list[Output]:
        import pyarrow as pa

        text = quote(column.name)
        if column.kind == "request":
            return [Output(name, pa.string(), column) for name in (*REQUEST_PARTS, "request")]
        if column.kind == "priority":
            code = _cast_if(text, "[0-9]|[1-9][0-9]|1[0-8][0-9]|19[01]", "BIGINT")
            return [
                Output("facility", pa.int64(), column, f"({code}) // 8"),
                Output("severity", pa.int64(), column, f"({code}) % 8"),
            ]
        kind = self._declared.get(column.name)
        if column.name in self._time_formats:
            kind = kind or pa.timestamp("us", "UTC")
            return [Output(column.name, kind, column, _time(text, (self._time_formats[column.name],), kind))]
        if kind is None and column.kind != "text":
            return [_builtin(column, text)]
        if kind is None or pa.types.is_string(kind):
            return [Output(column.name, pa.string(), column)]
        return [Output(column.name, kind, column, cast_sql(text, kind))]


def _builtin(column: Column, text: str) -> Output:
    from etl_resources.files.json_types import parse_type

    kind = parse_type(_KINDS[column.kind], column.name)
    if column.kind == "time":
        sql = _time(text, column.formats, kind)
    elif column.kind == "yearless_time":
        sql = _yearless(text)
    elif column.kind == "epoch":
        sql = f"to_timestamp(TRY_CAST({text} AS DOUBLE))"
    else:
        sql = cast_sql(text, kind)
    return Output(column.name, kind, column, sql)


def _misfits(output: Output, typed: Any, texts: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    shown = pc.utf8_slice_codeunits(texts, 0, 80)
    reason = pc.binary_join_element_wise(f"{output.name}: ", shown, f" does not fit {_shown(output.type)}", "")
    return pc.if_else(pc.and_(pc.is_null(typed), pc.is_valid(texts)), reason, pa.scalar(None, pa.string()))


def cast_sql(text: str, kind: pa.DataType) -> str:
    """Return SQL that casts a text to a type of `json_types.parse_type`, to null where it would lose something."""
    from pyarrow import types

    if types.is_string(kind):
        return text
    if types.is_decimal(kind):
        fraction = rf"(\.[0-9]{{1,{kind.scale}}}0*)?" if kind.scale else r"(\.0*)?"
        return _cast_if(text, rf"[+-]?[0-9]+{fraction}", f"DECIMAL({kind.precision}, {kind.scale})")
    if types.is_int64(kind):
        return _cast_if(text, "[+-]?[0-9]+", "BIGINT")
    if types.is_date(kind):
        return _cast_if(text, "[0-9]{4}-[0-9]{2}-[0-9]{2}", "DATE")
    plain = "DOUBLE" if types.is_floating(kind) else "BOOLEAN" if types.is_boolean(kind) else _sql_time(kind)
    return f"TRY_CAST({text} AS {plain})"


def _cast_if(text: str, pattern: str, kind: str) -> str:
    return f"CASE WHEN regexp_full_match({text}, {literal(pattern)}) THEN TRY_CAST({text} AS {kind}) END"


def _time(text: str, formats: Sequence[str], kind: pa.DataType) -> str:
    """Return SQL for a time in one of several formats; one without a zone is in that of the session."""
    sql = [f"TRY_CAST(try_strptime({text}, {literal(f)}) AS {_sql_time(kind)})" for f in formats]
    return sql[0] if len(sql) == 1 else f"coalesce({', '.join(sql)})"


def _sql_time(kind: pa.DataType) -> str:
    from pyarrow import types

    if types.is_date(kind):
        return "DATE"
    return "TIMESTAMPTZ" if kind.tz else "TIMESTAMP"


def _yearless(text: str) -> str:
    """Return SQL for `Oct 11 22:14:15`: in the newest year in which it was no later than a day behind `newest`."""
    years = ", ".join(
        f"try_strptime((year({_NEWEST}) - {n})::VARCHAR || ' ' || {text}, '%Y %b %d %H:%M:%S')::TIMESTAMPTZ"
        for n in range(-1, _LEAP_YEARS_APART)
    )
    latest = f"{_NEWEST} + INTERVAL 1 DAY"
    guessed = f"list_filter([{years}], lambda moment: moment <= {latest})[1]"
    return f"CASE WHEN {text}[1:1] BETWEEN 'A' AND 'Z' THEN {guessed} ELSE TRY_CAST({text} AS TIMESTAMPTZ) END"


def _shown(kind: pa.DataType) -> str:
    from pyarrow import types

    return "a time" if types.is_timestamp(kind) else str(kind)
