"""Tries connections all at once, and waits for none longer than a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any


def pinged(resources: Mapping[str, Any], timeout: float) -> dict[str, str | None]:
    """Return name -> None where the far end answered, else why not; empty text: there is nothing to try.

    Each is tried in a thread of its own, which does not keep the process from ending: a client may wait for minutes.
    """
    found: dict[str, str | None] = {}

    def attempt(name: str, resource: Any) -> None:
        try:
            found[name] = None if resource.ping() else ""
        except Exception as error:  # noqa: BLE001 - it would end in the thread, unseen; here it is what is asked for
            found[name] = str(error) or type(error).__name__

    threads = [threading.Thread(target=attempt, args=item, daemon=True) for item in resources.items()]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    return {name: found.get(name, f"no answer within {timeout:.0f} s") for name in resources}
