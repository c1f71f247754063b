"""A schema registry over HTTP: the part of Confluent's API that producers and consumers use.

Protobuf is registered as a descriptor in base64, which is what `format=serialized` gives back.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TYPE = "application/vnd.schemaregistry.v1+json"


@dataclass
class SchemaRegistry:
    """A running registry; `login` is what it wants in the header, if anything; `failures` are answered first."""

    port: int = 0
    login: tuple[str, str] | None = None
    failures: list[int] = field(default_factory=list)
    schemas: list[dict[str, Any]] = field(default_factory=list)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def register(self, subject: str, schema: str, kind: str = "AVRO", references: Any = ()) -> int:
        """Add a schema as the next version of a subject; return its id."""
        entry = {"schemaType": kind, "schema": schema, "references": list(references)}
        if entry not in self.schemas:
            self.schemas.append(entry)
        number = self.schemas.index(entry) + 1
        self.subjects.setdefault(subject, []).append(number)
        return number

    def answer(self, path: str, header: str | None) -> tuple[int, dict[str, Any]]:  # noqa: PLR0911
        """Return status and body for a request."""
        self.asked.append(path)
        if self.failures:
            return self.failures.pop(0), {"error_code": 50001, "message": "as the test wants it"}
        if self.login and header != "Basic " + base64.b64encode(":".join(self.login).encode()).decode():
            return 401, {"error_code": 401, "message": "Unauthorized"}
        if found := re.fullmatch(r"/schemas/ids/(\d+)(\?format=serialized)?", path):
            number = int(found.group(1))
            if not 0 < number <= len(self.schemas):
                return 404, {"error_code": 40403, "message": f"Schema {number} not found"}
            return 200, self._shown(number)
        if found := re.fullmatch(r"/subjects/([^/]+)/versions/(\d+)(\?format=serialized)?", path):
            versions = self.subjects.get(found.group(1), [])
            if int(found.group(2)) > len(versions):
                return 404, {"error_code": 40402, "message": "Version not found."}
            return 200, self._shown(versions[int(found.group(2)) - 1])
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _shown(self, number: int) -> dict[str, Any]:
        entry = {name: value for name, value in self.schemas[number - 1].items() if value}
        if entry["schemaType"] == "AVRO":
            del entry["schemaType"]  # the registry leaves out what is the default
        return entry


@contextmanager
def running_registry(*, login: tuple[str, str] | None = None) -> Iterator[SchemaRegistry]:
    """Start a registry without schemas."""
    registry = SchemaRegistry(login=login)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = registry.answer(self.path, self.headers.get("Authorization"))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
