"""What every task prints last."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from typing import Any


def timed(work: Callable[[], Any], *imports: str) -> None:
    """Time `work` and print seconds, those of the processor, and result for `bench.measure`.

    `imports` are made before the clock starts, ours as those of the peers: what they cost is measured in case e.
    """
    for name in imports:
        importlib.import_module(name)
    started, before = time.perf_counter(), time.process_time()
    result = work()
    spent = {"seconds": time.perf_counter() - started, "processor": time.process_time() - before}
    print(json.dumps({**spent, "result": result}))
