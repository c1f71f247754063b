"""(cdc-merge) Captured changes -> silver, with fates and account: `lake folder`.

The result has the rows of the table afterwards.
"""

from __future__ import annotations

import shutil
import sys

from bench.captured import IMPORTS, OF_SILVER, captured_silver
from bench.said import timed
from etl_assets.run import Run


def main(lake: str, folder: str) -> None:
    shutil.copytree(lake, folder)
    silver = captured_silver(folder)

    def refine() -> int:
        silver.refine(Run("bench"))
        return int(silver.table.open().rows())

    timed(refine, *IMPORTS, *OF_SILVER)
    shutil.rmtree(folder)


main(*sys.argv[1:])
