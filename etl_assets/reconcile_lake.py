"""The lake's side of a comparison: the rows that its log makes, with the checksums that the source computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etl_assets.silver_changes import completed, truncated_at
from etl_resources.change_log import DELETE, TRUNCATE
from etl_resources.compared import NAN, ComparedColumn, Form
from etl_resources.engines.duckdb import literal, quote

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.engines.duckdb import Session
    from etl_resources.lake import Handle

_BITS = "etl_bits"
_SQL: dict[Form, str] = {
    "text": "CAST({0} AS VARCHAR)",
    "padded": "rtrim({0}, ' ')",
    # A decimal that is all fraction has no digit before its point here.
    "number": "CASE WHEN contains({0}::VARCHAR, '.') THEN "
    "rtrim(rtrim(regexp_replace({0}::VARCHAR, '^(-?)[.]', '\\10.'), '0'), '.') ELSE {0}::VARCHAR END",
    "day": "CAST({0} - DATE '1970-01-01' AS VARCHAR)",
    "instant": "CAST(epoch_us({0}) AS VARCHAR)",
    "bits": f"CAST({_BITS}(CAST({{0}} AS DOUBLE)) AS VARCHAR)",
    "hex": "lower(hex({0}))",
}


def comparable(schema: pa.Schema, columns: Sequence[ComparedColumn]) -> tuple[list[ComparedColumn], dict[str, str]]:
    """Return the columns that the lake can write in the same form, and why it cannot write the others."""
    from pyarrow import types

    able = {
        "text": lambda kind: types.is_string(kind) or types.is_integer(kind) or types.is_boolean(kind),
        "padded": types.is_string,
        "number": types.is_decimal,
        "day": types.is_date,
        "instant": types.is_timestamp,
        "bits": types.is_floating,
        "hex": types.is_binary,
    }
    good, left_out = [], {}
    for column in columns:
        if column.name not in schema.names:
            left_out[column.name] = "the lake has no such column yet"
        elif any(name.startswith(f"{column.name}__v") for name in schema.names):
            left_out[column.name] = "its type has changed"
        elif not able[column.form](schema.field(column.name).type):
            left_out[column.name] = f"the lake has it as {schema.field(column.name).type}"
        else:
            good.append(column)
    return good, left_out


def newest_events(session: Session, log: str, key: Sequence[str]) -> str:
    """Return SQL after FROM: the newest event of every key since the last truncation, deletes included, made whole."""
    emptied = truncated_at(session, log)
    after = f" AND (_pos, _seq) > {emptied}" if emptied is not None else ""
    keys = ", ".join(quote(name) for name in key)
    session.execute(
        f"CREATE OR REPLACE TEMP TABLE newest AS SELECT unnest(n) FROM ("  # noqa: S608
        f"SELECT arg_max({{'_batch': _batch, '_row': _row}}, (_pos, _seq, _batch, _row)) AS n FROM {log} "
        f"WHERE _op <> {literal(TRUNCATE)}{after} GROUP BY {keys})"
    )
    events = f"(SELECT l.* FROM {log} l SEMI JOIN newest n ON n._batch = l._batch AND n._row = l._row)"  # noqa: S608
    return completed(session, events, lambda: log, key)


def create_state(
    session: Session, log: str, key: Sequence[str], columns: Sequence[ComparedColumn], number: int
) -> None:
    """Create `state(segment, k0 …, hash)`: the rows that the log makes."""
    forms = {column.name: _SQL[column.form].format(quote(column.name)) for column in columns}
    by_bits = any(column.form == "bits" for column in columns)
    if by_bits:
        from duckdb.func import PythonUDFType

        session.connection.create_function(_BITS, _bits, ["DOUBLE"], "BIGINT", type=PythonUDFType.ARROW)
    keys = ", ".join(f"{forms[name]} AS k{n}" for n, name in enumerate(key))
    session.execute(
        f"CREATE OR REPLACE TEMP TABLE state AS SELECT {_hash([forms[name] for name in key])} % {number} AS segment, "  # noqa: S608
        f"{keys}, {_hash(list(forms.values()))} AS hash FROM {newest_events(session, log, key)} "
        f"WHERE _op <> {literal(DELETE)}"
    )
    if by_bits:
        session.connection.remove_function(_BITS)  # a function is not the session's alone


def segments() -> str:
    """Return SQL after FROM: `segment`, `rows` and `total` of `state`."""
    return "(SELECT segment, count(*) AS rows, sum(hash)::VARCHAR AS total FROM state GROUP BY segment)"


def find_doubled(session: Session, handle: Handle, key: Sequence[str]) -> None:
    """Add the keys of events that a table has twice to `differences(key, what)`: an event comes once."""
    keys = ", ".join(f"CAST({quote(name)} AS VARCHAR)" for name in key)
    session.execute(
        f"INSERT INTO differences SELECT DISTINCT [{keys}], 'the same change more than once' "  # noqa: S608
        f"FROM {session.lake_relation(handle)} WHERE _pos IS NOT NULL "
        f"GROUP BY {', '.join(quote(name) for name in key)}, _pos, _seq HAVING count(*) > 1"
    )


def _hash(texts: Sequence[str]) -> str:
    row = " || ".join(f"coalesce(length({text})::VARCHAR || ':' || {text}, '-')" for text in texts)
    return f"CAST('0x' || substr(md5({row}), 1, 15) AS BIGINT)"


def _bits(values: Any) -> Any:
    """Return the bytes of doubles (an Arrow array) as integers; the engine reads the annotations."""
    import pyarrow as pa
    import pyarrow.compute as pc

    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    # Of the many NaN there are both sides write the same.
    return pc.if_else(pc.is_nan(whole), pa.scalar(NAN, pa.int64()), whole.view(pa.int64()))
