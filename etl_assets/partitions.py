"""Bronze batches as the ledger knows them, and the partition that one is a reading of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from etl_resources.engines.duckdb import literal, quote

if TYPE_CHECKING:
    from etl_resources.source import Window


@dataclass(frozen=True)
class Part:
    """The partition that a bronze batch is a reading of: event times in `[start, end)` of a column."""

    column: str
    start: datetime
    end: datetime

    @classmethod
    def of(cls, window: Window) -> Part:
        """Return the partition of a window."""
        return cls(window.column, window.start, window.end)

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> Part:
        """Read what bronze writes into its record."""
        return cls(data["column"], datetime.fromisoformat(data["start"]), datetime.fromisoformat(data["end"]))

    def to_json(self) -> dict[str, str]:
        """Return plain values for a commit record."""
        return {"column": self.column, "start": self.start.isoformat(), "end": self.end.isoformat()}

    def contains(self, alias: str) -> str:
        """Return SQL: the row is of this partition; NULL where its event time is."""
        column = f"TRY_CAST({alias}.{quote(self.column)} AS TIMESTAMP)"
        return f"({column} >= {_timestamp(self.start)} AND {column} < {_timestamp(self.end)})"


def _timestamp(moment: datetime) -> str:
    return f"TIMESTAMP {literal(moment.strftime('%Y-%m-%d %H:%M:%S.%f'))}"


@dataclass(frozen=True)
class BatchInfo:
    """One bronze batch: its number, its rows, and the partition that it is a reading of."""

    number: int
    rows: int
    part: Part | None = None


def read_batches(rows: Sequence[Mapping[str, Any]]) -> list[BatchInfo]:
    """Return the bronze batches of rows of the ledger, in their order."""
    return [
        BatchInfo(
            int(row["version"]),
            int(row["inserted"]),
            Part.from_json(json.loads(row["partition"])) if row["partition"] else None,
        )
        for row in rows
    ]


def overtaken(batches: Sequence[BatchInfo]) -> set[int]:
    """Return the numbers of the batches whose partition was read again later."""
    newest: dict[tuple[datetime, datetime], int] = {}
    old = set()
    for batch in batches:
        if batch.part is not None:
            place = (batch.part.start, batch.part.end)
            if place in newest:
                old.add(newest[place])
            newest[place] = batch.number
    return old
