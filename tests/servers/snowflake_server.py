"""fakesnow, answering as Snowflake does: `PYTHON_WITH_FAKESNOW snowflake_server.py PORT USER PASSWORD ROWS S3_PORT`.

fakesnow sends a result in one piece and takes any password. Snowflake sends the first rows with the answer and the rest
in chunks that are fetched on their own; in each of them a number takes the least room that its values need there, and
a decimal is an integer with a scale. And fakesnow knows no COPY INTO a location. That is what a client has to cope
with, so it is done here.
"""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import json
import re
import sys
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn
from fakesnow.arrow import to_ipc
from fakesnow.server import app, to_conn, to_token
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PORT, USER, PASSWORD, ROWS, S3 = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
INTEGRATION = "UNLOADS"
SLICES = 2
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


COPY = re.compile(
    r"\s*COPY INTO 's3://([^/']+)/([^']*)' FROM \((.*)\) STORAGE_INTEGRATION = \"([^\"]*)\""
    r" FILE_FORMAT = \(TYPE = PARQUET\) HEADER = TRUE DETAILED_OUTPUT = TRUE( MAX_FILE_SIZE = \d+)?\s*", re.DOTALL,
)  # fmt: skip
FAULTS: set[str] = set()


def unload(request: Request, statement: re.Match[str]) -> str:
    """Write what a query gives to S3; return the query that says what was written."""
    bucket, prefix, query, integration, _ = statement.groups()
    if integration != INTEGRATION:
        return f"SELECT * FROM {integration}_IS_NO_INTEGRATION"
    cursor = to_conn(to_token(request)).cursor()
    cursor.execute(query)
    table = cursor._arrow_table
    store = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{S3}", aws_access_key_id="key", aws_secret_access_key="secret",
        region_name="us-east-1",
    )  # fmt: skip
    told = []
    size = -(-table.num_rows // SLICES)
    for number, start in enumerate(range(0, table.num_rows, size or 1)):
        part = table.slice(start, size)
        name, sink = f"{prefix}data_{number}_0_0.snappy.parquet", io.BytesIO()
        pq.write_table(part.slice(1) if "lose_rows" in FAULTS else part, sink, row_group_size=10_000)
        if "lose_file" not in FAULTS or number:
            store.put_object(Bucket=bucket, Key=name, Body=sink.getvalue())
        told.append(f"('{name.rpartition('/')[2]}', {sink.tell()}, {part.num_rows})")
    if not told:
        return "SELECT * FROM VALUES ('', 0, 0) AS t(FILE_NAME, FILE_SIZE, ROW_COUNT) WHERE FALSE"
    return f"SELECT * FROM VALUES {', '.join(told)} AS t(FILE_NAME, FILE_SIZE, ROW_COUNT)"


class AsSnowflake(BaseHTTPMiddleware):
    """Checks who logs in, and cuts results into chunks."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        if request.url.path == "/session/v1/login-request":
            body = await request.body()
            login = json.loads(gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body)
            if (login["data"].get("LOGIN_NAME"), login["data"].get("PASSWORD")) != (USER, PASSWORD):
                return JSONResponse(REFUSED)
        if request.url.path == "/queries/v1/query-request":
            await self.rewrite(request)
        response = await call_next(request)
        if request.url.path != "/queries/v1/query-request" or response.status_code != 200:
            return response
        answer = in_chunks(json.loads(b"".join([part async for part in response.body_iterator])))
        host = request.headers["host"]  # as the client reached us, which may be through a wire that breaks
        for chunk in (answer.get("data") or {}).get("chunks", []):
            chunk["url"] = f"http://{host}{chunk['url']}"
        return JSONResponse(answer)

    async def rewrite(self, request: Request) -> None:
        """Do what fakesnow cannot, and let it answer what came of it."""
        body = await request.body()
        is_gzip = request.headers.get("content-encoding") == "gzip"
        asked = json.loads(gzip.decompress(body) if is_gzip else body)
        if fault := re.fullmatch(r"CALL FAULT\('(\w*)'\)", asked.get("sqlText", "")):
            FAULTS.clear()
            FAULTS.add(fault[1])
            asked["sqlText"] = "SELECT 1"
        elif statement := COPY.fullmatch(asked.get("sqlText", "")):
            asked["sqlText"] = await run_in_threadpool(unload, request, statement)
        else:
            return
        changed = json.dumps(asked).encode()
        request._body = gzip.compress(changed) if is_gzip else changed


async def chunk(request: Request) -> Response:
    return Response(CHUNKS[request.path_params["number"]], headers={"Content-Encoding": "gzip"})


if __name__ == "__main__":
    app.routes.append(Route("/chunks/{number:int}", chunk))
    app.add_middleware(AsSnowflake)
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error")
