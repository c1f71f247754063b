"""A table whose content a test decides, its log, which is found by comparing, and silver over it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from pydantic import PrivateAttr

from etl_assets.bronze import Bronze
from etl_assets.errors import ErrorTable
from etl_assets.silver import Silver, SilverSpec
from etl_assets.table_diff import TableDiff
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import RowsNotConservedError
from etl_resources.lake import Lake
from etl_resources.source import Batch, Capabilities, Position, Snapshot, Source, Stream, StreamOptions
from tests.assets.doubles import new_run

Row = dict[str, Any]


class TableSource(Source):
    """Gives a table in batches of any size; only the last has a position."""

    options_type: ClassVar[type[StreamOptions]] = StreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities()
    _table: Any = PrivateAttr(default=None)
    _cuts: list[int] = PrivateAttr(default_factory=list)
    _unreadable: Any = PrivateAttr(default=None)
    _ends: bool = PrivateAttr(default=True)
    _loses: bool = PrivateAttr(default=False)

    def give(
        self,
        table: pa.Table,
        cuts: Sequence[int] = (),
        *,
        unreadable: pa.RecordBatch | None = None,
        ends: bool = True,
        loses: bool = False,
    ) -> TableSource:
        """Set what is read; without `ends` the read stops behind the first batch, with `loses` one gets lost."""
        self._table, self._cuts, self._unreadable, self._ends, self._loses = table, list(cuts), unreadable, ends, loses
        return self

    def read_schema(self, stream: Stream) -> pa.Schema:
        return self._table.schema

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 0) -> Iterator[Batch]:
        borders = [0, *sorted(cut for cut in self._cuts if 0 < cut < self._table.num_rows), self._table.num_rows]
        odd = self._unreadable.num_rows if self._unreadable is not None else 0
        for start, stop in itertools.pairwise(borders):
            last = stop == self._table.num_rows
            part = self._table.slice(start, stop - start).combine_chunks().to_batches()
            data = part[0] if part else pa.RecordBatch.from_pylist([], schema=self._table.schema)
            if not self._ends:
                yield Batch(data, stop)
                return
            if self._loses and last:
                data = data.slice(1)
            yield Batch(
                data, stop + (odd if last else 0), {"read": stop} if last else None, self._unreadable if last else None
            )


class DiffTable:
    """Its key, its lake, and what it did."""

    def __init__(self, folder: Path | str, key: Sequence[str] = ("id",), name: str = "things") -> None:
        self.key, self.name = tuple(key), name
        self.lake, self.engine = Lake(uri=str(folder)), DuckDB(memory_limit="500MB", threads=1)
        self.source = TableSource()

    @property
    def bronze(self) -> Bronze:
        return Bronze(self.lake, "test", Stream(self.name, StreamOptions(type="list"), Snapshot()))

    @property
    def silver(self) -> Silver:
        return Silver(self.lake, self.engine, SilverSpec("test", self.name, self.key, log_key=self.key))

    def look(
        self, rows: Sequence[Row] | pa.Table, schema: pa.Schema | None = None, *, fresh: bool = False, **more: Any
    ) -> Any:
        """Let the source have these rows, and look at it; returns the account."""
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
        self.source.give(table, **more)
        return TableDiff(self.bronze, self.key, self.engine).land(self.source, new_run(), fresh=fresh).account

    def state(self) -> list[Row]:
        """Return silver, brought up to date."""
        self.silver.refine(new_run())
        return self.rows("silver")

    def rows(self, layer: str) -> list[Row]:
        handle = self.lake.table(layer, "test", self.name).open()
        if handle is None:
            return []
        rows = handle.delta.to_pyarrow_table().to_pylist()
        return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]

    def newest(self) -> list[Row]:
        """Return what the log says of the keys that live."""
        found: dict[Any, Row] = {}
        handle = self.bronze.table.open()
        events = handle.delta.to_pyarrow_table().to_pylist() if handle is not None else []
        for event in sorted(events, key=lambda event: (event["_pos"], event["_seq"])):
            found[tuple(event[name] for name in self.key)] = event
        living = [event for event in found.values() if event["_op"] != "delete"]
        return [{name: value for name, value in event.items() if not name.startswith("_")} for event in living]

    def agree(self, rows: Sequence[Row]) -> None:
        """Fail unless the log and silver have these rows; to silver, 0.0 and -0.0 are equal."""
        assert exactly(self.newest()) == exactly(rows)
        assert unsigned(self.state()) == unsigned(rows)

    def events(self, columns: str = "id, _op, _pos") -> list[tuple[Any, ...]]:
        """Return bronze, in the order of the log."""
        handle = self.bronze.table.open()
        assert handle is not None
        with self.engine.session() as session:
            relation = session.lake_relation(handle)
            return session.execute(f"SELECT {columns} FROM {relation} ORDER BY _pos, {', '.join(self.key)}")

    def errors(self) -> dict[str, int]:
        with self.engine.session() as session:
            return dict(ErrorTable(self.lake).open_counts(session))


def exactly(rows: Sequence[Row]) -> list[str]:
    """Return rows so that two are equal only if all values look the same; what is null may as well not be there."""
    return sorted(repr(sorted((name, value) for name, value in row.items() if value is not None)) for row in rows)


def unsigned(rows: Sequence[Row]) -> list[str]:
    """Return rows as `exactly` does, but for the sign of zero."""
    return sorted(text.replace("-0.0)", "0.0)").replace("-0.0,", "0.0,") for text in exactly(rows))


VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "f": (pa.float64(), [None, 0.0, -0.0, float("nan"), float("inf"), 0.1, 1.0]),
    "s": (pa.string(), [None, "", "null", "NULL", " ", "a", "A", "é", "e\u0301", "0", "0.0"]),
    "i": (pa.int64(), [None, 0, 1, -1, 2**63 - 1, -(2**63)]),
    "d": (pa.decimal128(38, 2), [None, Decimal("0.00"), Decimal("-0.01"), Decimal("184467440737095516.16")]),
    "b": (pa.bool_(), [None, True, False]),
    "l": (pa.list_(pa.string()), [None, [], [None], [""], ["null"], ["a, b"], ["a", "b"]]),
    "r": (
        pa.struct([("x", pa.float64()), ("y", pa.string())]),
        [None, {"x": None, "y": None}, {"x": 0.0, "y": ""}, {"x": -0.0, "y": ""}, {"x": None, "y": "null"}],
    ),
    "y": (pa.binary(), [None, b"", b"\x00", b"a", b"\\x61"]),
}
KEYS: list[dict[str, list[Any]]] = [
    {"id": list(range(12))},
    {"id": ["a", "A", "", " ", "é", "e\u0301", "0", "00", "null", "\\", '"', "'"]},
    {"id": [1, 2, 3], "part": ["x", "", "y"]},
]


class Truth:
    """A table that changes at random, columns included."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.keys = chance.choice(KEYS)
        self.columns = chance.sample(sorted(VALUES), 4)
        self.rows: dict[tuple[Any, ...], Row] = {}

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(self.keys)

    def schema(self) -> pa.Schema:
        keys = [(name, pa.int64() if isinstance(values[0], int) else pa.string()) for name, values in self.keys.items()]
        return pa.schema([*keys, *((name, VALUES[name][0]) for name in self.columns)])

    def change(self) -> None:
        """Do some changes, and perhaps to the columns."""
        chance = self.chance
        for _ in range(chance.randint(0, 8)):
            key = tuple(chance.choice(values) for values in self.keys.values())
            if key in self.rows and chance.random() < 0.4:
                del self.rows[key]
            else:
                row = {name: chance.choice(VALUES[name][1]) for name in self.columns}
                self.rows[key] = {**self.rows.get(key, {}), **row, **dict(zip(self.key, key, strict=True))}
        if chance.random() < 0.2:
            self.columns.append(chance.choice([name for name in VALUES if name not in self.columns]))
        chance.shuffle(self.columns)

    def table(self) -> pa.Table:
        """Return it in any order."""
        rows = list(self.rows.values())
        self.chance.shuffle(rows)
        return pa.Table.from_pylist(rows, schema=self.schema())

    def cuts(self) -> list[int]:
        """Return where to cut the batches."""
        return [self.chance.randint(0, 14) for _ in range(self.chance.randint(0, 3))]


def play(folder: Path, seed: int, rounds: int = 6) -> None:
    """Let a table change and be looked at; fails unless silver and the log are always what they have to be."""
    chance = random.Random(seed)
    truth = Truth(chance)
    table = DiffTable(folder, truth.key)
    for number in range(rounds):
        before = {key: exactly([row]) for key, row in truth.rows.items()}
        truth.change()
        if chance.random() < 0.25 and number:
            state = exactly(table.newest())
            with pytest.raises(RowsNotConservedError):
                table.look(truth.table(), cuts=[1], ends=False)
            assert exactly(table.newest()) == state, "half of a table was taken for all of it"
        account = table.look(truth.table(), cuts=truth.cuts(), fresh=chance.random() < 0.15)
        now = {key: exactly([row]) for key, row in truth.rows.items()}
        table.agree(list(truth.rows.values()))
        real = sum(before.get(key) != now.get(key) for key in {*before, *now})
        assert account.inserted == real, f"round {number}: {account}, {real} real changes"
        assert account.unchanged == len(now) - sum(before.get(key) != row for key, row in now.items())
