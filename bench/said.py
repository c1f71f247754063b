"""What every task prints last."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any


def timed(work: Callable[[], Any]) -> None:
    """Time `work` and print seconds and result for `bench.measure`."""
    started = time.perf_counter()
    result = work()
    print(json.dumps({"seconds": time.perf_counter() - started, "result": result}))
