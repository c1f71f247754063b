"""A wire between a client and a server that a test can break in the ways real wires break."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Wire:
    """Connect to `port` instead of the server's own; the other fields may be changed at any time."""

    port: int
    upstream: int
    cut_after: int | None = None
    """Reset connections once so many bytes have come from the server, over all connections."""
    cut_after_sent: int | None = None
    """The same, once so many bytes have gone to the server."""
    stall_after: int | None = None
    """Send nothing more after so many bytes, and keep the connection open (a slow loris, a lost route)."""
    bytes_per_second: float | None = None
    refuse: bool = False
    """Take connections and reset them at once."""
    connections: int = 0
    received: int = 0
    sent: int = 0
    _sockets: list[socket.socket] = field(default_factory=list, repr=False)

    def restart_server(self, port: int) -> None:
        """Let new connections go to another port, and break those that are open."""
        self.upstream = port
        self.break_now()

    def break_now(self) -> None:
        """Reset every open connection."""
        for end in self._sockets:
            _reset(end)
        self._sockets.clear()


@contextmanager
def wire_to(port: int, **settings: Any) -> Iterator[Wire]:
    """Give a wire to the server on 127.0.0.1:`port`, with `settings` of `Wire`; everything is closed at the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    wire = Wire(listener.getsockname()[1], port, **settings)
    threading.Thread(target=_serve, args=(listener, wire), daemon=True).start()
    try:
        yield wire
    finally:
        # Woken up first: a thread that waits in accept would keep the port open.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        wire.break_now()


def _serve(listener: socket.socket, wire: Wire) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            wire.connections += 1
            if wire.refuse:
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", wire.upstream))
            except OSError:
                _reset(client)
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire._sockets += [client, server]
            for source, sink, counted in ((client, server, False), (server, client, True)):
                threading.Thread(target=_copy, args=(wire, source, sink, counted), daemon=True).start()


def _copy(wire: Wire, source: socket.socket, sink: socket.socket, counted: bool) -> None:
    with suppress(OSError):
        while chunk := source.recv(16_384):
            if not counted:
                wire.sent += len(chunk)
                if wire.cut_after_sent is not None and wire.sent > wire.cut_after_sent:
                    _reset(sink)
                    _reset(source)
                    return
            else:
                before, wire.received = wire.received, wire.received + len(chunk)
                if wire.bytes_per_second is not None:
                    time.sleep(len(chunk) / wire.bytes_per_second)
                if wire.stall_after is not None and wire.received > wire.stall_after:
                    sink.sendall(chunk[: max(0, wire.stall_after - before)])
                    return  # both ends stay open, and silent
                if wire.cut_after is not None and wire.received > wire.cut_after:
                    sink.sendall(chunk[: max(0, wire.cut_after - before)])
                    _reset(sink)
                    _reset(source)
                    return
            sink.sendall(chunk)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _reset(end: socket.socket) -> None:
    """Close with RST, as a machine that has crashed or a firewall does."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        end.close()


def free_port() -> int:
    """Return a port that nobody listens on, below those that the kernel gives to clients.

    A server that starts slowly would find one of those taken by then.
    """
    for _ in range(100):
        port = random.randrange(12_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port between 12,000 and 32,000")
