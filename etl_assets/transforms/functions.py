"""DuckDB functions that Ibis has no name for, and the few expressions that many steps share."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
from ibis.backends.sql.datatypes import DuckDBType

from etl_assets.transforms.expression import sql_value

WHITE_SPACE = r"[\s\x0b\x{85}\p{Z}]"
"""Unicode's White_Space property; RE2's own \\s knows ASCII only."""


def _call(name: str, result: str | dt.DataType, *arguments: Any) -> Any:
    values = {f"argument{number}": argument for number, argument in enumerate(arguments)}
    return sql_value(f"{name}({', '.join(values)})", result, **values)


def where_found(text: ir.Value, pattern: str, changed: ir.Value) -> ir.StringValue:
    """Return `changed` where a pattern is found, and the text as it is elsewhere.

    Most values are clean: looking costs a fifth of replacing. The text is written twice, so give a column, or yield it.
    """
    result: ir.StringValue = ibis.cases((_call("regexp_matches", "boolean", text, pattern), changed), else_=text)
    return result


def trim(text: ir.Value) -> ir.StringValue:
    """Remove Unicode white space from both ends."""
    ends: ir.StringValue = text.re_replace(f"^{WHITE_SPACE}+|{WHITE_SPACE}+$", "")
    return where_found(text, f"^{WHITE_SPACE}|{WHITE_SPACE}$", ends)


def is_blank(value: ir.Value) -> ir.BooleanValue:
    """Tell whether a value is NULL or text of nothing but white space; never NULL."""
    if not value.type().is_string():
        return value.isnull()
    return ibis.coalesce(full_match(value, f"{WHITE_SPACE}*"), True)


def nfc_normalize(text: ir.Value) -> ir.StringValue:
    """Compose to Unicode form NFC."""
    composed: ir.StringValue = _call("nfc_normalize", "string", text)
    return composed


def full_match(text: ir.Value, pattern: str) -> ir.BooleanValue:
    """Tell whether an RE2 pattern matches all of the text."""
    matches: ir.BooleanValue = _call("regexp_full_match", "boolean", text, pattern)
    return matches


def extract_all(text: ir.Value, pattern: str) -> ir.ArrayValue:
    """Return all matches of an RE2 pattern."""
    matches: ir.ArrayValue = _call("regexp_extract_all", "array<string>", text, pattern)
    return matches


def translate(text: ir.Value, characters: str, others: str) -> ir.StringValue:
    """Replace characters one by one."""
    replaced: ir.StringValue = _call("translate", "string", text, characters, others)
    return replaced


def sha256(text: ir.Value) -> ir.StringValue:
    """Return 64 hexadecimal digits."""
    digest: ir.StringValue = _call("sha256", "string", text)
    return digest


def stop(message: str, kind: dt.DataType) -> ir.Value:
    """Stop the query where this is evaluated; stands for a value of the type."""
    never: ir.Value = _call("error", "string", message).cast(kind)
    return never


def try_strptime(text: ir.Value, written: str, *, zoned: bool) -> ir.TimestampValue:
    """Read a timestamp, or NULL."""
    moment: ir.TimestampValue = _call("try_strptime", dt.Timestamp("UTC") if zoned else dt.timestamp, text, written)
    return moment


def round_half(value: ir.NumericValue, digits: int, *, even: bool) -> ir.NumericValue:
    """Round half to even, or half away from zero; the type stays."""
    # DuckDB gives a rounded decimal another scale, which Ibis does not know: the cast has to be in the SQL
    written = f"CAST({'round_even' if even else 'round'}(x, {digits}) AS {DuckDBType.to_string(value.type())})"
    rounded: ir.NumericValue = sql_value(written, value.type(), x=value)
    return rounded


def cast(value: ir.Value, kind: dt.DataType) -> ir.Value:
    """Cast where DuckDB's type is not the one that Ibis thinks it is, and would leave a cast out for: sums, means."""
    result: ir.Value = sql_value(f"CAST(x AS {DuckDBType.to_string(kind)})", kind, x=value)
    return result


def whole(value: ir.NumericValue) -> ir.NumericValue:
    """Return numbers that are whole, and NULL for the others."""
    test = "isfinite(x) AND x = trunc(x)" if value.type().is_floating() else "x = trunc(x)"
    kept: ir.NumericValue = sql_value(f"CASE WHEN {test} THEN x END", value.type(), x=value)
    return kept


def finite(value: ir.NumericValue) -> ir.NumericValue:
    """Return numbers that are finite, and NULL for NaN and infinity."""
    if not value.type().is_floating():
        return value
    kept: ir.NumericValue = sql_value("CASE WHEN isfinite(x) THEN x END", value.type(), x=value)
    return kept


def microseconds(moment: ir.TimestampValue) -> ir.IntegerValue:
    """Return microseconds since 1970, of the instant where there is a zone."""
    count: ir.IntegerValue = _call("epoch_us", "int64", moment)
    return count


def hexadecimal(data: ir.BinaryValue) -> ir.StringValue:
    """Return bytes as hexadecimal digits."""
    digits: ir.StringValue = _call("hex", "string", data)
    return digits


def json(value: ir.Value) -> ir.StringValue:
    """Return a nested value as JSON text."""
    written: ir.StringValue = sql_value("CAST(to_json(x) AS VARCHAR)", "string", x=value)
    return written


def quantile_disc(value: ir.NumericValue, at: float) -> ir.NumericValue:
    """Aggregate: the value of the column at a quantile."""
    quantile: ir.NumericValue = _quantile_disc(value.type())(value, at)
    return quantile


@lru_cache
def _quantile_disc(kind: dt.DataType) -> Any:
    def quantile_disc(number, at):  # noqa: ARG001 - Ibis takes the names
        return None

    return ibis.udf.agg.builtin(quantile_disc, signature=((kind, dt.float64), kind))
