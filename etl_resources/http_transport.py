"""Puts credentials on a request below the client, whose log, requests and errors so never hold them.

Imported when a connection opens.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpx

CREDENTIALS = "etl_credentials"
"""Extension of a request: its secret headers, and its secret parameters of the query."""


def sealed(request: httpx.Request, headers: Mapping[str, str], query: Mapping[str, str]) -> httpx.Request:
    """Return the request with credentials that only the transport looks at."""
    request.extensions[CREDENTIALS] = (dict(headers), dict(query))
    return request


class AuthorisingTransport(httpx.BaseTransport):
    """Hands requests on with their credentials."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; raises as the transport below."""
        headers, query = request.extensions.get(CREDENTIALS, ({}, {}))
        extensions = {name: value for name, value in request.extensions.items() if name != CREDENTIALS}
        given = httpx.Headers(request.headers)
        given.update(headers)
        url = request.url.copy_merge_params(query) if query else request.url
        return self._inner.handle_request(
            httpx.Request(request.method, url, headers=given, stream=request.stream, extensions=extensions)
        )

    def close(self) -> None:
        """Close the transport below."""
        self._inner.close()
