"""The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), as MongoDB speaks it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from typing import Any

ITERATIONS = 4096


class Refused(Exception):  # noqa: N818 - what the server says
    """User or password are wrong."""


class Scram:
    """One exchange: `start` with the client's first message, then `proceed` until `done`."""

    def __init__(self, users: dict[str, str]) -> None:
        self._users = users
        self._salt = os.urandom(16)
        self._first = self._server_first = ""
        self._password: str | None = None
        self._verified = self.done = False
        self.user = ""

    def start(self, payload: bytes) -> bytes:
        self._first = payload.decode().split(",", 2)[2]
        fields = _fields(self._first)
        self.user = fields["n"].replace("=2C", ",").replace("=3D", "=")
        self._password = self._users.get(self.user)
        nonce = fields["r"] + base64.b64encode(os.urandom(18)).decode()
        self._server_first = f"r={nonce},s={base64.b64encode(self._salt).decode()},i={ITERATIONS}"
        return self._server_first.encode()

    def proceed(self, payload: bytes) -> bytes:
        if self._verified:
            self.done = True
            return b""
        message = payload.decode()
        without_proof, _, proof = message.rpartition(",p=")
        salted = hashlib.pbkdf2_hmac("sha256", (self._password or "").encode(), self._salt, ITERATIONS)
        signed = f"{self._first},{self._server_first},{without_proof}".encode()
        client_key = _hmac(salted, b"Client Key")
        stored = hashlib.sha256(client_key).digest()
        expected = bytes(a ^ b for a, b in zip(client_key, _hmac(stored, signed), strict=True))
        same_nonce = _fields(without_proof)["r"] == _fields(self._server_first)["r"]
        known = hmac.compare_digest(expected, base64.b64decode(proof))
        if self._password is None or not known or not same_nonce:
            raise Refused
        self._verified = True
        return b"v=" + base64.b64encode(_hmac(_hmac(salted, b"Server Key"), signed))

    def reply(self, payload: bytes) -> dict[str, Any]:
        return {"conversationId": 1, "payload": payload, "done": self.done}


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _fields(message: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in message.split(",") if "=" in part)
