"""The closing table of a run: what became of every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl_assets.cli.location import short_name
from etl_assets.cli.output import duration, plural, table

if TYPE_CHECKING:
    from rich.console import Console

    from etl_assets.cli.outcome import Outcome

_ALWAYS = ("read", "inserted", "rejected")
_COLUMNS = ("read", "inserted", "updated", "deleted", "unchanged", "superseded", "filtered", "rejected")
_WIDE = 118


def print_accounts(console: Console, pipeline: str, outcome: Outcome) -> None:
    """Print one row per table, and a sentence on all of them."""
    tables = list(outcome.tables.values())
    columns = [
        name
        for name in _COLUMNS
        if name in _ALWAYS
        or (name != "deleted" and console.width >= _WIDE)
        or any(table.figures.get(name) for table in tables)
    ]
    rows = []
    for one in tables:
        figures = [one.figures.get(name) for name in columns]
        seconds: float | str = one.seconds if one.status == "done" else one.status
        rows.append([short_name(one.key, pipeline), *figures, seconds])
    console.print(table(["table", *columns, "seconds"], rows))
    console.print(sentence(outcome))


def sentence(outcome: Outcome) -> str:
    """Say how many rows were read and whether each is accounted for."""
    loaded = [table for table in outcome.tables.values() if table.figures]
    if not loaded:
        return f"No table was loaded in {duration(outcome.seconds)}."
    read = sum(table.figures["read"] for table in loaded)
    accounted = sum(sum(table.figures[name] for name in _COLUMNS if name != "read") for table in loaded)
    said = f"{plural(read, 'row')} read by {plural(len(loaded), 'table')} in {duration(outcome.seconds)}, "
    return said + ("every one accounted for." if accounted == read else f"{read - accounted:,} not accounted for!")
