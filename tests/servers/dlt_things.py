"""Resources as users of dlt write them: over a file of JSON lines that a test fills."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa


@dlt.resource
def lines(path: str, cursor: Any = dlt.sources.incremental("id")) -> Iterator[list[dict[str, Any]]]:  # noqa: B008 - as dlt has it
    """Every line of a file whose `id` is beyond the last one."""
    with Path(path).open(encoding="utf-8") as file:
        while page := [json.loads(line) for line in islice(file, 1_000)]:
            yield page


@dlt.resource
def lines_by_no_such_cursor(
    path: str,
    cursor: Any = dlt.sources.incremental("no_such_cursor"),  # noqa: B008
) -> Iterator[dict[str, Any]]:
    yield from lines(path)


@dlt.source
def shop(path: str, break_after: int | None = None) -> Any:
    """Two resources; the first breaks off."""

    @dlt.resource
    def broken() -> Iterator[dict[str, Any]]:
        for n, item in enumerate(lines(path)):
            if n == break_after:
                raise ConnectionResetError("the far end went away")
            yield item

    @dlt.resource
    def tables() -> Iterator[pa.Table]:
        yield pa.table({"id": [1, 2], "at": pa.array([0, 1], pa.timestamp("us"))})

    return broken, tables


@dlt.resource
def guarded(token: str) -> Iterator[dict[str, Any]]:
    """Asks an API that refuses the token."""
    import requests

    response = requests.Response()
    response.status_code = 401
    response.reason = "Unauthorized"
    response.raise_for_status()
    yield {"token": token}


@dlt.resource
def needs_settings(api_key: str = dlt.secrets.value) -> Iterator[dict[str, Any]]:
    yield {"api_key": api_key}


@dlt.resource
def counting() -> Iterator[dict[str, Any]]:
    """Keeps what it needs in its state, as resources without a cursor do."""
    state = dlt.current.resource_state()
    first = state.get("given", 0)
    state["given"] = first + 3
    for n in range(first, first + 3):
        yield {"id": n, "odd": bool(n % 2)}
