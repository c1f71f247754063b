"""An HTTP API in a thread of the test's process, over real sockets: listings in every kind of pages, and told faults.

`/offset/NAME`, `/page/NAME`, `/cursor/NAME`, `/header/NAME`, `/link/NAME`, `/next/NAME`, `/whole/NAME` give
`{"meta": {"total", "next", "more"}, "data": {"items": [...]}}`; `since` asks for records whose cursor is not smaller.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

Record = tuple[Any, bytes]
"""Its cursor, and its JSON."""


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def asked(self) -> dict[str, Any]:
        """Parameters of the query, or fields of the body."""
        return {**self.query, **(json.loads(self.body) if self.body[:1] == b"{" else {})}


@dataclass
class Told:
    """An answer. `promise`: the Content-Length that is told, where it is not the true one."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    promise: int | None = None
    drip: float = 0.0
    """Seconds between two bytes."""


@dataclass
class Api:
    """What the server has and does; everything may be changed at any time."""

    port: int = 0
    records: dict[str, list[Record]] = field(default_factory=dict)
    routes: dict[str, Callable[[Asked], Told]] = field(default_factory=dict)
    """Answers to whole paths, before anything else."""
    allowed: Callable[[Asked], bool] | None = None
    """Who may ask; anyone else gets 401."""
    interfere: Callable[[Asked, Told], Told | None] = lambda asked, told: told
    """May change an answer, or what the server has; None: the connection is closed without one."""
    largest: int = 1_000_000
    delay: float = 0.0
    zipped: bool = False
    log: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [f"{a.path}?{'&'.join(f'{k}={v}' for k, v in a.query.items())}" for a in self.log]

    def answer(self, asked: Asked) -> Told | None:
        self.log.append(asked)
        if self.allowed is not None and asked.path != "/token" and not self.allowed(asked):
            told = Told(b'{"error": "who are you?"}', 401)
        elif (route := self.routes.get(asked.path)) is not None:
            told = route(asked)
        else:
            told = self._listing(asked)
        changed = self.interfere(asked, told)
        if changed is not None and self.zipped and changed.promise is None:
            changed = Told(
                gzip.compress(changed.body, 1), changed.status, {**changed.headers, "Content-Encoding": "gzip"}
            )
        return changed

    def _listing(self, asked: Asked) -> Told:
        _, style, name = [*asked.path.split("/", 2), "", ""][:3]
        if name not in self.records:
            return Told(json.dumps({"error": f"there is nothing at {asked.path}"}).encode(), 404)
        query = asked.asked
        rows = self.records[name]
        if "since" in query:
            since = query["since"]
            rows = [r for r in rows if r[0] is None or (r[0] >= (int(since) if isinstance(r[0], int) else since))]
        return STYLES[style](self, asked, query, rows)


def document(rows: Sequence[Record], total: int, **meta: Any) -> bytes:
    """Return the document of a page."""
    about = json.dumps({"total": total, **meta}).encode()
    return b'{"meta": ' + about + b', "data": {"items": [' + b",".join(r[1] for r in rows) + b"]}}"


def _whole(api: Api, asked: Asked, query: dict[str, Any], rows: list[Record]) -> Told:
    return Told(document(rows, len(rows)))


def _offset(api: Api, asked: Asked, query: dict[str, Any], rows: list[Record]) -> Told:
    at, size = int(query.get("offset", 0)), min(int(query.get("limit", 100)), api.largest)
    headers = {"X-Total-Count": str(len(rows))}
    return Told(document(rows[at : at + size], len(rows), more=at + size < len(rows)), headers=headers)


def _page(api: Api, asked: Asked, query: dict[str, Any], rows: list[Record]) -> Told:
    size = min(int(query.get("per_page", 100)), api.largest)
    at = (int(query.get("page", 1)) - 1) * size
    return Told(document(rows[at : at + size], len(rows), more=at + size < len(rows)))


def _chained(api: Api, asked: Asked, query: dict[str, Any], rows: list[Record]) -> Told:
    """The mark is the place in the list: what comes later is behind it."""
    at, size = int(query.get("cursor", 0)), min(int(query.get("size", 100)), api.largest)
    style, end = asked.path.split("/")[1], at + size
    more = end < len(rows)
    given = "".join(f"&{name}={value}" for name, value in asked.query.items() if name != "cursor")
    url = f"{api.url}{asked.path}?cursor={end}{given}"
    follows = {"cursor": str(end), "next": url}.get(style) if more else None
    headers = {"header": {"X-Next": str(end)}, "link": {"Link": f'<{url}>; rel="next", <{api.url}>; rel="first"'}}
    return Told(document(rows[at:end], len(rows), next=follows), headers=headers.get(style, {}) if more else {})


STYLES: dict[str, Callable[[Api, Asked, dict[str, Any], list[Record]], Told]] = {
    "whole": _whole, "offset": _offset, "page": _page,
    "cursor": _chained, "header": _chained, "link": _chained, "next": _chained,
}  # fmt: skip


def application(api: Api) -> Callable[..., Any]:
    """Return the ASGI application over what the server has."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        asked = Asked(scope["method"], scope["path"], dict(parse_qsl(scope["query_string"].decode())), headers, body)
        if api.delay:
            await asyncio.sleep(api.delay)
        told = api.answer(asked)
        if told is None:
            raise ConnectionResetError("told to")
        given = {"Content-Type": "application/json", **told.headers}
        given["Content-Length"] = str(len(told.body) if told.promise is None else told.promise)
        raw = [(name.encode(), value.encode()) for name, value in given.items()]
        await send({"type": "http.response.start", "status": told.status, "headers": raw})
        for byte in told.body if told.drip else b"":
            await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
            await asyncio.sleep(told.drip)
        await send({"type": "http.response.body", "body": b"" if told.drip else told.body})

    return serve


@contextmanager
def running_api(*, port: int = 0, tls: tuple[str, str] | None = None, api: Api | None = None) -> Iterator[Api]:
    """Run a server until the end of the block; `tls` are the files of key and certificate chain."""
    api = api or Api()
    settings: dict[str, Any] = {"ssl_keyfile": tls[0], "ssl_certfile": tls[1]} if tls else {}
    config = uvicorn.Config(
        application(api), host="127.0.0.1", port=port, log_level="critical", lifespan="off", access_log=False,
        timeout_graceful_shutdown=1, **settings,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="http-api", daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server ended"
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        api.port = server.servers[0].sockets[0].getsockname()[1]
        yield api
    finally:
        server.should_exit = True
        thread.join(10)
