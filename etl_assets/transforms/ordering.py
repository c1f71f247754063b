"""Columns of a table by name, and orders that leave nothing to chance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import ibis
import ibis.expr.types as ir

from etl_assets.transforms.projection import near
from etl_resources.exceptions import ConfigurationError


def require(table: ir.Table, names: Iterable[str] | None) -> list[str]:
    """Return the names.

    Raises:
        ConfigurationError: the table has no column of such a name.
    """
    names = list(names or ())
    for name in names:
        if name not in table.columns:
            raise ConfigurationError(f"unknown column {name!r}{near(name, table.columns)}")
    return names


def order_keys(table: ir.Table, written: Sequence[str] | None, *, total: bool = False) -> list[ir.Value]:
    """Return sort keys for `x`, `x asc` and `x desc`; NULL comes last.

    `total`: break ties by all other columns, so that the order of rows is fixed as far as rows differ.
    """
    keys, used = [], set()
    for item in written or ():
        match = None if item in table.columns else re.fullmatch(r"(.+?)\s+(asc|desc)", item, re.IGNORECASE)
        [name] = require(table, [match[1] if match else item])
        used.add(name)
        descending = match is not None and match[2].lower() == "desc"
        keys.append(
            ibis.desc(table[name], nulls_first=False) if descending else ibis.asc(table[name], nulls_first=False)
        )
    if total:
        keys += [ibis.asc(table[name], nulls_first=False) for name in table.columns if name not in used]
    return keys
