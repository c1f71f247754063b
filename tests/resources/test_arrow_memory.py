"""Arrow's memory pool: jemalloc's from the first table that is written, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WRITE = """
import sys
import pyarrow as pa
from etl_resources.lake import Lake

table = Lake(uri=sys.argv[1]).table("bronze", "t")
table.stage(None, pa.schema([("id", pa.int64())])).discard()
print(pa.default_memory_pool().backend_name)
"""


@pytest.mark.parametrize(("chosen", "used"), [("", "jemalloc"), ("system", "system")])
def test_the_pool_is_frugal_unless_another_was_chosen(tmp_path: Path, chosen: str, used: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    if chosen:
        variables["ARROW_DEFAULT_MEMORY_POOL"] = chosen
    made = subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path)], env=variables, check=True, capture_output=True, text=True
    )
    assert made.stdout.split() == [used]
