"""The client of a binlog: a connection over which the server sends its log as a replica would get it."""

from __future__ import annotations

import re
import select
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from struct import pack
from typing import TYPE_CHECKING, Any

from etl_resources.changes.mysql_events import Event, Framing
from etl_resources.changes.mysql_gtid import MysqlSet
from etl_resources.exceptions import ConfigurationError, EtlError, LogLostError, UnavailableError
from etl_resources.mysql_errors import translated
from etl_resources.mysql_sql import literal

if TYPE_CHECKING:
    import pymysql

    from etl_resources.mysql import MysqlConnection
    from etl_resources.mysql_session import Session

_DUMP, _DUMP_GTID = 0x12, 0x1E
_THROUGH_GTID = 4
_RECEIVE = 1 << 18
_ERROR, _EOF = 0xFF, 0xFE
_REQUESTED_ENDS = 1236


class Dump:
    """One connection. `events` gives what has come; nothing else can be asked in it any more."""

    def __init__(self, source: MysqlConnection, *, server_id: int, heartbeat: float) -> None:
        self.where, self._silence = source.address, source.resilience.silence
        self._id = server_id
        self._framing = Framing(source.address)
        self._heard = time.monotonic()
        self._packets: Iterator[bytes] = iter(())
        self._connection: pymysql.Connection[Any] = source.resilience.call(source._connect)  # noqa: SLF001 - as `session` does
        self.is_mariadb = "mariadb" in self._connection.get_server_info().lower()
        self._prepare(heartbeat)

    def _prepare(self, heartbeat: float) -> None:
        """Say what this reader can cope with; checksums are sent as they are stored."""
        period = round(heartbeat * 1_000_000_000)
        settings = [f"@master_heartbeat_period = {period}", f"@source_heartbeat_period = {period}"]
        settings += ["@master_binlog_checksum = @@GLOBAL.binlog_checksum"]
        settings += ["@source_binlog_checksum = @@GLOBAL.binlog_checksum", "SESSION net_write_timeout = 31536000"]
        if self.is_mariadb:
            settings.append("@mariadb_slave_capability = 4")
        else:
            # The server puts out an earlier reader with the same name, which may not have noticed its own end.
            settings.append(f"@slave_uuid = '{uuid.UUID(int=self._id)}', @replica_uuid = '{uuid.UUID(int=self._id)}'")
        self._query("SET " + ", ".join(settings))
        with translated(self.where), self._connection.cursor() as cursor:
            cursor.execute("SELECT @@GLOBAL.binlog_checksum")
            self._framing.checksums = cursor.fetchone() != ("NONE",)

    def _query(self, statement: str) -> None:
        with translated(self.where):
            self._connection.query(statement)

    def start(self, file: str, place: int) -> None:
        """Ask for the log from a place between two events on."""
        self._command(_DUMP, pack("<IHI", place, 0, self._id) + file.encode())

    def start_behind(self, gtids: str) -> None:
        """Ask for all transactions that are not among these, which another server has named."""
        if self.is_mariadb:
            self._query(f"SET @slave_connect_state = {literal(gtids)}, @slave_gtid_strict_mode = 1")
            self._command(_DUMP, pack("<IHI", 4, 0, self._id))
            return
        known = MysqlSet.parse(gtids).encoded()
        self._command(_DUMP_GTID, pack("<HIIQI", _THROUGH_GTID, self._id, 0, 4, len(known)) + known)

    def _command(self, number: int, body: bytes) -> None:
        with translated(self.where):
            self._connection._execute_command(number, body)  # noqa: SLF001 - the driver has no name for it

    def next(self, wait: float) -> Event | None:
        """Return the next event; None: nothing has come within `wait` seconds.

        Raises:
            LogLostError: the server no longer has what was asked for.
            UnavailableError: it has hung up, or been silent for too long.
        """
        until = time.monotonic() + wait
        while True:
            for packet in self._packets:
                return self._framing.event(packet) if packet[0] == 0 else self._refused(packet)
            if not self._receive(max(0.0, until - time.monotonic())):
                return None
            self._packets = self._framing.packets()

    @property
    def is_waiting(self) -> bool:
        """There is more that has come and was not asked for yet."""
        sock: Any = self._connection._sock  # noqa: SLF001 - as in `_receive`
        decrypted = sock.pending() if isinstance(sock, ssl.SSLSocket) else 0
        return bool(decrypted or select.select([sock], [], [], 0)[0])

    def _receive(self, wait: float) -> bool:
        """Add what comes within `wait` seconds to the packets."""
        sock: Any = self._connection._sock  # noqa: SLF001 - the log comes faster than through the driver's packets
        sock.settimeout(max(wait, 0.001))
        try:
            received = sock.recv(_RECEIVE)
        except TimeoutError:
            if time.monotonic() - self._heard > self._silence:
                raise UnavailableError(
                    f"the server has sent nothing for {self._silence:g} s, not even a heartbeat", where=self.where
                ) from None
            return False
        except OSError as error:
            raise UnavailableError(
                f"the connection broke while the binlog was read: {error}", where=self.where
            ) from error
        if not received:
            raise UnavailableError(
                "the server closed the connection while the binlog was read", where=self.where,
                fix="run again; if it comes again, another reader may have the same `server_id`",
            )  # fmt: skip
        self._heard = time.monotonic()
        self._framing.feed(received)
        return True

    def _refused(self, packet: bytes) -> Event:
        """Raise what the server says instead of an event."""
        from pymysql.err import raise_mysql_exception

        if packet[0] == _EOF:
            raise UnavailableError("the server ended the binlog", where=self.where)
        number = int.from_bytes(packet[1:3], "little")
        if number != _REQUESTED_ENDS:
            with translated(self.where):
                raise_mysql_exception(packet)
        raise refusal(packet[9:].decode(errors="replace"), self.where)

    def close(self, by: Session | None = None) -> None:
        """Hang up. The server notices when it next has something to send, or at once if another session tells it."""
        number = self._connection.thread_id()
        self._connection._force_close()  # noqa: SLF001 - nothing can be said to a server that sends its log
        if by is not None:
            # It may have ended by itself, and a server that is gone says so elsewhere.
            with suppress(EtlError):
                by.execute(f"KILL CONNECTION {number}")


def refusal(message: str, where: str) -> EtlError:
    """Return the error for what a server says when it cannot go on with its log (1236, all of them)."""
    if "max_allowed_packet" in message:
        return ConfigurationError(message, where=where, fix="raise max_allowed_packet on the server")
    if re.search(r"same server_?(uuid|id)", message, re.IGNORECASE):
        return UnavailableError(message, where=where, fix="give each reader a `server_id` of its own")
    return LogLostError(
        f"the server cannot go on with its binlog: {message}", where=where,
        fix="keep binlogs for longer (binlog_expire_logs_seconds), and read the streams anew: etl capture resnapshot",
    )  # fmt: skip
