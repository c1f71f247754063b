"""A MongoDB server for tests: OP_MSG over TCP. `python -m tests.servers.mongo_server PORT '{"user": …}'`."""

from __future__ import annotations

import itertools
import json
import socket
import socketserver
import ssl
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import bson

from tests.servers.mongo_commands import Connection, HangUp, Server
from tests.servers.mongo_store import CODEC, Store

_MSG, _QUERY = 2013, 2004
_numbers = itertools.count(1)


class _Handler(socketserver.BaseRequestHandler):
    server: _Listener

    def handle(self) -> None:
        connection = Connection(next(_numbers))
        with suppress(OSError, EOFError, HangUp):
            self.request = self.server.secured(self.request)
            while True:
                self._one(connection)

    def _one(self, connection: Connection) -> None:
        length, request, _, kind = struct.unpack("<iiii", self._exactly(16))
        body = self._exactly(length - 16)
        if kind == _QUERY:  # the first greeting of older habits
            start = body.index(b"\0", 4) + 1 + 8
            answer = bson.encode(self.server.mongo.answer(bson.decode(body[start:], CODEC), connection))
            head = struct.pack("<iqii", 8, 0, 0, 1)
            self._send(1, request, head + answer)
            return
        if kind != _MSG:
            raise EOFError
        (flags,) = struct.unpack_from("<I", body)
        answer = bson.encode(self.server.mongo.answer(_command(body[4:]), connection), codec_options=CODEC)
        if not flags & 2:  # moreToCome: nobody waits for the answer
            self._send(_MSG, request, struct.pack("<IB", 0, 0) + answer)

    def _send(self, kind: int, to: int, body: bytes) -> None:
        self.request.sendall(struct.pack("<iiii", 16 + len(body), 0, to, kind) + body)

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self.request.recv(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _command(sections: bytes) -> dict[str, Any]:
    """Return the command of an OP_MSG; the documents of an insert stay raw, because they are stored as they came."""
    command: dict[str, Any] = {}
    at = 0
    while at < len(sections):
        kind = sections[at]
        (size,) = struct.unpack_from("<i", sections, at + 1)
        content = sections[at + 1 : at + 1 + size]
        if kind == 0:
            command = bson.decode(content, CODEC) | command
        else:
            name, _, rest = content[4:].partition(b"\0")
            raw = list(_split(rest))
            command[name.decode()] = raw if name == b"documents" else [bson.decode(r, CODEC) for r in raw]
        at += 1 + size
    if "insert" in command:
        command["documents"] = [
            d if isinstance(d, bytes) else bson.encode(d, codec_options=CODEC) for d in command["documents"]
        ]
    return command


def _split(documents: bytes) -> Any:
    at = 0
    while at < len(documents):
        (size,) = struct.unpack_from("<i", documents, at)
        yield documents[at : at + size]
        at += size


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, settings: dict[str, Any]) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        journal = Path(settings["journal"]) if settings.get("journal") else None
        users = {settings["user"]: settings["password"]} if settings.get("user") else {}
        set_name = None if settings.get("standalone") else "rs0"
        self.mongo = Server(Store(journal), set_name, users, f"127.0.0.1:{port}")
        self._tls: ssl.SSLContext | None = None
        if settings.get("certificate"):
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(settings["certificate"])

    def secured(self, plain: socket.socket) -> socket.socket:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._tls.wrap_socket(plain, server_side=True) if self._tls else plain

    def handle_error(self, request: Any, client_address: Any) -> None:
        import traceback

        traceback.print_exc()


if __name__ == "__main__":
    with _Listener(int(sys.argv[1]), json.loads(sys.argv[2])) as listener:
        listener.serve_forever()
