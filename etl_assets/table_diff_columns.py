"""When two values are the same, as a reader of the lake can tell: for comparing rows, and for hashing them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from etl_resources.engines.duckdb import quote

if TYPE_CHECKING:
    import pyarrow as pa


NARROW = 18
"""Digits of a decimal that fit into 64 bits."""


def distinguished(column: str, kind: pa.DataType) -> list[str]:
    """Return SQL expressions of which at least one differs where two values of a column do.

    DuckDB takes -0.0 for 0.0; a struct without values hashes as no struct at all, and a decimal of more than 18 digits
    as the xor of its halves: -1 as 0.
    """
    from pyarrow import types

    if types.is_decimal(kind) and kind.precision > NARROW:
        return [f"CAST({column} AS VARCHAR)"]
    if types.is_floating(kind):
        return [column, f"({column} = 0 AND signbit({column}))"]
    if types.is_nested(kind):
        return [f"CAST({column} AS VARCHAR)", f"({column} IS NULL)"]
    return [column]


def hash_sql(schema: pa.Schema) -> str:
    """Return the hash (63 bits) of a row with these columns, whatever their order; `schema` has no others."""
    parts = [part for field in _ordered(schema) for part in distinguished(quote(field.name), field.type)]
    return f"CAST(hash({', '.join(parts)}) >> 1 AS BIGINT)"


def hashed_by(schema: pa.Schema) -> str:
    """Return what the hashes of `hash_sql` depend on."""
    import duckdb

    columns = "\n".join(f"{field.name} {field.type}" for field in _ordered(schema))
    return f"duckdb {duckdb.__version__} {hashlib.blake2b(columns.encode(), digest_size=16).hexdigest()}"


def differs(row: str, old: str, schema: pa.Schema, log: pa.Schema) -> str:
    """Return SQL: a row of the source is not the one that an event of the log has given.

    Only columns that the source has are compared: one that it no longer has says nothing about its rows. What the log
    does not have was null.

    Args:
        row: alias of the row, with the columns of `schema`.
        old: alias of the event, with the columns of `log`.
    """
    parts = []
    for field in schema:
        own = f"{row}.{quote(field.name)}"
        generations = _generations(field.name, log)
        if not generations:
            parts.append(f"{own} IS NOT NULL")
        elif len(generations) == 1 and log.field(field.name).type == field.type:
            pairs = zip(
                distinguished(own, field.type), distinguished(f"{old}.{quote(field.name)}", field.type), strict=True
            )
            parts += [f"{left} IS DISTINCT FROM {right}" for left, right in pairs]
        else:
            # It has changed its type, and goes on under another name if it had to; the values may be the same.
            texts = ", ".join(f"CAST({old}.{quote(name)} AS VARCHAR)" for name in reversed(generations))
            parts.append(f"CAST({own} AS VARCHAR) IS DISTINCT FROM coalesce({texts})")
    return f"({' OR '.join(parts)})"


def before_sql(old: str, schema: pa.Schema, log: pa.Schema, types: Mapping[str, str]) -> str:
    """Return `_before`: the columns of an event, as far as the log has them in the type of the row.

    Args:
        types: column -> type of the row in the engine.
    """
    parts = []
    for field in schema:
        there = field.name in log.names and log.field(field.name).type == field.type
        value = f"{old}.{quote(field.name)}" if there else f"CAST(NULL AS {types[field.name]})"
        parts.append(f"{quote(field.name)} := {value}")
    return f"struct_pack({', '.join(parts)})"


def _ordered(schema: pa.Schema) -> list[pa.Field]:
    return sorted(schema, key=lambda field: str(field.name))


def _generations(name: str, log: pa.Schema) -> list[str]:
    """Return the names under which the log has a column, see `capture_types`, oldest first."""
    found = [name] if name in log.names else []
    number = 2
    while f"{name}__v{number}" in log.names:
        found.append(f"{name}__v{number}")
        number += 1
    return found
