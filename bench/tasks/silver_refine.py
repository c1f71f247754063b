"""(b) bronze -> silver with fates and rules, into a fresh copy of the prepared lake: `lake folder`."""

from __future__ import annotations

import shutil
import sys

from bench.said import timed
from bench.tables import silver
from etl_assets.run import Run


def main(lake: str, folder: str) -> None:
    shutil.copytree(lake, folder)
    table = silver(folder)
    timed(lambda: str(table.refine(Run("bench")).account), "duckdb", "pyarrow.parquet", "deltalake")
    shutil.rmtree(folder)


main(*sys.argv[1:])
