"""TDS 7.4 as bytes: packets, TLS inside of packets, and the tokens that carry no rows. Nothing here knows SQL."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from dataclasses import dataclass

SQL_BATCH, RPC, RESPONSE, ATTENTION, TRANSACTION, LOGIN7, PRELOGIN = 1, 3, 4, 6, 14, 16, 18
_LAST, _PACKET = 1, 8192
DONE_MORE, DONE_ERROR, DONE_COUNT, DONE_ATTENTION = 1, 2, 16, 32
COLLATION = b"\x09\x04\xd0\x00\x34"
"""Latin1_General_CI_AS."""


class Wire:
    """The server's end of one connection: messages in, messages out, in clear text or in TLS."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._tls: ssl.SSLObject | None = None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._buffer, self._pending = bytearray(), bytearray()
        self._number = 0

    def receive(self) -> tuple[int, bytes]:
        """Return type and body of the next message.

        Raises:
            EOFError: the client has hung up.
        """
        body = bytearray()
        while True:
            kind, status, length = struct.unpack(">BBH", self._take(8)[:4])
            body += self._take(length - 8)
            if status & _LAST:
                return kind, bytes(body)

    def interrupted(self) -> bool:
        """Whether the client has sent something while an answer is on its way: an attention."""
        return bool(self._buffer) or bool(select.select([self._socket], [], [], 0)[0])

    def write(self, data: bytes | memoryview) -> None:
        """Add to the answer; whole packets go out at once."""
        self._pending += data
        room = _PACKET - 8
        if len(self._pending) <= room:
            return
        view, packets, start = memoryview(bytes(self._pending)), bytearray(), 0
        while len(view) - start > room:
            packets += self._header(RESPONSE, 0, _PACKET) + view[start : start + room]
            start += room
        self._pending = bytearray(view[start:])
        self._send(bytes(packets))

    def finish(self) -> None:
        """End the answer."""
        body, self._pending = bytes(self._pending), bytearray()
        self._send(self._header(RESPONSE, _LAST, len(body) + 8) + body)
        self._number = 0

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands in TLS records that travel in PRELOGIN packets; everything after that is inside of TLS."""
        tls = context.wrap_bio(self._in, self._out, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send_handshake()
                self._in.write(self.receive()[1])
                continue
            break
        self._send_handshake()
        self._tls = tls

    def _send_handshake(self) -> None:
        if records := self._out.read():
            self._socket.sendall(self._header(PRELOGIN, _LAST, len(records) + 8) + records)

    def _header(self, kind: int, status: int, length: int) -> bytes:
        self._number = (self._number + 1) % 256
        return struct.pack(">BBHHBB", kind, status, length, 0, self._number, 0)

    def _send(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
            data = self._out.read()
        self._socket.sendall(data)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = self._socket.recv(65_536)
            if not chunk:
                raise EOFError
            if self._tls is None:
                self._buffer += chunk
                continue
            self._in.write(chunk)
            try:
                while clear := self._tls.read(65_536):
                    self._buffer += clear
            except ssl.SSLWantReadError:
                continue
            raise EOFError
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


@dataclass(frozen=True)
class Login:
    """What LOGIN7 says."""

    user: str
    password: str
    database: str
    application: str

    @classmethod
    def parse(cls, body: bytes) -> Login:
        def text(offset: int) -> bytes:
            start, length = struct.unpack_from("<HH", body, offset)
            return body[start : start + 2 * length]

        # Every byte of the password has its halves swapped and is mixed with 0xA5.
        password = bytes(((b ^ 0xA5) << 4 & 0xF0) | ((b ^ 0xA5) >> 4) for b in text(44))
        return cls(*(part.decode("utf-16-le") for part in (text(40), password, text(68), text(48))))


def prelogin(encryption: int) -> bytes:
    """Return the server's half of PRELOGIN: version 16, and whether it encrypts (2: cannot, 3: must)."""
    values = ((0, b"\x10\x00\x10\x00\x00\x00"), (1, bytes([encryption])), (2, b"\x00"), (3, b""), (4, b"\x00"))
    offset, head, data = 5 * len(values) + 1, b"", b""
    for token, value in values:
        head += struct.pack(">BHH", token, offset + len(data), len(value))
        data += value
    return head + b"\xff" + data


def _b_text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("utf-16-le")


def _us_text(text: str) -> bytes:
    return struct.pack("<H", len(text)) + text.encode("utf-16-le")


def login_ack(database: str) -> bytes:
    """Return the tokens that say that the login is accepted."""
    program = b"\x01\x74\x00\x00\x04" + _b_text("Microsoft SQL Server") + b"\x10\x00\x10\x00"
    return (
        environment(1, _b_text(database) + _b_text("master"))
        + environment(7, bytes([len(COLLATION)]) + COLLATION + b"\x00")
        + b"\xad" + struct.pack("<H", len(program)) + program
        + environment(4, _b_text(str(_PACKET)) + _b_text("4096"))
    )  # fmt: skip


def environment(kind: int, change: bytes) -> bytes:
    """Return ENVCHANGE: 1 database, 4 packet size, 7 collation, 8 to 10 a transaction begun, committed, undone."""
    return b"\xe3" + struct.pack("<HB", len(change) + 1, kind) + change


def error(number: int, message: str, *, severity: int = 16, state: int = 1) -> bytes:
    """Return ERROR as the server's tools would show it."""
    body = struct.pack("<iBB", number, state, severity) + _us_text(message) + _b_text("tds") + _b_text("")
    body += struct.pack("<i", 1)
    return b"\xaa" + struct.pack("<H", len(body)) + body


def done(status: int = 0, rows: int = 0, *, token: int = 0xFD) -> bytes:
    """Return DONE (0xFD), DONEPROC (0xFE) or DONEINPROC (0xFF)."""
    return struct.pack("<BHHQ", token, status, 0xC1 if status & DONE_COUNT else 0, rows)


def return_status(value: int = 0) -> bytes:
    return struct.pack("<Bi", 0x79, value)
