"""Capture tables into bronze until the process is ended: `port slot lake ready table=key…`.

The file `ready` is made when the first load is over.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from bench.captured import of_postgres
from etl_assets.run import Run
from etl_resources.change_log import Boundary


def main(port: str, slot: str, lake: str, ready: str, *tables: str) -> None:
    keys = {table.partition("=")[0]: (table.partition("=")[2],) for table in tables}
    captured = of_postgres(port, lake, keys, slot, mode="continuous", lasts=3600)

    def tick(boundary: Boundary, busy: Mapping[str, int]) -> None:  # noqa: ARG001 - as a tick is called
        if boundary.caught_up:
            Path(ready).touch()

    captured.follow(Run("bench"), after=tick)


main(*sys.argv[1:])
