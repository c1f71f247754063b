"""PostgreSQL, answering as Redshift does.

`redshift_server.py PORT POSTGRES_PORT S3_PORT PASSWORD [CERTIFICATE_AND_KEY]`: the password of the user `etl` is asked
for as MD5; the statement `LOGIN {"user": …, "password": …, "until": …}` lets in with another one, for a time. What
Amazon's driver sends and PostgreSQL does not know is taken out, the version is 8.0.2, binary and JSON columns have
Redshift's types, and UNLOAD writes what its query gives, within the session of the client, to S3.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import socket
import ssl
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

PORT, POSTGRES, S3 = (int(word) for word in sys.argv[1:4])
PASSWORD, CERTIFICATE = sys.argv[4], sys.argv[5] if len(sys.argv) > 5 else None
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
KNOWN = {"database", "application_name", "client_encoding"}
SALT = b"salt"
LOGINS = {"etl": {PASSWORD: math.inf}}
"""By user: passwords, and until when (seconds since 1970) one may log in with them."""
OPTIONS = "-c standard_conforming_strings=off -c escape_string_warning=off"
VARBYTE, SUPER, BYTEA, JSON, JSONB = 6551, 4000, 17, 114, 3802
OIDS = {BYTEA: VARBYTE, JSON: SUPER, JSONB: SUPER}
ROLE = "arn:aws:iam::123456789012:role/unload"
KEYS = ("key", "secret")
SLICES, GROUP_ROWS = 2, 10_000
FAULTS: set[str] = set()
STATEMENT = re.compile(
    r"\s*UNLOAD\s*\('((?:[^'\\]|\\.|'')*)'\)\s*TO\s*'s3://([^/']+)/([^']*)'\s*(.*)", re.IGNORECASE | re.DOTALL
)


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


def failure(state: str, text: str) -> bytes:
    return message(b"E", b"".join(f"{k}{v}\0".encode() for k, v in (("S", "ERROR"), ("C", state), ("M", text))) + b"\0")


def exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := end.recv(size - len(data))):
            raise ConnectionResetError("closed")
        data += more
    return data


def cells(body: bytes) -> list[bytes | None]:
    found: list[bytes | None] = []
    at = 2
    for _ in range(struct.unpack_from(">H", body)[0]):
        (length,) = struct.unpack_from(">i", body, at)
        found.append(None if length < 0 else body[at + 4 : at + 4 + length])
        at += 4 + max(length, 0)
    return found


def row(values: list[bytes | None]) -> bytes:
    parts = [struct.pack(">i", -1) if v is None else struct.pack(">i", len(v)) + v for v in values]
    return struct.pack(">H", len(values)) + b"".join(parts)


def described(body: bytes) -> tuple[list[tuple[str, int, int]], bytes]:
    """Return name, type and type modifier of the columns, and the message with Redshift's types."""
    changed, found, at = bytearray(body), [], 2
    for _ in range(struct.unpack_from(">H", body)[0]):
        end = body.index(0, at)
        _, _, oid, _, typmod, _ = struct.unpack_from(">IhIhih", body, end + 1)
        struct.pack_into(">I", changed, end + 7, OIDS.get(oid, oid))
        found.append((body[at:end].decode(), oid, typmod))
        at = end + 19
    return found, bytes(changed)


def arrow_type(oid: int, typmod: int) -> pa.DataType:
    if oid == 1700 and typmod >= 4:
        return pa.decimal128((typmod - 4) >> 16, (typmod - 4) & 0x7FF)
    simple = {16: pa.bool_(), 20: pa.int64(), 21: pa.int16(), 23: pa.int32(), 701: pa.float64(), BYTEA: pa.binary()}
    return simple.get(oid, pa.string())


def column(texts: list[bytes | None], oid: int, typmod: int) -> pa.Array:
    type_ = arrow_type(oid, typmod)
    if oid == BYTEA:
        return pa.array([None if t is None else bytes.fromhex(t[2:].decode()) for t in texts], type_)
    strings = pa.array([None if t is None else t.decode() for t in texts], pa.string())
    return pa.compute.equal(strings, "t") if oid == 16 else strings.cast(type_)


