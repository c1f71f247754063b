"""What holds for the whole process: when it began, and whether tracebacks are wanted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class State:
    """Set once by `main`."""

    debug: bool = False
    started: float = field(default_factory=time.perf_counter)


STATE = State()
