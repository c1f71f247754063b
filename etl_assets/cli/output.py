"""How the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Cell = str | int | float | Decimal | None


def stdout() -> Console:
    """Return the console of results."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


def emit(data: Any) -> None:
    """Print JSON, and nothing else."""
    sys.stdout.write(json.dumps(data, indent=2, default=str, ensure_ascii=False) + "\n")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str | None = None,
    fold: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Table:
    """Return a table; numbers stand right.

    Args:
        fold: columns that may take several lines; the first may as well.
        whole: columns that must not be broken, because people copy what is in them.
    """
    from rich import box
    from rich.table import Table

    rows = [list(row) for row in rows]
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    for index, name in enumerate(columns):
        numeric = any(isinstance(row[index], int | float | Decimal) for row in rows)
        # What may wrap is made narrower first: names give way to numbers.
        wraps = (name in fold or index == 0) and name not in whole
        least = min(max((len(str(row[index])) for row in rows), default=0), 12) if index == 0 else None
        justify: Literal["left", "right"] = "right" if numeric else "left"
        made.add_column(name, justify=justify, no_wrap=not wraps, overflow="fold", min_width=least)
    for row in rows:
        made.add_row(*(shown(cell) for cell in row))
    return made


def shown(cell: Cell) -> str:
    """Return a cell as text: thousands separated, nothing for None."""
    from rich.markup import escape

    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}" if cell else "[dim]0[/dim]"
    if isinstance(cell, Decimal):
        return f"{cell:,f}"
    return f"{cell:,.1f}" if isinstance(cell, float) else escape(cell)


def ago(moment: datetime | None) -> str:
    """Return how long ago something was: `3 min`, `5 h`, `12 d`."""
    if moment is None:
        return "never"
    seconds = max((datetime.now(UTC) - moment).total_seconds(), 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


def duration(seconds: float | None) -> str:
    """Return `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def plural(count: int, word: str, many: str | None = None) -> str:
    """Return `1 table`, `2 tables`."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


@contextmanager
def own_streams(*, silence: bool) -> Iterator[TextIO]:
    """Yield the terminal's error stream; with `silence`, nobody else can write to the terminal while the block runs.

    Dagster takes the file descriptors of the process for the logs of a run and copies them to the terminal, where they
    would tear up the progress; in the web UI they are still there.
    """
    if not silence or not _real(sys.stdout) or not _real(sys.stderr):
        yield sys.stderr
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {stream.fileno(): os.dup(stream.fileno()) for stream in (sys.stdout, sys.stderr)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in kept:
            os.dup2(nowhere, descriptor)
        with os.fdopen(os.dup(kept[sys.stderr.fileno()]), "w", encoding="utf-8", buffering=1) as terminal:
            yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


def _real(stream: TextIO) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):  # a test reads along
        return False
    return True
