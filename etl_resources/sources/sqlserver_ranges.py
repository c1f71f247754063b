"""Cuts one big table into ranges of a whole number, to be read over several connections at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError
from etl_resources.sqlserver_sql import quote

if TYPE_CHECKING:
    from etl_resources.sources.sqlserver_columns import Column
    from etl_resources.sqlserver_session import Session


def ranges(session: Session, relation: str, column: Column, conditions: Sequence[str], count: int) -> list[str]:
    """Return conditions that share out the rows, each row to exactly one of them, rows without a value included.

    Raises:
        ConfigurationError: the column holds no whole numbers.
    """
    if not column.is_number:
        raise ConfigurationError(
            f"column {column.name} is of type {column.declared}", fix="give a column of whole numbers in `split_by`"
        )
    own = f"t.{quote(column.name)}"
    where = f" WHERE {' AND '.join(f'({condition})' for condition in conditions)}" if conditions else ""
    ((least, most),) = session.rows(
        f"SELECT CAST(MIN({own}) AS nvarchar(48)), CAST(MAX({own}) AS nvarchar(48)) FROM {relation} AS t{where}"  # noqa: S608 - quoted
    )
    if least is None:
        return ["1 = 1"]
    first, span = int(least), int(most) - int(least) + 1
    cuts = sorted({first + span * n // count for n in range(1, count)} - {first})
    if not cuts:
        return ["1 = 1"]
    # Open at both ends: rows that come in the meantime belong to one of the ranges, too.
    inner = [f"{own} >= {low} AND {own} < {high}" for low, high in pairwise(cuts)]
    return [f"{own} < {cuts[0]} OR {own} IS NULL", *inner, f"{own} >= {cuts[-1]}"]
