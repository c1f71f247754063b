"""The events of a binlog as they come over the wire: packets, headers, checksums, and the small events' contents."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from etl_resources.exceptions import LogLostError, UnavailableError

QUERY, ROTATE, FORMAT, XID, TABLE_MAP = 2, 4, 15, 16, 19
STOP, HEARTBEAT, HEARTBEAT_2, INCIDENT, XA_PREPARE = 3, 27, 41, 26, 38
GTID, ANONYMOUS_GTID, TAGGED_GTID, PREVIOUS_GTIDS, MARIADB_GTID, MARIADB_GTID_LIST = 33, 34, 42, 35, 162, 163
PAYLOAD, PARTIAL_ROWS = 40, 39
QUERY_COMPRESSED = 165
WRITES, UPDATES, DELETES = frozenset({23, 30, 166, 169}), frozenset({24, 31, 167, 170}), frozenset({25, 32, 168, 171})
ROWS = WRITES | UPDATES | DELETES
SECOND_VERSION = frozenset({30, 31, 32, 169, 170, 171})
COMPRESSED_ROWS = frozenset(range(166, 172))

ARTIFICIAL = 0x20
HEADER = Struct("<IBIIIH")
HEADER_SIZE = 19
_PACKET = Struct("<I")
_LONGEST_PACKET = 0xFFFFFF


@dataclass(slots=True)
class Event:
    """One event without its checksum: `data[HEADER_SIZE:]` is its body."""

    kind: int
    timestamp: int
    server: int
    size: int
    """Bytes of the event in the log, the checksum included."""
    end: int
    """Where it ends in the log, modulo 2**32; 0: it is not in the log."""
    flags: int
    data: bytes
    crc: int = 0

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.data[HEADER_SIZE:]

    @property
    def is_stored(self) -> bool:
        """It stands in the log, and is not made up by the server while it sends."""
        return bool(self.end) and not self.flags & ARTIFICIAL and self.kind not in {HEARTBEAT, HEARTBEAT_2}


class Framing:
    """Cuts what comes from the socket into events."""

    def __init__(self, where: str) -> None:
        self._buffer, self._at, self._where = bytearray(), 0, where
        self.checksums = False
        """The events end with a CRC32; each file of a log says so in its first event."""

    def feed(self, received: bytes) -> None:
        """Add bytes."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += received

    def packets(self) -> Iterator[bytes]:
        """Yield the packets that are whole, without their headers."""
        buffer, header = self._buffer, _PACKET.unpack_from
        size = len(buffer)
        while self._at + 4 <= size:
            length = header(buffer, self._at)[0] & 0xFFFFFF
            end = self._at + 4 + length
            if length == _LONGEST_PACKET:
                if (joined := self._joined()) is None:
                    return
                yield joined
                continue
            if end > size:
                return
            packet = bytes(memoryview(buffer)[self._at + 4 : end])
            self._at = end
            yield packet

    def _joined(self) -> bytes | None:
        """Return a packet that came in several parts; None: not all is there."""
        parts, at, length = [], self._at, _LONGEST_PACKET
        while length == _LONGEST_PACKET:
            if at + 4 > len(self._buffer):
                return None
            length = _PACKET.unpack_from(self._buffer, at)[0] & 0xFFFFFF
            parts.append((at + 4, at + 4 + length))
            at += 4 + length
        if at > len(self._buffer):
            return None
        self._at = at
        with memoryview(self._buffer) as view:
            return b"".join(view[begin:end] for begin, end in parts)

    def event(self, packet: bytes) -> Event:
        """Return the event of a packet, whose first byte says that it is one.

        Raises:
            UnavailableError: it was damaged on the way, or on the server's disk.
        """
        timestamp, kind, server, size, end, flags = HEADER.unpack_from(packet, 1)
        if kind == FORMAT:
            # Its last byte before the checksum says whether events have one; it has one itself in any case.
            self.checksums = packet[-5] == 1
        if not self.checksums and kind not in {FORMAT, ROTATE}:
            return Event(kind, timestamp, server, size, end, flags, packet[1:])
        data, crc = packet[1:-4], _PACKET.unpack_from(packet, len(packet) - 4)[0]
        if zlib.crc32(data) != crc:
            if kind == ROTATE:  # one that the server makes up between two files is without where it says so nowhere
                return Event(kind, timestamp, server, size, end, flags, packet[1:])
            if self.checksums:
                raise UnavailableError(
                    f"an event of the binlog that ends at {end} does not match its checksum", where=self._where,
                    fix="run again; if it comes again, the server's file is damaged: look at it with mysqlbinlog",
                )  # fmt: skip
        return Event(kind, timestamp, server, size, end, flags, data, crc)


