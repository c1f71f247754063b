"""A local folder that changes as a whole: readers see all of one load, or all of the one before.

A new folder is made beside the old one, out of hard links to the files that stay and the file that is new, and the two
change places in one step of the kernel. Where there is no such step (macOS, some network file systems) it takes two
renames, between which the folder is missing for a moment, but never empty or mixed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etl_resources.exceptions import ConcurrentCommitError, ConfigurationError
from etl_resources.files.commits import Commits
from etl_resources.files.storage import COMMITS

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class Folder:
    """The folder at `path`, and the hidden places beside it that a load needs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next, self._old, self._lock = (path.with_name(f".{path.name}.{part}") for part in ("next", "old", "lock"))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out, and clear away what a crash has left.

        Raises:
            ConcurrentCommitError: another writer is at it.
        """
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConcurrentCommitError(
                    f"another load is writing to {self.path}", where=str(self.path), fix="let one load end first"
                ) from None
            self._recover()
            yield

    def commits(self) -> Commits:
        """Return the record of the loads that are visible now.

        Raises:
            ConfigurationError: the folder holds files that no load has written; a replace would have to guess.
        """
        place = self.path if self.path.exists() or not self._old.exists() else self._old
        record = place / COMMITS
        commits = Commits.loads(record.read_bytes() if record.exists() else None, str(self.path))
        strangers = sorted({p.name for p in place.iterdir()} - {COMMITS, *commits.files}) if place.exists() else []
        if strangers:
            raise ConfigurationError(
                f"{self.path} holds files that were not written by this target: {', '.join(strangers[:5])}",
                where=str(self.path), fix="give the target a folder of its own",
            )  # fmt: skip
        return commits

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Return an empty folder to write into; it goes away unless it is shown."""
        self._next.mkdir()
        try:
            yield self._next
        finally:
            _discard(self._next)

    def show(self, commits: Commits) -> None:
        """Make the staged folder, completed by the files that stay, the folder that readers see."""
        for name in commits.files:
            if not (self._next / name).exists():
                _link(self.path / name, self._next / name)
        (self._next / COMMITS).write_text(commits.dumps())
        for path in (*self._next.iterdir(), self._next):
            _sync(path)
        if self.path.exists():
            _exchange(self._next, self.path, self._old)
        else:
            self._next.rename(self.path)
        _sync(self.path.parent)
        for replaced in (self._next, self._old):  # whichever it is called now
            _discard(replaced)

    def _recover(self) -> None:
        if self._old.exists() and not self.path.exists():
            self._old.rename(self.path)
        for leftover in (self._next, self._old):
            _discard(leftover)


def _discard(folder: Path) -> None:
    """Remove a folder. A reader that is still in it finds an error, not a part: what names its files goes first."""
    (folder / COMMITS).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}:
            raise
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(new: Path, current: Path, old: Path) -> None:
    """Let two folders change places; `new` is the old one then, or is gone."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        if renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(current), _RENAME_EXCHANGE) == 0:
            return
        if (code := ctypes.get_errno()) not in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
            raise OSError(code, os.strerror(code), str(current))
    current.rename(old)
    new.rename(current)
