"""How far a run has come, while it runs: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from etl_assets.cli.location import short_name
from etl_assets.cli.output import duration, plural
from etl_assets.progress import watching

if TYPE_CHECKING:
    import dagster as dg

    from etl_assets.cli.outcome import Outcome
    from etl_assets.cli.running import Request

_EVERY = 10.0
"""Seconds between two lines about a table that takes long."""


class View(Protocol):
    """Whoever shows progress."""

    def starts(self, name: str) -> None:
        """Tell that a table begins to load."""

    def rows(self, name: str, rows: int) -> None:
        """Tell how many rows of it have been read."""

    def ends(self, name: str, status: str, rows: int | None, seconds: float) -> None:
        """Tell what became of it."""


@contextmanager
def shown_progress(request: Request, stream: TextIO, started: float, *, live: bool) -> Iterator[Follower]:
    """Show progress on `stream` while the block runs; pass every event of the run to what is yielded.

    Args:
        started: when the command began, by `time.perf_counter()`.
        live: `stream` is a terminal.
    """
    names = [short_name(key, request.pipeline) for key in request.keys]
    if not live:
        view: View = Lines(stream, started)
        follower = Follower(request, view)
        with watching(follower.rows):
            yield follower
        return
    from etl_assets.cli.bars import Bars

    with Bars(stream, names) as bars:
        follower = Follower(request, bars)
        with watching(follower.rows):
            yield follower


class Follower:
    """Passes the events and the row counts of a run on to a view, by the short names of tables."""

    def __init__(self, request: Request, view: View) -> None:
        self.names: Mapping[str, str] = {"/".join(key.path): short_name(key, request.pipeline) for key in request.keys}
        self.view = view

    def rows(self, table: str, rows: int) -> None:
        """Take up a count."""
        if table in self.names:
            self.view.rows(self.names[table], rows)

    def event(self, event: dg.DagsterEvent, outcome: Outcome) -> None:
        """Take up an event that `outcome` has taken up already."""
        keys = outcome.steps.get(event.step_key or "", ())
        if event.event_type_value == "STEP_START":
            self.view.starts(self._step(keys))
        elif event.event_type_value in ("STEP_SUCCESS", "STEP_FAILURE"):
            for key in keys:
                table, name = outcome.tables[key], self.names["/".join(key.path)]
                self.view.ends(name, table.status, table.figures.get("read"), table.seconds)

    def _step(self, keys: Sequence[dg.AssetKey]) -> str:
        """Return what a step is called: its table, or the first of several."""
        if not keys:
            return "checks"
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        return self.names["/".join(keys[0].path)] + more


class Lines:
    """Plain lines, for logs: one when the first row comes, one per table, and one now and then about a long one."""

    def __init__(self, stream: TextIO, started: float) -> None:
        self.stream, self.started, self.said = stream, started, 0.0

    def starts(self, name: str) -> None:  # noqa: ARG002 - it will be heard of
        """Remember when."""
        if self.said:
            self.said = time.perf_counter()

    def rows(self, name: str, rows: int) -> None:
        """Write a line if it is time."""
        now = time.perf_counter()
        if not self.said:
            self._write(f"{name}: {plural(rows, 'row')} read, {duration(now - self.started)} after the start")
        elif now - self.said >= _EVERY:
            self._write(f"{name}: {plural(rows, 'row')} so far")
        else:
            return
        self.said = now

    def ends(self, name: str, status: str, rows: int | None, seconds: float) -> None:
        """Write the line of the table."""
        count = "" if rows is None else f"{plural(rows, 'row')} in "
        self._write(f"{name}: {status}, {count}{duration(seconds)}")

    def _write(self, line: str) -> None:
        self.stream.write(line + "\n")
        self.stream.flush()
