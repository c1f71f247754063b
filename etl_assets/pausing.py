"""Captures that a person has paused: kept in Dagster's instance, where sensors, runs and the command line see them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass

import dagster as dg

_KEY = "etl/capture/paused/"


@dataclass(frozen=True)
class Pause:
    """Since when (seconds since 1970) and why a capture rests."""

    since: float
    reason: str = ""


def paused(instance: dg.DagsterInstance, capture: str) -> Pause | None:
    """Return the pause of a capture, by the name of its op; None: it is not paused."""
    key = _KEY + capture
    found = instance.daemon_cursor_storage.get_cursor_values({key}).get(key)
    return Pause(**json.loads(found)) if found else None


def pause(instance: dg.DagsterInstance, capture: str, reason: str = "") -> None:
    """Let a capture rest: its sensor starts no run, and a run of it fails before it reads anything."""
    instance.daemon_cursor_storage.set_cursor_values({_KEY + capture: json.dumps(asdict(Pause(time.time(), reason)))})


def resume(instance: dg.DagsterInstance, capture: str) -> None:
    """Let a capture go on."""
    # The storage of cursors knows no removal.
    instance.daemon_cursor_storage.set_cursor_values({_KEY + capture: ""})
