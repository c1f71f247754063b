"""From the binlog to committed bronze, with account and position: `port table key lake folder`.

The lake is copied first, so that every run finds the same changes; without `folder` it is made.
"""

from __future__ import annotations

import shutil
import sys

from bench.captured import IMPORTS, OF_MYSQL, of_mysql
from bench.said import timed
from etl_assets.run import Run


def main(port: str, table: str, key: str, lake: str, folder: str = "") -> None:
    if folder:
        shutil.copytree(lake, folder)
    captured = of_mysql(port, folder or lake, {table: (key,)})
    timed(lambda: captured.follow(Run("bench"))[table].account.read, *IMPORTS, *OF_MYSQL)
    if folder:
        shutil.rmtree(folder)


main(*sys.argv[1:])
