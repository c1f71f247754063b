"""Hangs up on a server that says nothing any more, where its driver would wait for ever."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from etl_resources.exceptions import UnavailableError

T = TypeVar("T")
_CONNECTING: defaultdict[tuple[str, int], threading.Lock] = defaultdict(threading.Lock)
_LAST_RECEIVED = 8 + 11 * 4  # tcpi_last_data_recv in Linux's struct tcp_info, milliseconds


class Lifeline:
    """The sockets of one connection of a driver, which may not show them itself.

    `at_work`, if given, is asked after every time of silence: as long as it says yes, the wait goes on.
    """

    def __init__(self, sockets: list[socket.socket], silence: float, where: str) -> None:
        self._sockets, self._silence, self._where = sockets, silence, where
        self._opened: Callable[[], list[socket.socket]] | None = None
        self.at_work: Callable[[], bool] | None = None

    @classmethod
    def of_descriptor(cls, fd: int, silence: float, where: str) -> Lifeline:
        """Keep hold of the socket of a connection whose driver shows it."""
        return cls([socket.socket(fileno=os.dup(fd))], silence, where)

    @classmethod
    def of(
        cls, connect: Callable[[], T], address: tuple[str, int], silence: float, where: str
    ) -> tuple[T, Lifeline]:  # fmt: skip
        """Call `connect`, and keep hold of the sockets to `address` (host and port) that it opened.

        Connections to one server are made one after the other, so that a new socket is known to be this one's.
        """
        line = cls([], silence, where)
        with _CONNECTING[address]:
            before = set(_open_sockets())
            line._opened = lambda: list(_to(address, before))
            with line.watched():
                connection = connect()
            line._sockets, line._opened = line._sockets or line._opened(), None
        return connection, line

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Run one call of the driver; it fails once the far end has been silent for too long.

        Raises:
            UnavailableError: in place of the driver's own error, when it was hung up on.
        """
        done, cut = threading.Event(), threading.Event()
        watch = threading.Thread(target=self._watch, args=(done, cut), name="etl-lifeline", daemon=True)
        watch.start()
        try:
            yield
        except Exception as error:
            if cut.is_set():
                raise UnavailableError(f"no answer for {self._silence:g} seconds", where=self._where) from error
            raise
        finally:
            done.set()
            watch.join()

    def _watch(self, done: threading.Event, cut: threading.Event) -> None:
        started, left = time.monotonic(), self._silence
        while not done.wait(left):
            silent = min([time.monotonic() - started, *self._since_last_byte()])
            left = self._silence - silent
            if left <= 0 and self.at_work is not None and self.at_work():
                started, left = time.monotonic(), self._silence
            elif left <= 0 and not done.is_set():
                cut.set()
                if self._opened is not None:
                    self._sockets = self._opened()
                for each in self._sockets:
                    with suppress(OSError):  # it may be closed already
                        each.shutdown(socket.SHUT_RDWR)
                return

    def _since_last_byte(self) -> list[float]:
        """Return the seconds since the far end sent anything, where the system can tell."""
        info = getattr(socket, "TCP_INFO", None)
        if info is None:
            return []
        with suppress(OSError, struct.error):
            raw = [each.getsockopt(socket.IPPROTO_TCP, info, 256) for each in self._sockets]
            return [struct.unpack_from("=I", part, _LAST_RECEIVED)[0] / 1000 for part in raw]
        return []

    def close(self) -> None:
        """Let go of the sockets; the driver closes its own."""
        for each in self._sockets:
            each.close()


def _open_sockets() -> dict[tuple[int, int], int]:
    """Return the sockets of this process, by device and inode: numbers of descriptors are used again."""
    found = {}
    descriptors = Path("/dev/fd")
    for path in list(descriptors.iterdir()) if descriptors.is_dir() else ():
        with suppress(OSError):  # it was that of the listing
            status = os.fstat(int(path.name))
            if stat.S_ISSOCK(status.st_mode):
                found[status.st_dev, status.st_ino] = int(path.name)
    return found


def _to(address: tuple[str, int], known: Collection[tuple[int, int]]) -> Iterator[socket.socket]:
    """Give a second handle to each of the sockets that lead to the address and were not known before."""
    descriptors = [fd for name, fd in _open_sockets().items() if name not in known]
    peers: set[Any] = set()
    with suppress(OSError):  # no name of a host: a socket of this machine, which loses no packets
        peers = {found[4][:2] for found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM)}
    for fd in descriptors:
        with suppress(OSError):
            copy = socket.socket(fileno=os.dup(fd))
            if _peer(copy) in peers:
                yield copy
            else:
                copy.close()


def _peer(end: socket.socket) -> tuple[str, int] | None:
    with suppress(OSError):
        host, port = end.getpeername()[:2]
        # A socket for both families shows an address of the older one like this.
        return str(host).removeprefix("::ffff:"), int(port)
    return None
