"""Progress on a terminal: the running table with a bar, the finished ones as lines above it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from etl_assets.cli.output import duration

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID

_MARKS = {"done": "[green]✓[/green]", "failed": "[red]✗[/red]", "stopped": "[yellow]■[/yellow]"}


class Bars:
    """A bar for the table that is being loaded and one for all tables; finished tables scroll up."""

    def __init__(self, stream: TextIO, names: Sequence[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self.console = Console(file=stream, force_terminal=True, highlight=False)
        self.width = min(max((len(name) for name in names), default=10), max(self.console.width - 46, 12))
        self.progress: Progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=14),
            TextColumn("{task.fields[text]}", justify="right"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.total = len(names)
        self.landed: dict[str, int] = {}
        """Table -> rows that it took from bronze; what silver will read, as far as is known."""
        # Always these two lines: when their number changes, Rich's own thread may draw over what was just printed.
        self.one: TaskID = self.progress.add_task(self._fit("starting"), total=None, text="")
        self.all: TaskID = self.progress.add_task(self._fit("tables"), total=self.total, text=f"0 of {self.total}")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def starts(self, name: str) -> None:
        """Begin the bar of a table."""
        expected = self.landed.get(name.partition("/")[2]) if name.startswith("silver/") else None
        self.progress.reset(self.one, description=self._fit(name), total=expected, text="")

    def rows(self, name: str, rows: int) -> None:  # noqa: ARG002 - one table runs at a time
        """Move the bar of the running table."""
        task = self._task(self.one)
        # More than was expected: nobody knows how many.
        total = task.total if task.total is not None and rows <= task.total else None
        elapsed = task.elapsed or 0.0
        self.progress.update(self.one, completed=rows, total=total, text=_count(rows, elapsed))

    def ends(self, name: str, status: str, rows: int | None, seconds: float) -> None:
        """Let the table scroll up as a line."""
        self.progress.reset(self.one, description=self._fit(""), total=None, text="")
        if rows is not None and name.startswith("bronze/"):
            self.landed[name.partition("/")[2]] = rows
        count = "" if rows is None else _count(rows, seconds)
        self.console.print(f"{_MARKS[status]} {self._fit(name)}  {count:>27}  {duration(seconds):>9}", overflow="crop")
        self.progress.advance(self.all)
        self.progress.update(self.all, text=f"{self._task(self.all).completed:.0f} of {self.total}")

    def _task(self, number: TaskID) -> Task:
        return next(task for task in self.progress.tasks if task.id == number)

    def _fit(self, name: str) -> str:
        return f"{name[: self.width - 1]}…" if len(name) > self.width else name.ljust(self.width)


def _count(rows: int, seconds: float) -> str:
    rate = f"{rows / seconds:,.0f}/s" if rows and seconds > 0.05 else ""
    return f"{rows:>11,} rows {rate:>11}"
