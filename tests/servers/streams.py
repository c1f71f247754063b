"""A private server of Server-Sent Events (`/sse/NAME`) and WebSockets (`/ws/NAME`) in a thread of the test process."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.servers.proxy import free_port

_TICK = 0.01


@dataclass
class Channel:
    """What the server sends under a name, and how it behaves; a test may change everything at any time."""

    messages: list[str] = field(default_factory=list)
    """JSON texts; the token (event id) of a message is its place in the list."""
    resumes: bool = True
    """The client is sent what comes after the token it names, from the start without one. False: a live stream, which
    sends only what is added while the client is there, and knows no tokens."""
    inclusive: bool = False
    """A client that resumes is sent the message of its token again."""
    bearer: str | None = None
    """Refuse clients that do not send this token: HTTP 401."""
    rude_after: int | None = None
    """Hang up without a word after so many messages on one connection."""
    heartbeat: float | None = None
    """Say something that is no record every so many seconds."""
    silent: bool = False
    """Take connections and say nothing at all, not even a pong or a comment."""
    retry: int | None = None
    """SSE: milliseconds that a client shall wait before it comes back."""
    ends: bool = False
    """SSE: a client that has everything is told by 204 that there is no more to come."""
    event: str | None = None
    """SSE: type of the events."""
    greeting: str | None = None
    """WebSocket: first message to everyone."""
    subscribes: bool = False
    """WebSocket: nothing is sent before a message `{"op": "subscribe", "after": TOKEN or null}` has come."""
    connected: list[dict[str, Any]] = field(default_factory=list)
    """Headers of every connection, in order, with `at` (seconds) and the `subscribe` message, if there was one."""
    sent: int = 0
    """Messages given to the network, over all connections."""

    def first(self, token: str | None) -> int:
        if not self.resumes:
            return len(self.messages)
        return 0 if token in {None, ""} else int(token) + (0 if self.inclusive else 1)


class StreamServer:
    """`channel(NAME)` makes what clients find under that name; `port` is where they find it."""

    def __init__(self, *, tls: bool = False) -> None:
        self.port = free_port()
        self.channels: dict[str, Channel] = {}
        self._certificate = trustme.CA() if tls else None
        self._thread: threading.Thread | None = None
        self._server: uvicorn.Server | None = None

    def channel(self, name: str, **settings: Any) -> Channel:
        self.channels[name] = Channel(**settings)
        return self.channels[name]

    def url(self, kind: str, name: str, port: int | None = None) -> str:
        """Return where a client finds a channel; kind is `sse` or `ws`."""
        scheme = {"sse": "http", "ws": "ws"}[kind] + ("s" if self._certificate else "")
        return f"{scheme}://localhost:{port or self.port}/{kind}/{name}"

    def start(self) -> None:
        routes = [Route("/sse/{name}", self._sse), WebSocketRoute("/ws/{name}", self._ws)]
        settings: dict[str, Any] = {
            "host": "127.0.0.1", "port": self.port, "log_level": "critical", "ws": "websockets-sansio",
            "lifespan": "off", "timeout_graceful_shutdown": 0,
        }  # fmt: skip
        if self._certificate:
            with tempfile.NamedTemporaryFile(suffix=".pem", delete=False) as file:
                file.write(self._certificate.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
            settings |= {"ssl_certfile": file.name, "ssl_keyfile": file.name}
        server = self._server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), **settings))
        self._thread = threading.Thread(target=server.run, daemon=True)
        self._thread.start()
        while not server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(_TICK)
        if self._certificate:
            Path(file.name).unlink()

    def stop(self) -> None:
        assert self._server is not None
        assert self._thread is not None
        self._server.force_exit = self._server.should_exit = True
        self._thread.join(10)

    def authority(self) -> bytes:
        """Return the certificate, in PEM, of who signed that of this server."""
        assert self._certificate is not None
        return self._certificate.cert_pem.bytes()

    async def _sse(self, request: Request) -> Response:
        channel = self.channels.get(request.path_params["name"])
        if channel is None:
            return PlainTextResponse("no such channel", 404)
        if channel.bearer and request.headers.get("authorization") != f"Bearer {channel.bearer}":
            return PlainTextResponse("who are you?", 401)
        channel.connected.append({**request.headers, "at": time.monotonic()})
        first = channel.first(request.headers.get("last-event-id"))
        if channel.ends and first >= len(channel.messages):
            return Response(status_code=204)
        body = _events(channel, first)
        return StreamingResponse(body, media_type="text/event-stream")

    async def _ws(self, socket: WebSocket) -> None:
        channel = self.channels.get(socket.path_params["name"])
        if channel is None or (channel.bearer and socket.headers.get("authorization") != f"Bearer {channel.bearer}"):
            await socket.send_denial_response(Response(status_code=404 if channel is None else 401))
            return
        await socket.accept()
        channel.connected.append({**socket.headers, "at": time.monotonic()})
        token = None
        if channel.subscribes:
            asked = channel.connected[-1]["subscribe"] = json.loads(await socket.receive_text())
            token = asked.get("after")
        try:
            if channel.greeting:
                await socket.send_text(channel.greeting)
            async for message in _messages(channel, channel.first(None if token is None else str(token))):
                await socket.send_text('{"op": "heartbeat"}' if message is None else message[1])
        except (WebSocketDisconnect, RuntimeError):
            return
        await socket.close(1011)


async def _messages(channel: Channel, first: int) -> AsyncIterator[tuple[int, str] | None]:
    """Yield place and text of messages as they are there, None as a heartbeat; the end is a rude one."""
    place, given, heard = first, 0, time.monotonic()
    while True:
        if channel.silent or place >= len(channel.messages):
            if channel.heartbeat and not channel.silent and time.monotonic() - heard > channel.heartbeat:
                heard = time.monotonic()
                yield None
            await asyncio.sleep(_TICK)
            continue
        if given == channel.rude_after:
            return
        yield place, channel.messages[place]
        place, given, channel.sent = place + 1, given + 1, channel.sent + 1


async def _events(channel: Channel, first: int) -> AsyncIterator[bytes]:
    if channel.retry is not None:
        yield f"retry: {channel.retry}\n\n".encode()
    async for message in _messages(channel, first):
        if message is None:
            yield b": still here\n\n"
            continue
        place, text = message
        lines = [f"event: {channel.event}"] if channel.event else []
        lines += [f"id: {place}"] if channel.resumes else []
        lines += [f"data: {line}" for line in text.split("\n")]
        yield ("\n".join(lines) + "\n\n").encode()
    yield b"data: half an ev"
    raise ConnectionAbortedError("the test wants it")


@contextmanager
def running_streams(*, tls: bool = False) -> Iterator[StreamServer]:
    """Give a server and stop it afterwards."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    server = StreamServer(tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()
