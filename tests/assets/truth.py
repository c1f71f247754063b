"""What a silver table must hold, worked out row by row in plain Python from the rule, without any SQL.

The rule: of all versions of a key that were ever accepted or filtered, the newest decides, by the order column and then
by arrival. If it is an accepted row, that is the row of the table; if it is a deletion or was filtered, there is none.
A rejected row decides nothing. A snapshot that lacks a key ends all earlier versions of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
SCHEMA = pa.schema(
    [("id", pa.int64()), ("v", pa.string()), ("n", pa.string()), ("o", pa.int64()), ("_op", pa.string())]
)
STEPS = [{"filter": {"rule": "not_a_test", "where": "v <> 'test'"}}]
CONTRACT = """
version: 1.0.0
apiVersion: v3.1.0
kind: DataContract
id: truth
status: active
schema:
  - name: things
    logicalType: object
    properties:
      - {name: id, logicalType: integer, primaryKey: true, required: true}
      - {name: v, logicalType: string, classification: confidential}
      - name: n
        logicalType: integer
        logicalTypeOptions: {minimum: %d}
      - {name: o, logicalType: integer}
"""


def write_contract(folder: Path, minimum: int) -> Path:
    path = folder / f"contract{minimum}.odcs.yaml"
    path.write_text(CONTRACT % minimum)
    return path


def verdict(row: Row, minimum: int) -> str:
    """Return `kept`, `filtered` or `rejected`: the verdicts in the order in which the table has them."""
    if row["_op"] == "delete":
        return "rejected" if row["id"] is None else "kept"
    if row["v"] is None or row["v"] == "test":
        return "filtered"  # a condition that is not known is not true
    if row["n"] is not None and not row["n"].lstrip("-").isdigit():
        return "rejected"
    if row["id"] is None:
        return "rejected"
    return "rejected" if row["n"] is not None and int(row["n"]) < minimum else "kept"


@dataclass
class Truth:
    """The bronze rows in order of arrival, and how each was judged last."""

    ordered: bool = False
    """By the column `o`, then by arrival; else by arrival."""
    snapshot: bool = False
    numbered: bool = False
    """The source numbers the versions (`_seq`) and does not give them in that order."""
    minimum: int = 0
    landed: list[tuple[int, int, Row]] = field(default_factory=list)
    """(batch, row, values)"""
    judged: dict[tuple[int, int], str] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    done: int = 0
    """The newest batch that was judged."""

    def land(self, rows: Sequence[Row]) -> None:
        """Add a bronze batch."""
        number = len(self.batches) + 1
        self.batches.append(number)
        self.landed += [(number, position, row) for position, row in enumerate(rows)]

    def refine(self, *, anew: bool = False) -> None:
        """Judge what has not been judged, or everything."""
        self.done = len(self.batches)
        for batch, position, row in self.landed:
            if anew or (batch, position) not in self.judged:
                self.judged[batch, position] = verdict(row, self.minimum)

    def replay(self, chosen: Callable[[tuple[int, int]], bool]) -> None:
        """Judge rejected rows again."""
        for batch, position, row in self.landed:
            if (batch, position) in self.open() and chosen((batch, position)):
                self.judged[batch, position] = verdict(row, self.minimum)

    def open(self) -> set[tuple[int, int]]:
        """Return the rejected rows; of snapshots, those of the newest."""
        rejected = {place for place, fate in self.judged.items() if fate == "rejected"}
        return {place for place in rejected if place[0] == self.done} if self.snapshot else rejected

    def table(self) -> list[Row]:
        """Return the rows that the silver table must have."""
        newest: dict[int, tuple[tuple[Any, ...], str, Row]] = {}
        for batch, position, row in self.landed:
            fate = self.judged.get((batch, position), "rejected")
            if fate == "rejected" or row["id"] is None or (self.snapshot and not self._lives(row["id"], batch)):
                continue
            rank = (row["o"] is not None, row["o"] or 0) if self.ordered else ()
            version = (*rank, *([row["_seq"]] if self.numbered else []), batch, position)
            if row["id"] not in newest or version > newest[row["id"]][0]:
                newest[row["id"]] = (version, fate, row)
        kept = [row for _, fate, row in newest.values() if fate == "kept" and row["_op"] != "delete"]
        return sorted(
            (
                {"id": row["id"], "v": row["v"], "n": None if row["n"] is None else int(row["n"]), "o": row["o"]}
                for row in kept
            ),
            key=lambda row: row["id"],
        )

    def _lives(self, key: int, batch: int) -> bool:
        """Tell whether every later snapshot that was judged has the key."""
        present = {number for number, _, row in self.landed if row["id"] == key}
        return all(number in present for number in self.batches if batch < number <= self.done)