def rotation(event: Event) -> tuple[str, int]:
    """Return the name of the file that follows, and where in it the log goes on."""
    body = event.body
    return body[8:].decode(), int.from_bytes(body[:8], "little")


def query(event: Event) -> tuple[str, str]:
    """Return the default database and the text of a statement."""
    body = event.body
    database_length, status_length = body[8], int.from_bytes(body[11:13], "little")
    begin = 13 + status_length
    text = body[begin + database_length + 1 :]
    if event.kind == QUERY_COMPRESSED:
        text = uncompressed(text)
    return body[begin : begin + database_length].decode(errors="replace"), text.decode(errors="replace")


def uncompressed(data: bytes) -> bytes:
    """Return what MariaDB has compressed: one byte (method, size of the length), the length, and zlib's bytes."""
    size = data[0] & 7
    method = (data[0] & 0x70) >> 4
    if method != 0:
        raise LogLostError(f"the binlog is compressed by method {method}, which is not known here")
    return zlib.decompress(data[1 + size :])


def packed(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


def payload(event: Event) -> Iterator[Event]:
    """Yield the events of a transaction that MySQL has compressed, unpacked as they are asked for."""
    import pyarrow as pa

    body, at, method = event.body, 0, 0
    while True:
        field, at = packed(body, at)
        if field == 0:
            break
        size, at = packed(body, at)
        if field == 2:
            method, _ = packed(body, at)
        at += size
    data = pa.py_buffer(body[at:])
    stream = pa.BufferReader(data) if method == 255 else pa.CompressedInputStream(pa.BufferReader(data), "zstd")
    while header := stream.read(HEADER_SIZE):
        timestamp, kind, server, size, _, flags = HEADER.unpack(header)
        yield Event(kind, timestamp, server, size, 0, flags, header + stream.read(size - HEADER_SIZE))


@dataclass(slots=True)
class Group:
    """What opens a transaction: its name in the log, and when and where it was committed."""

    gtid: str | None
    """`domain-server-number`, or `uuid:number`; None: it has none, or one of a form that is not followed."""
    committed: int
    """Microseconds since 1970."""
    alone: bool = False
    """MariaDB: the one statement that follows is the whole transaction."""
    prepared: str | None = None
    """MariaDB: name of an XA transaction whose fate is not known yet."""
    server: str = ""
    """Where it was first committed."""
    tagged: bool = False


def group(event: Event) -> Group:
    """Return what a GTID event of either system says."""
    body = event.body
    if event.kind == MARIADB_GTID:
        number, domain, flags = int.from_bytes(body[:8], "little"), int.from_bytes(body[8:12], "little"), body[12]
        name = f"{domain}-{event.server}-{number}"
        prepared = _xa_name(body[21 if flags & 2 else 13 :]) if flags & 64 else None
        return Group(name, event.timestamp * 1_000_000, bool(flags & 1), prepared, str(event.server))
    if event.kind == TAGGED_GTID:
        return Group(None, event.timestamp * 1_000_000, tagged=True)
    identifier = uuid_text(body[1:17])
    committed = event.timestamp * 1_000_000
    if len(body) >= 49 and body[25] == 2:
        # The moment at this server, and with the highest bit the one at the first server behind it.
        moment = int.from_bytes(body[42:49], "little")
        committed = int.from_bytes(body[49:56], "little") if moment >> 55 else moment
    if event.kind == ANONYMOUS_GTID:
        return Group(None, committed)
    return Group(f"{identifier}:{int.from_bytes(body[17:25], 'little')}", committed, server=identifier)


def _xa_name(data: bytes) -> str:
    """Return the name of an XA transaction as statements in the log write it."""
    parts = data[6 : 6 + data[4]], data[6 + data[4] : 6 + data[4] + data[5]]
    return f"X'{parts[0].hex()}',X'{parts[1].hex()}',{int.from_bytes(data[:4], 'little')}"


def uuid_text(data: bytes) -> str:
    """Return 16 bytes as MySQL writes a UUID."""
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
