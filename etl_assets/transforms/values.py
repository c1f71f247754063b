"""Numbers, booleans, dates and casts: a value, or NULL when the text is not one."""

from __future__ import annotations

import re
from functools import partial

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from etl_assets.transforms import functions as fn
from etl_assets.transforms.conversion import convert
from etl_assets.transforms.parameters.conversions import Boolean, Cast, Date, Number
from etl_assets.transforms.projection import Projection, Staged
from etl_resources.exceptions import ConfigurationError

_TYPES: dict[str, dt.DataType] = {"timestamptz": dt.Timestamp("UTC")}
_FIRST_LIKELY_YEAR = 1000


def ibis_type(name: str) -> dt.DataType:
    """Return the Ibis type of a type name as users write it."""
    return _TYPES.get(name) or dt.dtype(name)


def number(text: ir.StringValue, parameters: Number) -> Staged:
    """Read a number in the declared notation, exactly or not at all."""
    kind = ibis_type(parameters.type)
    if not text.type().is_string():
        return _again(text, kind, text.type().is_numeric(), parameters.step)
    simple = fn.full_match(text, _simple(parameters, kind))
    plain = fn.translate(fn.trim(text), "−\xa0\u202f’", "-  '")
    if parameters.symbols:
        signs = "|".join(map(re.escape, parameters.symbols))
        plain = plain.re_replace(rf"^([-+(]?) *(?:{signs}) *", r"\1").re_replace(rf" *(?:{signs}) *([-)]?)$", r"\1")
    digits = plain.replace(parameters.thousands, "") if parameters.thousands else plain
    digits = digits.replace(parameters.decimal, ".") if parameters.decimal != "." else digits
    signed = digits.re_replace(r"^\((.*)\)$", r"-\1").re_replace(r"^(.*[0-9.])-$", r"-\1")
    readable = ibis.cases((simple, text), (fn.full_match(plain, _notation(parameters)), signed))
    return (yield from _finite_number(readable, kind))


def _simple(parameters: Number, kind: dt.DataType) -> str:
    """Return a pattern of what can be cast as it is: most values, so the rest of the work is for the others only."""
    if parameters.decimal != ".":
        return "-?[0-9]+"
    scale = kind.scale if isinstance(kind, dt.Decimal) else 18 if kind.is_floating() else 0
    return rf"-?[0-9]+(?:\.[0-9]{{1,{scale}}})?" if scale else "-?[0-9]+"


def _notation(parameters: Number) -> str:
    sign, group = re.escape(parameters.decimal), re.escape(parameters.thousands)
    whole = rf"(?:[0-9]{{1,3}}(?:{group}[0-9]{{3}})+|[0-9]+)" if group else "[0-9]+"
    if parameters.type.startswith("float"):
        return _signed(rf"(?:{whole}(?:{sign}[0-9]*)?|{sign}[0-9]+)", exponent="(?:[eE][-+]?[0-9]{1,3})?")
    kept = dt.dtype(parameters.type)
    scale = kept.scale if isinstance(kept, dt.Decimal) else 0
    digits = rf"[0-9]{{0,{scale}}}0*"
    return _signed(rf"(?:{whole}(?:{sign}{digits})?|{sign}[0-9]{digits if scale > 1 else '0*'})" if scale else
                   rf"{whole}(?:{sign}0*)?")  # fmt: skip


def _signed(unsigned: str, exponent: str = "") -> str:
    return rf"[-+]?{unsigned}{exponent}|{unsigned}-|\({unsigned}\)"


def boolean(value: ir.Value, parameters: Boolean) -> Staged:
    """Read a word for true or false."""
    if value.type().is_boolean():
        return value
    [word] = yield [fn.trim(value.cast("string")).lower()]
    true, false = ([w.strip().lower() for w in words] for words in (parameters.true_values, parameters.false_values))
    return ibis.cases((word.isin(true), True), (word.isin(false), False), else_=ibis.null("boolean"))


def date(text: ir.StringValue, parameters: Date) -> Staged:
    """Read a date in any of the formats, if those that can read it agree."""
    kind = ibis_type(parameters.type)
    if not text.type().is_string():
        return _again(text, kind, text.type().is_date() or text.type().is_timestamp(), parameters.step)
    zoned = parameters.type == "timestamptz"
    [trimmed] = yield [fn.trim(text)]
    readings = yield [fn.try_strptime(trimmed, written, zoned=zoned) for written in parameters.formats]
    agreed = readings[0]
    if len(readings) > 1:
        agreed = ibis.cases((ibis.least(*readings) == ibis.greatest(*readings), ibis.coalesce(*readings)))
    [agreed] = yield [agreed]
    return ibis.cases((agreed.year() >= _FIRST_LIKELY_YEAR, agreed)).cast(kind)


def _again(value: ir.Value, kind: dt.DataType, suits: bool, step: str) -> ir.Value:  # noqa: FBT001
    """Take a value that is a number or a date already, as typed sources and a second run have it."""
    if not suits:
        raise ConfigurationError(f"{step} reads text, and the column is {value.type()}", fix="cast the column first")
    return value if value.type() == kind else _cast(value, kind)


def cast(projection: Projection, parameters: Cast) -> None:
    """Change the types of columns."""
    columns = {}
    for name, written in parameters.columns.items():
        kind = ibis_type(written)
        if kind.is_string() and not projection.type(name).is_binary():
            [text] = projection.compute([name], lambda value: [value.cast("string")])
            projection.set({name: text})  # cannot fail
        else:
            columns[projection.require(name)] = partial(_cast, kind=kind)
    reasons = {name: f"is no {kind}" for name, kind in parameters.columns.items()}
    convert(projection, columns, step="cast", on_error=parameters.on_error, reasons=reasons)


_WHOLE = r"[-+]?[0-9]+(?:\.0*)?"
_ISO = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T].*)?"
_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"


def _cast(value: ir.Value, kind: dt.DataType) -> ir.Value | Staged:
    found = value.type()
    if found == kind:
        return value
    if found.is_string() and kind.is_numeric() and not kind.is_boolean():
        return _number_in(value, kind)
    if found.is_string() and (kind.is_date() or kind.is_timestamp()):
        return _moment_in(value, kind)
    if kind.is_integer() and (found.is_floating() or found.is_decimal()):
        return fn.whole(value).try_cast(kind)
    return value.try_cast(kind)


def _number_in(text: ir.StringValue, kind: dt.DataType) -> Staged:
    fits = fn.full_match(text, f"{fn.WHITE_SPACE}*{_WHOLE if kind.is_integer() else _NUMBER}{fn.WHITE_SPACE}*")
    plain = fn.full_match(text, "-?[0-9]+")
    return (yield from _finite_number(ibis.cases((plain, text), (fits, fn.trim(text))), kind))


def _moment_in(text: ir.StringValue, kind: dt.DataType) -> ir.Value:
    """Read ISO 8601; DuckDB would take words such as epoch and infinity too."""
    fits = fn.full_match(text, f"{fn.WHITE_SPACE}*{_ISO}{fn.WHITE_SPACE}*")
    return ibis.cases((fits, fn.trim(text))).try_cast(kind)


def _finite_number(text: ir.StringValue, kind: dt.DataType) -> Staged:
    """Cast, refusing numbers so large that a float holds them as infinite only."""
    value = text.try_cast(kind)
    if not kind.is_floating():
        return value
    [value] = yield [value]
    return fn.finite(value)
