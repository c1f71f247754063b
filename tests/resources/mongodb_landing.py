"""A lake in memory for change logs: commits per stream at boundaries, and can die between any two steps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from etl_resources.change_log import Boundary, ChangeLog


class Killed(Exception):  # noqa: N818 - nothing catches it but the test
    """The run ends here, and leaves what was committed."""


class Landing:
    """`rows`: what each stream's event log holds; `positions`: committed with it."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.unreadable: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.positions: dict[str, Any] = dict.fromkeys(names)
        self.sweeps: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
        self.repeated = 0
        self.boundaries = 0

    def land(
        self, log: ChangeLog, *, kill: Callable[[str], bool] = lambda _: False, until: Callable[[], bool] | None = None
    ) -> Boundary | None:
        """Read the log, and commit at each boundary; `kill` is asked before each step, and may end it there."""
        held: dict[str, tuple[list[Any], list[Any]]] = {name: ([], []) for name in self.names}
        counted: Counter[str] = Counter()
        boundary: Boundary | None = None
        reading = log.read({name: self.positions[name] for name in self.names})
        try:
            for found in reading:
                if isinstance(found, Boundary):
                    boundary = found
                    self._commit(found, held, kill)
                    held = {name: ([], []) for name in self.names}
                    if kill("acknowledge"):
                        raise Killed
                    log.acknowledge(found.positions)
                    if until is not None and until():
                        break
                    continue
                batch = found.batch
                counted[found.stream] += batch.data.num_rows + batch.repeated
                counted[found.stream] += batch.unreadable.num_rows if batch.unreadable else 0
                assert batch.rows_read == counted[found.stream], "an event was lost between counting and giving"
                self.repeated += batch.repeated
                rows = batch.data.to_pylist()
                self._in_order(found.stream, rows)
                held[found.stream][0].extend(rows)
                if batch.unreadable is not None:
                    held[found.stream][1].extend(batch.unreadable.to_pylist())
                if kill("batch"):
                    raise Killed
        finally:
            reading.close()
        assert not any(rows for rows, _ in held.values()), "a read ends with a boundary"
        return boundary

    def _commit(self, boundary: Boundary, held: dict[str, Any], kill: Callable[[str], bool]) -> None:
        self.boundaries += 1
        assert set(boundary.positions) == set(self.names)
        for name in self.names:
            if kill(f"commit {name}"):
                raise Killed
            rows, unreadable = held[name]
            self.rows[name] += rows
            self.unreadable[name] += unreadable
            self.positions[name] = json.loads(json.dumps(boundary.positions[name]))
            if name in boundary.swept:
                self.sweeps[name].append((boundary.swept[name], len(self.rows[name])))

    def _in_order(self, name: str, rows: list[dict[str, Any]]) -> None:
        cursor = (self.positions[name] or {}).get("pos")
        assert cursor is None or all(row["_pos"] > cursor for row in rows), "it comes later than its place"

    def events(self, name: str) -> list[dict[str, Any]]:
        return sorted(self.rows[name], key=lambda row: (row["_pos"], row["_seq"]))

    def doubled(self, name: str) -> list[Any]:
        """Return events that are there twice."""
        return [key for key, n in Counter((r["_pos"], r["_seq"]) for r in self.rows[name]).items() if n > 1]

    def state(self, name: str, key: str = "_id") -> dict[Any, dict[str, Any]]:
        """Return the rows as silver would have them."""
        state: dict[Any, dict[str, Any]] = {}
        last: dict[Any, int] = {}
        for row in self.events(name):
            if row["_op"] == "truncate":
                state.clear()
                continue
            values = {k: v for k, v in row.items() if not k.startswith("_") or k == key}
            for column in row["_unchanged"] or ():
                values[column] = state.get(row[key], {}).get(column)
            last[row[key]] = row["_pos"]
            state.pop(row[key], None) if row["_op"] == "delete" else state.update({row[key]: values})
        for began, _ in self.sweeps[name]:
            state = {k: v for k, v in state.items() if last[k] >= began}
        return state
