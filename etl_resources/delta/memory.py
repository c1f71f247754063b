"""Arrow's memory, given back to the system once it is no longer needed."""

from __future__ import annotations

import functools
import logging
import os

_log = logging.getLogger(__name__)
CHOICE = "ARROW_DEFAULT_MEMORY_POOL"
"""Arrow's own variable; whoever sets it has chosen."""


@functools.cache
def use_frugal_pool() -> None:
    """Let this process take Arrow's memory from jemalloc: mimalloc keeps more of what is freed."""
    import pyarrow as pa

    if os.environ.get(CHOICE):
        return
    try:
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    except NotImplementedError:  # a build of Arrow without it
        _log.debug("Arrow has no jemalloc here; it keeps its own choice, %s", pa.default_memory_pool().backend_name)
