"""A server that speaks TDS 7.4 over a DuckDB: `python -m tests.servers.tds_server PORT [CERTIFICATE KEY]`.

It accepts the user `etl` with the password in TDS_PASSWORD, says `ready` on its standard output, and ends with its
standard input.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import suppress

from tests.servers import tds_rpc, tds_types
from tests.servers import tds_wire as tds
from tests.servers.tds_engine import Engine, Result, Session, SqlError

_DESCRIPTOR = b"\x08\x01\x00\x00\x00\x00\x00\x00\x00\x00"


class Connection:
    """One client, from PRELOGIN to its end."""

    def __init__(self, connection: socket.socket, engine: Engine, tls: ssl.SSLContext | None) -> None:
        self.wire, self.engine, self.tls = tds.Wire(connection), engine, tls
        self.prepared: dict[int, str] = {}

    def serve(self) -> None:
        """Answer until the client hangs up."""
        if not self._log_in():
            return
        session = Session(self.engine)
        try:
            while True:
                kind, body = self.wire.receive()
                if kind == tds.ATTENTION:
                    self.wire.write(tds.done(tds.DONE_ATTENTION))
                elif kind == tds.SQL_BATCH:
                    self._run(session, body[tds_rpc.skip_headers(body) :].decode("utf-16-le"))
                elif kind == tds.RPC:
                    self._call(session, tds_rpc.parse(body))
                elif kind == tds.TRANSACTION:
                    self._transact(session, body)
                self.wire.finish()
        finally:
            session.close()

    def _log_in(self) -> bool:
        self.wire.receive()
        self.wire.write(tds.prelogin(3 if self.tls else 2))
        self.wire.finish()
        if self.tls:
            self.wire.start_tls(self.tls)
        login = tds.Login.parse(self.wire.receive()[1])
        accepted = login.user == "etl" and login.password == os.environ["TDS_PASSWORD"]
        if not accepted:
            self.wire.write(tds.error(18456, f"Login failed for user '{login.user}'.", severity=14))
        elif login.database.lower() not in {"", "master"}:
            accepted = False
            message = f'Cannot open database "{login.database}" requested by the login. The login failed.'
            self.wire.write(tds.error(4060, message, severity=11))
        else:
            self.wire.write(tds.login_ack("master"))
        self.wire.write(tds.done(0 if accepted else tds.DONE_ERROR))
        self.wire.finish()
        return accepted

    def _run(self, session: Session, batch: str, *, token: int = 0xFD) -> bool:
        """Run a batch and write its results; False: it was broken off by an error or an attention."""
        try:
            before = session.in_transaction
            for result in session.run(batch):
                if not self._write(result, token):
                    return False
            if session.in_transaction != before:
                kind = 8 if session.in_transaction else 9
                change = _DESCRIPTOR[:9] + b"\x00" if kind == 8 else b"\x00" + _DESCRIPTOR[:9]
                self.wire.write(tds.environment(kind, change))
        except Exception as error:  # noqa: BLE001 - a fault of this server is told to its client, instead of hanging up
            if not isinstance(error, SqlError):
                traceback.print_exc()
                error = SqlError(50_000, f"{type(error).__name__}: {error}"[:2000])
            self.wire.write(tds.error(error.number, str(error)) + tds.done(tds.DONE_ERROR, token=token))
            return False
        if token == 0xFD:
            self.wire.write(tds.done())
        return True

    def _write(self, result: Result, token: int) -> bool:
        count = result.changed
        if result.columns:
            types = [type_ for _, type_ in result.columns]
            self.wire.write(tds_types.column_metadata(result.columns))
            for batch in result.batches:
                self.wire.write(tds_types.rows(batch, types))
                count += batch.num_rows
                if self.wire.interrupted() and self.wire.receive()[0] == tds.ATTENTION:
                    self.wire.write(tds.done(tds.DONE_ATTENTION))
                    return False
        self.wire.write(tds.done(tds.DONE_COUNT | tds.DONE_MORE, count, token=token))
        return True

    def _call(self, session: Session, call: tds_rpc.Call) -> None:
        values = call.parameters
        handle = 0
        if call.procedure in {"sp_executesql", "sp_prepexec", "sp_prepare"}:
            first = 0 if call.procedure == "sp_executesql" else 1
            statement = values[0][1] if first == 0 else values[2][1]
            names = values[1][1] if len(values) > 1 else ""
            arguments = values[first + 2 :]
        elif call.procedure == "sp_execute":
            statement, names = self.prepared[values[0][1]].split("\0")
            arguments = values[1:]
        else:
            self.prepared.pop(values[0][1], None) if call.procedure == "sp_unprepare" else None
            self.wire.write(tds.return_status() + tds.done(token=0xFE))
            return
        if call.procedure in {"sp_prepexec", "sp_prepare"}:
            handle = len(self.prepared) + 1
            self.prepared[handle] = f"{statement}\0{names or ''}"
        if call.procedure != "sp_prepare" and not self._run(session, _bound(statement, names, arguments), token=0xFF):
            return
        self.wire.write(tds.return_status())
        if handle:
            # RETURNVALUE of the first parameter: the handle, an int.
            value = b"\xac" + struct.pack("<HBBIHBB", 0, 0, 1, 0, 0, 0x26, 4) + struct.pack("<Bi", 4, handle)
            self.wire.write(value)
        self.wire.write(tds.done(token=0xFE))

    def _transact(self, session: Session, body: bytes) -> None:
        start = tds_rpc.skip_headers(body)
        (kind,) = struct.unpack_from("<H", body, start)
        begins_again = kind in {7, 8} and len(body) > start + 3 and bool(body[start + 3] & 1)
        if kind in {7, 8}:
            session.transact("commit" if kind == 7 else "rollback")
            self.wire.write(tds.environment(9 if kind == 7 else 10, b"\x00" + _DESCRIPTOR[:9]))
        if kind == 5 or begins_again:
            session.transact("begin")
            self.wire.write(tds.environment(8, _DESCRIPTOR[:9] + b"\x00"))
        self.wire.write(tds.done())


def _bound(statement: str, names: str | None, arguments: Iterable[tuple[str, object]]) -> str:
    """Return the statement with its parameters as literals; they are named in their declaration, in order."""
    declared = [part.split()[0] for part in (names or "").split(",") if part.strip().startswith("@")]
    values = {name or declared[n]: value for n, (name, value) in enumerate(arguments)}
    for name in sorted(values, key=len, reverse=True):
        statement = statement.replace(name, tds_rpc.literal(values[name]))
    return statement


def main(port: str, *certificate: str) -> None:
    """Listen until the standard input ends."""
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.maximum_version = (
            ssl.TLSVersion.TLSv1_2
        )  # later ones write after the handshake, where TDS does not expect it
        tls.load_cert_chain(*certificate)
    engine = Engine()
    listener = socket.create_server(("127.0.0.1", int(port)))

    def serve(client: socket.socket) -> None:
        with client, suppress(EOFError, OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Connection(client, engine, tls).serve()

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
