"""A lake in memory for one log of MySQL, committed at boundaries and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etl_resources.change_log import Boundary, Changes, LogTable
from etl_resources.changes.mysql import MysqlLog
from etl_resources.changes.mysql_settings import MysqlLogCapture
from etl_resources.source import Position, Stream
from etl_resources.sources.mysql import MysqlSource, MysqlStreamOptions

Row = dict[str, Any]


def log_of(
    source: MysqlSource, tables: Mapping[str, Sequence[str]], options: Mapping[str, Any] | None = None, **capture: Any
) -> MysqlLog:
    """Return the log of some tables: name -> columns of its key."""
    settings = MysqlLogCapture(**{"heartbeat": 1.0, **capture})
    streams = [
        LogTable(Stream(name, MysqlStreamOptions(type="mysql", table=name, **(options or {})), settings), tuple(key))
        for name, key in tables.items()
    ]
    log = source.change_log("test", streams, settings)
    assert isinstance(log, MysqlLog)
    return log


class KilledError(Exception):
    """The lander was killed between the commits of two streams."""


@dataclass
class Lake:
    """What is committed of each stream, and its position."""

    positions: dict[str, Position | None]
    events: dict[str, list[Row]] = field(default_factory=dict)
    unreadable: dict[str, list[Row]] = field(default_factory=dict)
    swept: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    boundaries: list[Boundary] = field(default_factory=list)
    highest: dict[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, *names: str) -> Lake:
        return cls(dict.fromkeys(names))

    def land(
        self, log: MysqlLog, *, boundaries: int | None = None, items: int | None = None, kill_between: bool = False
    ) -> None:
        """Read and commit; end after so many boundaries (or items of any kind), with all that came after them lost."""
        held: dict[str, list[Row]] = {}
        bad: dict[str, list[Row]] = {}
        counted: dict[str, int] = {}
        read: dict[str, int] = {}
        reading = log.read(dict(self.positions))
        seen = 0
        for n, item in enumerate(reading):
            if items is not None and n >= items:
                reading.close()
                return
            if isinstance(item, Changes):
                self._hold(item, held, bad, counted, read)
                continue
            seen += 1
            assert counted == read, "as many events were given as were counted"
            self._commit(item, held, bad, kill_between=kill_between)
            log.acknowledge(item.positions)
            if boundaries is not None and seen >= boundaries:
                reading.close()
                return
        assert not any(held.values()), "a read ends with a boundary"

    def _hold(self, item: Changes, held: Any, bad: Any, counted: dict[str, int], read: dict[str, int]) -> None:
        batch, name = item.batch, item.stream
        assert batch.position is None
        rows = batch.data.to_pylist()
        held.setdefault(name, []).extend(rows)
        unreadable = batch.unreadable.to_pylist() if batch.unreadable is not None else []
        bad.setdefault(name, []).extend(unreadable)
        self.repeated[name] = self.repeated.get(name, 0) + batch.repeated
        counted[name] = counted.get(name, 0) + len(rows) + len(unreadable) + batch.repeated
        read[name] = batch.rows_read

    def _commit(self, boundary: Boundary, held: Any, bad: Any, *, kill_between: bool) -> None:
        self.boundaries.append(boundary)
        for n, (name, position) in enumerate(boundary.positions.items()):
            if kill_between and n == 1:
                raise KilledError
            rows = held.pop(name, [])
            for row in rows:
                assert row["_pos"] >= self.highest.get(name, -1), "nothing arrives behind an earlier tick"
            self.highest[name] = max([self.highest.get(name, -1), *(row["_pos"] for row in rows)])
            self.events.setdefault(name, []).extend(rows)
            self.unreadable.setdefault(name, []).extend(bad.pop(name, []))
            self.positions[name] = position
            if name in boundary.swept:
                self.swept[name] = boundary.swept[name]

    def changes(self, name: str) -> list[Row]:
        """Return the events that are no rows of a snapshot."""
        return [row for row in self.events.get(name, []) if row["_op"] != "read"]

    def state(self, name: str, *key: str) -> dict[Any, Row]:
        """Return the rows that the events leave, by key."""
        found: dict[Any, Row] = {}
        last: dict[Any, int] = {}
        events = sorted(self.events.get(name, []), key=lambda row: (row["_pos"], row["_seq"]))
        names = [(row["_pos"], row["_seq"]) for row in events]
        assert len(names) == len(set(names)), "an event came twice"
        for row in events:
            identity = tuple(row[column] for column in key)
            if row["_op"] == "truncate":
                found.clear()
                continue
            last[identity] = row["_pos"]
            if row["_op"] == "delete":
                found.pop(identity, None)
            else:
                found[identity] = {n: v for n, v in row.items() if not n.startswith("_")}
        if name in self.swept:
            found = {identity: row for identity, row in found.items() if last[identity] >= self.swept[name]}
        return found


def rows_of(source: MysqlSource, table: str, key: Sequence[str]) -> dict[Any, Row]:
    """Return the rows of a table as the source's own snapshot reads them, by key."""
    stream = Stream(table, MysqlStreamOptions(type="mysql", table=table))
    rows: Iterator[Row] = (row for batch in source.read(stream, None) for row in batch.data.to_pylist())
    return {tuple(row[column] for column in key): row for row in rows}
