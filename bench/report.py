"""The table that a bench prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line: what was measured, in seconds and MB, against what, and whether the goal was met."""

    case: str
    task: str
    seconds: float
    peak_mb: float
    rate: str = ""
    figure: str = ""
    goal: str = ""
    met: bool | None = None


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ("", "task", "s", "peak MB", "rate", "figure", "goal", "met")
    body = [
        (
            row.case,
            row.task,
            f"{row.seconds:.2f}",
            f"{row.peak_mb:.0f}",
            row.rate,
            row.figure,
            row.goal,
            "" if row.met is None else "yes" if row.met else "**no**",
        )
        for row in rows
    ]
    widths = [max(len(line[index]) for line in [head, *body]) for index in range(len(head))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *body]]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])
