"""Constants that a user wrote, as literals of the type of the column that they go with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from etl_assets.transforms.expression import sql_value
from etl_resources.exceptions import ConfigurationError

_TEXTS: tuple[tuple[Callable[[dt.DataType], bool], Callable[[str], Any]], ...] = (
    (dt.DataType.is_string, str),
    (dt.DataType.is_date, date.fromisoformat),
    (dt.DataType.is_timestamp, datetime.fromisoformat),
    (dt.DataType.is_time, time.fromisoformat),
    (dt.DataType.is_uuid, UUID),
)


def constant(value: str | int | float | bool | Decimal, kind: dt.DataType, name: str) -> ir.Scalar:  # noqa: FBT001
    """Return a literal to compare with a column `name` of type `kind`, or to put into it.

    Numbers are as exact as they are written. A word against a number is a mistake, not a cast.

    Raises:
        ConfigurationError: the value is not one of the column's kind.
    """
    if not _suits(value, kind):
        raise ConfigurationError(f"{value!r} does not fit column {name!r} of type {kind}", fix="cast the column first")
    if isinstance(value, str):
        return ibis.literal(value) if kind.is_string() else ibis.literal(value).cast(kind)
    if isinstance(value, bool):
        return ibis.literal(value)
    literal: ir.Scalar = sql_value(format(Decimal(str(value)), "f"), kind)
    return literal


def _suits(value: Any, kind: dt.DataType) -> bool:
    if isinstance(value, bool):
        return kind.is_boolean()
    if not isinstance(value, str):
        return kind.is_numeric() and not kind.is_boolean()
    read = next((read for fits, read in _TEXTS if fits(kind)), None)
    try:
        return read is not None and read(value) is not None
    except ValueError:
        return False