def hashed(user: str, password: str) -> bytes:
    inner = hashlib.md5((password + user).encode()).hexdigest().encode()
    return b"md5" + hashlib.md5(inner + SALT).hexdigest().encode()


class Session:
    """One client, with a session of its own in PostgreSQL."""

    def __init__(self, client: socket.socket) -> None:
        self.client, self.server = client, socket.create_connection(("127.0.0.1", POSTGRES))
        for end in (self.client, self.server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unload: re.Match[str] | None = None
        self.fields: list[tuple[str, int, int]] = []
        self.rows: list[bytes] = []
        self.error: bytes | None = None
        self.unloaded = 0

    def start(self) -> None:
        while True:
            size, code = struct.unpack(">II", exactly(self.client, 8))
            if code == SSL_REQUEST and CERTIFICATE:
                self.client.sendall(b"S")
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(CERTIFICATE)
                self.client = context.wrap_socket(self.client, server_side=True)
            elif code in {SSL_REQUEST, GSS_REQUEST}:
                self.client.sendall(b"N")
            else:
                break
        words = exactly(self.client, size - 8).rstrip(b"\0").decode().split("\0")
        named = dict(zip(words[::2], words[1::2], strict=True))
        if not self.logged_in(named["user"]):
            text = f'password authentication failed for user "{named["user"]}"'
            self.client.sendall(failure("28000", text))
            self.close()
            return
        given = {n: v for n, v in named.items() if n in KNOWN} | {"user": "postgres", "options": OPTIONS}
        body = struct.pack(">I", code) + "".join(f"{n}\0{v}\0" for n, v in given.items()).encode() + b"\0"
        self.server.sendall(struct.pack(">I", len(body) + 4) + body)
        threading.Thread(target=self.to_client, daemon=True).start()
        self.to_server()

    def logged_in(self, user: str) -> bool:
        self.client.sendall(message(b"R", struct.pack(">I", 5) + SALT))
        _, size = struct.unpack(">cI", exactly(self.client, 5))
        given = exactly(self.client, size - 4).rstrip(b"\0")
        return any(given == hashed(user, p) for p, until in LOGINS.get(user, {}).items() if time.time() < until)

    def to_server(self) -> None:
        try:
            while True:
                kind, size = struct.unpack(">cI", exactly(self.client, 5))
                body = exactly(self.client, size - 4)
                if kind == b"Q":
                    body = self.rewritten(body[:-1].decode()).encode() + b"\0"
                self.server.sendall(message(kind, body))
        except OSError:
            self.close()

    def rewritten(self, sql: str) -> str:
        if fault := re.fullmatch(r"FAULT (\w*)", sql):
            FAULTS.clear()
            FAULTS.update(filter(None, [fault[1]]))
            return "SELECT 1"
        if login := re.fullmatch(r"LOGIN (\{.*\})", sql):
            told = json.loads(login[1])
            LOGINS.setdefault(told["user"], {})[told["password"]] = told["until"]
            return "SELECT 1"
        self.unload = STATEMENT.fullmatch(sql)
        if self.unload:
            return re.sub(r"\\(.)|''", lambda m: m[1] or "'", self.unload[1])
        return sql.replace("pg_last_unload_count()", str(self.unloaded))

    def to_client(self) -> None:
        buffer = bytearray()
        try:
            while more := self.server.recv(1 << 18):
                buffer += more
                at, out = 0, bytearray()
                while at + 5 <= len(buffer):
                    end = at + 1 + struct.unpack_from(">I", buffer, at + 1)[0]
                    if end > len(buffer):
                        break
                    out += self.answered(bytes(buffer[at : at + 1]), bytes(buffer[at + 5 : end]))
                    at = end
                del buffer[:at]
                self.client.sendall(out)
        except OSError:
            pass
        self.close()

    def answered(self, kind: bytes, body: bytes) -> bytes:
        """Return what the client gets for a message of PostgreSQL."""
        if kind == b"S" and body.startswith(b"server_version\0"):
            return message(b"S", b"server_version\x008.0.2\0")
        if kind == b"T":
            self.fields, body = described(body)
        if self.unload:
            return self.kept(kind, body)
        if kind == b"D" and any(oid == BYTEA for _, oid, _ in self.fields):
            values = cells(body)
            plain = [v[2:] if v and oid == BYTEA else v for v, (_, oid, _) in zip(values, self.fields, strict=True)]
            return message(kind, row(plain))
        return message(kind, body)

    def kept(self, kind: bytes, body: bytes) -> bytes:
        """Keep what the query of an UNLOAD gives until it is complete."""
        if kind == b"D":
            self.rows.append(body)
        elif kind == b"E":
            self.error = message(kind, body)
        if kind != b"Z":
            return b""
        statement, rows, error = self.unload, self.rows, self.error
        self.unload, self.rows, self.error = None, [], None
        assert statement is not None
        if "hang" in FAULTS:
            threading.Event().wait(30)
            raise ConnectionAbortedError("nobody waits any more, and nothing is written")
        answer = error or self.write(statement[2], statement[3], statement[4], rows)
        return answer + message(kind, body)

    def write(self, bucket: str, prefix: str, rest: str, rows: list[bytes]) -> bytes:
        role = re.search(r"IAM_ROLE\s+'([^']*)'", rest)
        keys = re.search(r"ACCESS_KEY_ID '([^']*)' SECRET_ACCESS_KEY '([^']*)'", rest)
        if not {"PARQUET", "MANIFEST"} <= set(rest.upper().split()):
            return failure("0A000", "this server unloads Parquet with a manifest only")
        if role and role[1] != ROLE:
            return failure("XX000", f"User arn:aws:redshift:test is not authorized to assume IAM Role {role[1]}")
        if not role and (keys is None or keys.groups() != KEYS):
            return failure("XX000", f"S3ServiceException:InvalidAccessKeyId,Status 403 at {rest}")
        store = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{S3}", aws_access_key_id=KEYS[0], aws_secret_access_key=KEYS[1],
            region_name="us-east-1",
        )  # fmt: skip
        try:
            self.put(store, bucket, prefix, rows)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            return failure(
                "XX000", f"S3ServiceException:{error},Status {status},Error {error.response['Error']['Code']}"
            )
        self.unloaded = len(rows)
        told = f"SINFO\0C00000\0MUNLOAD completed, {len(rows)} record(s) unloaded successfully.\0\0"
        return message(b"N", told.encode()) + message(b"C", b"UNLOAD\0")

    def put(self, store: Any, bucket: str, prefix: str, rows: list[bytes]) -> None:
        entries = []
        for number in range(SLICES):
            slice_ = [cells(body) for body in rows[number::SLICES]]
            names = [name for name, _, _ in self.fields]
            texts = zip(*slice_, strict=True) if slice_ else ([] for _ in names)
            arrays = [column(list(t), oid, mod) for t, (_, oid, mod) in zip(texts, self.fields, strict=True)]
            table = pa.Table.from_arrays(arrays, names=names)
            if "lose_rows" in FAULTS:
                table = table.slice(1)
            sink = io.BytesIO()
            pq.write_table(table, sink, row_group_size=GROUP_ROWS)
            key = f"{prefix}{number:04}_part_00.parquet"
            store.put_object(Bucket=bucket, Key=key, Body=sink.getvalue())
            meta = {"content_length": sink.tell(), "record_count": len(slice_)}
            entries.append({"url": f"s3://{bucket}/{key}", "meta": meta})
        if "no_manifest" not in FAULTS:
            entries = entries[:-1] if "short_manifest" in FAULTS else entries
            store.put_object(Bucket=bucket, Key=f"{prefix}manifest", Body=json.dumps({"entries": entries}).encode())

    def close(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                end.close()


def serve(client: socket.socket) -> None:
    try:
        Session(client).start()
    except OSError:
        client.close()


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        while True:
            accepted, _ = listener.accept()
            threading.Thread(target=serve, args=(accepted,), daemon=True).start()
