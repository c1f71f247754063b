"""What a step knows about the run it is part of."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


def _silent(table: str, rows: int) -> None:  # noqa: ARG001 - nobody is watching
    return


@dataclass(frozen=True)
class Run:
    """Identity of a run, and whom to tell how far it has come."""

    run_id: str
    progress: Callable[[str, int], None] = _silent
    """Called with the name of a table and the rows read so far."""

    def point(self, name: str) -> None:
        """Mark a boundary between two effects; the environment can kill the process there.

        `ETL_KILL_AT=bronze:after_commit` kills the run as `kill -9` does, so that the tests can prove that another run
        repairs it.
        """
        if os.environ.get("ETL_KILL_AT") == name:
            os.kill(os.getpid(), 9)
