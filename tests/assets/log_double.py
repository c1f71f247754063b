"""A change log whose transactions a test decides, and the tables that they make."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from etl_assets.bronze import Bronze
from etl_assets.capture import Capture, Tick
from etl_assets.errors import Budget
from etl_assets.landing import Landed
from etl_resources.change_log import (
    Boundary,
    ChangeLog,
    Changes,
    Finding,
    LogState,
    LogTable,
    event_fields,
)
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import LogLostError
from etl_resources.lake import Lake
from etl_resources.source import Batch, Position, Stream, StreamOptions, unreadable_schema
from tests.assets.doubles import new_run

ROW = pa.schema([("id", pa.int64()), ("name", pa.string()), ("big", pa.string())])
Event = dict[str, Any]
"""`stream`, `op`, and the columns; `before`, `unchanged`; `bad`: why it cannot be decoded."""


def events_table(rows: Sequence[Event], row: pa.Schema) -> pa.RecordBatch:
    """Return events as a log gives them."""
    schema = pa.schema([*row, *event_fields(row)])
    return pa.RecordBatch.from_pylist([{name: one.get(name) for name in schema.names} for one in rows], schema=schema)


class ListLog(ChangeLog):
    """Transactions in a list; the position of number n is 10 n. Snapshots are whole."""

    def __init__(self, *names: str, key: str = "id", row: pa.Schema = ROW) -> None:
        self.tables = [LogTable(Stream(name, StreamOptions(type="list")), (key,)) for name in names]
        self.row = row
        self.transactions: list[list[Event]] = []
        self.per_tick = 1
        self.forgotten = 0
        """Transactions that are no longer there."""
        self.acknowledged: list[dict[str, Position]] = []
        self.lose: set[int] = set()
        """Positions whose events get lost after they were counted."""
        self.breaks: list[tuple[int, Exception]] = []
        """Transactions in whose middle a read breaks off, once each, and with what."""
        self.reads = 0
        self.lost: tuple[str, ...] = ()
        """Streams that a read says are lost, unless they are read anew."""
        self.rows: dict[str, dict[Any, Event]] = {name: {} for name in names}

    def commit(self, *events: Event, logged: bool = True) -> ListLog:
        """Do a transaction: each event is (stream, op, columns...)."""
        gone: dict[Any, Event] = {}
        for event in events:
            table = self.rows[event["stream"]]
            if event["op"] == "truncate":
                table.clear()
            elif event["op"] == "delete":
                gone[event["id"]] = table.pop(event["id"], {})
            else:
                was = (event.get("before") or {}).get("id", event["id"])
                known = table.get(event["id"], {}) if was == event["id"] else gone[was]
                kept = {n: v for n, v in known.items() if n in (event.get("unchanged") or ())}
                table[event["id"]] = {n: event.get(n) for n in self.row.names} | kept
        if logged:
            self.transactions.append(list(events))
        return self

    def read(self, since: Mapping[str, Position | None]) -> Generator[Changes | Boundary]:
        self.reads += 1
        counted = dict.fromkeys(since, 0)
        at = {
            name: position["pos"] if position and not position.get("renew") else None
            for name, position in since.items()
        }
        begin = min((pos for pos in at.values() if pos is not None), default=10 * len(self.transactions))
        if begin < 10 * self.forgotten:
            raise LogLostError(f"transactions up to {self.forgotten} are gone", where="list", fix="read anew")
        if lost := [name for name in self.lost if at.get(name) is not None]:
            raise LogLostError(f"changes of {lost} are missing", where="list", fix="read anew", streams=lost)
        swept = {}
        for name in (name for name, pos in at.items() if pos is None):
            swept[name] = 10 * len(self.transactions) + 5
            rows = [
                {**row, "_op": "read", "_pos": swept[name], "_seq": n - 10**6}
                for n, row in enumerate(self.rows[name].values())
            ]
            counted[name] += len(rows)
            if rows:
                yield Changes(name, Batch(events_table(rows, self.row), counted[name]))
        numbers = range(begin // 10, len(self.transactions))
        for start in range(numbers.start, numbers.stop, self.per_tick) or [numbers.stop]:
            stop = min(start + self.per_tick, numbers.stop)
            for number in range(start, stop):
                yield from self._transaction(number, at, counted)
                if self.breaks and self.breaks[0][0] == number:
                    raise self.breaks.pop(0)[1]
            ends = {name: max(10 * stop, at[name] or 10 * stop, swept.get(name, 0)) for name in since}
            yield Boundary({name: {"pos": pos} for name, pos in ends.items()}, swept)
            swept = {}

    def _transaction(
        self, number: int, at: Mapping[str, int | None], counted: dict[str, int]
    ) -> Generator[Changes | Boundary]:
        pos = 10 * (number + 1)
        for name, held in at.items():
            mine = [(seq, event) for seq, event in enumerate(self.transactions[number]) if event["stream"] == name]
            if not mine or held is None:
                continue
            counted[name] += len(mine)
            if pos <= held:
                yield Changes(name, Batch(events_table([], self.row), counted[name], repeated=len(mine)))
                continue
            good = [(seq, event) for seq, event in mine if "bad" not in event]
            rows = [
                {**event, "_op": event["op"], "_pos": pos, "_seq": seq, "_unchanged": event.get("unchanged"),
                 "_before": event.get("before")}
                for seq, event in good
            ]  # fmt: skip
            bad = [
                {"reason": event["bad"], "raw": f'{{"key": {{"id": {event["id"]}}}, "pos": {pos}}}'.encode()}
                for _, event in mine
                if "bad" in event
            ]
            unreadable = pa.RecordBatch.from_pylist(bad, schema=unreadable_schema()) if bad else None
            data = events_table([] if pos in self.lose else rows, self.row)
            yield Changes(name, Batch(data, counted[name], unreadable=unreadable))

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        self.acknowledged.append(dict(positions))

    def renewed(self, position: Position | None) -> Position | None:
        return {**position, "renew": True} if position else None

    def preflight(self) -> list[Finding]:
        return []

    def state(self, since: Mapping[str, Position | None]) -> LogState:
        return LogState("ok")

    def remove(self) -> None:
        return


class Captured:
    """A lake with the bronze tables of a log."""

    def __init__(self, folder: Path, log: ListLog, *, budget: Budget = Budget()) -> None:  # noqa: B008 - frozen
        self.log, self.lake, self.engine = log, Lake(uri=str(folder)), DuckDB(threads=1)
        self.budget = budget

    def capture(self) -> Capture:
        """Return a fresh capture, as a new run has it."""
        streams = {table.name: table.stream for table in self.log.tables}
        bronzes = {name: Bronze(self.lake, "test", stream, budget=self.budget) for name, stream in streams.items()}
        return Capture(bronzes, self.log, self.engine)

    def follow(self, *names: str, after: Tick | None = None, **options: Any) -> dict[str, Landed]:
        """Run the capture once."""
        row = self.log.row
        chosen = names or tuple(table.name for table in self.log.tables)
        schemas = {name: lambda: pa.schema([*row, *event_fields(row)]) for name in chosen}
        return self.capture().follow(new_run(), schemas, after=after, **options)

    def events(self, name: str, columns: str = "id, _op, _pos, _seq") -> list[tuple[Any, ...]]:
        """Return what bronze has, in the order of the log."""
        handle = self.lake.table("bronze", "test", name).open()
        if handle is None:
            return []
        with self.engine.session() as session:
            relation = session.lake_relation(handle)
            return session.execute(f"SELECT {columns} FROM {relation} ORDER BY _pos, _seq")
