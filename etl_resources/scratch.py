"""Folders for what does not fit into memory, or is not ready to be seen. They go with their process: what one leaves
behind that was killed, the next one removes."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "etl-scratch-"
_YOUNG = 60.0
"""Seconds in which the process that has made a folder has surely locked it."""

_swept: set[str] = set()
_lock = threading.Lock()


class Scratch:
    """A new folder (`name`, mode 0700) under `parent`, or under the system's folder for temporary files.

    It is locked as long as it is in use, which is how others know.
    """

    def __init__(self, parent: str | None = None) -> None:
        parent = parent or tempfile.gettempdir()
        with _lock:
            first = parent not in _swept
            _swept.add(parent)
        if first:
            sweep(parent)
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent)
        self.name = self._folder.name
        self._held = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY)
        _try_lock(self._held)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        try:
            self._folder.cleanup()
        finally:
            os.close(self._held)

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep(parent: str) -> list[str]:
    """Remove the folders that processes of this user have left behind under `parent`; return their names."""
    removed = []
    for folder in sorted(Path(parent).glob(f"{PREFIX}*")):
        # Whatever cannot be looked at or removed is left to whom it belongs.
        with suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or time.time() - found.st_mtime < _YOUNG:
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if _try_lock(handle):
                    shutil.rmtree(folder)
                    removed.append(folder.name)
            finally:
                os.close(handle)
    return removed


def _try_lock(handle: int) -> bool:
    """Lock an open folder; false: somebody has, or this file system has no such locks."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
