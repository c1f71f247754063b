"""fakesnow, answering as Snowflake does: `PYTHON_WITH_FAKESNOW snowflake_server.py PORT USER PASSWORD ROWS_PER_CHUNK`.

fakesnow sends a result in one piece and takes any password. Snowflake sends the first rows with the answer and the rest
in chunks that are fetched on their own; in each of them a number takes the least room that its values need there, and
a decimal is an integer with a scale. That is what a client has to cope with, so it is done here.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import sys
from typing import Any

import pyarrow as pa
import uvicorn
from fakesnow.arrow import to_ipc
from fakesnow.server import app
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PORT, USER, PASSWORD, ROWS = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
REFUSED = {
    "success": False, "code": "390100", "message": "Incorrect username or password was specified.",
    "data": {"nextAction": "RETRY_LOGIN"},
}  # fmt: skip
CHUNKS: dict[int, bytes] = {}
NUMBERS = itertools.count(1)


def narrowed(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Return a number as the narrowest integers that hold the values of this chunk; anything else as it is.

    A time is a struct, of which fakesnow makes the parts null, where Snowflake makes the whole null.
    """
    if pa.types.is_struct(column.type):
        whole = column.combine_chunks()
        fields = [whole.type.field(n) for n in range(whole.type.num_fields)]
        parts = [part.fill_null(0) for part in whole.flatten()]
        return pa.chunked_array([pa.StructArray.from_arrays(parts, fields=fields, mask=whole.field(0).is_null())])
    if pa.types.is_decimal(column.type) and column.type.precision <= 18:
        whole, plain = column.combine_chunks(), pa.decimal128(column.type.precision, 0)
        # The same bits without the scale, which stands in the metadata.
        unscaled = pa.Array.from_buffers(plain, len(whole), whole.buffers(), offset=whole.offset)
        column = pa.chunked_array([unscaled.cast(pa.int64())])
    if not pa.types.is_int64(column.type) or (field.metadata or {}).get(b"logicalType") != b"FIXED":
        return column
    for narrow in (pa.int8(), pa.int16(), pa.int32()):
        try:
            return column.cast(narrow)
        except pa.ArrowInvalid:
            continue
    return column


def encoded(table: pa.Table) -> bytes:
    columns = [narrowed(c, f) for c, f in zip(table.columns, table.schema, strict=True)]
    fields = [f.with_type(c.type) for c, f in zip(columns, table.schema, strict=True)]
    return to_ipc(pa.Table.from_arrays(columns, schema=pa.schema(fields))).to_pybytes()


def in_chunks(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a query's answer with its first rows only, and where the others are."""
    data = answer.get("data") or {}
    if data.get("queryResultFormat") != "arrow" or not data.get("rowsetBase64"):
        return answer
    table = pa.ipc.open_stream(base64.b64decode(data["rowsetBase64"])).read_all()
    data["rowsetBase64"] = base64.b64encode(encoded(table.slice(0, ROWS))).decode()
    chunks = []
    for start in range(ROWS, table.num_rows, ROWS):
        part, number = encoded(table.slice(start, ROWS)), next(NUMBERS)
        CHUNKS[number] = gzip.compress(part, 1)
        chunks.append({
            "url": f"/chunks/{number}", "rowCount": min(ROWS, table.num_rows - start), "uncompressedSize": len(part),
            "compressedSize": len(CHUNKS[number]),
        })  # fmt: skip
    return answer | {"data": data | ({"chunks": chunks, "chunkHeaders": {}} if chunks else {})}


class AsSnowflake(BaseHTTPMiddleware):
    """Checks who logs in, and cuts results into chunks."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        if request.url.path == "/session/v1/login-request":
            body = await request.body()
            login = json.loads(gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body)
            if (login["data"].get("LOGIN_NAME"), login["data"].get("PASSWORD")) != (USER, PASSWORD):
                return JSONResponse(REFUSED)
        response = await call_next(request)
        if request.url.path != "/queries/v1/query-request" or response.status_code != 200:
            return response
        answer = in_chunks(json.loads(b"".join([part async for part in response.body_iterator])))
        host = request.headers["host"]  # as the client reached us, which may be through a wire that breaks
        for chunk in (answer.get("data") or {}).get("chunks", []):
            chunk["url"] = f"http://{host}{chunk['url']}"
        return JSONResponse(answer)


async def chunk(request: Request) -> Response:
    return Response(CHUNKS[request.path_params["number"]], headers={"Content-Encoding": "gzip"})


if __name__ == "__main__":
    app.routes.append(Route("/chunks/{number:int}", chunk))
    app.add_middleware(AsSnowflake)
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error")
