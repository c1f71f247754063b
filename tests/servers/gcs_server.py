"""A Google Cloud Storage of our own: `python -m tests.servers.gcs_server PORT BUCKET [PUBLIC_KEY_FILE]`.

The XML API as obstore and Delta use it (conditional puts, ranges, listings in pages, uploads in parts), and of the JSON
API what Google's own client needs to put, get, list and delete. With a public key, every request has to carry a
token that the service account's private key has signed.
"""

from __future__ import annotations

import json
import sys
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.servers.gcs_objects import Buckets, MissingError, PreconditionError, Stored, Upload

META = "x-goog-meta-"
BUCKETS = Buckets()


def metadata_of(request: Request) -> dict[str, str]:
    return {n.removeprefix(META): v for n, v in request.headers.items() if n.startswith(META)}


def generation_wanted(request: Request) -> int | None:
    wanted = request.headers.get("x-goog-if-generation-match") or request.query_params.get("ifGenerationMatch")
    return None if wanted is None else int(wanted)


def type_of(request: Request) -> str:
    return request.headers.get("content-type", "application/octet-stream")


def headers_of(stored: Stored) -> dict[str, str]:
    return {
        "ETag": f'"{stored.etag}"', "Last-Modified": format_datetime(stored.updated, usegmt=True),
        "Content-Type": stored.content_type, "x-goog-generation": str(stored.generation), "Accept-Ranges": "bytes",
        **{META + name: value for name, value in stored.metadata.items()},
    }  # fmt: skip


def media(request: Request, stored: Stored) -> Response:
    """Answer with the content, or the range that was asked for."""
    wanted, size = request.headers.get("range"), len(stored.data)
    if wanted is None:
        return Response(stored.data, headers=headers_of(stored))
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last), size - 1) if first and last else size - 1
    if start >= size:
        return Response(status_code=416)
    shown = headers_of(stored) | {"Content-Range": f"bytes {start}-{end}/{size}"}
    return Response(stored.data[start : end + 1], 206, headers=shown)


async def xml_bucket(request: Request) -> Response:
    """List a bucket (list-type=2), in pages of at most a thousand."""
    query, bucket = request.query_params, request.path_params["bucket"]
    after = max(query.get("continuation-token", ""), query.get("start-after", ""))
    prefix, limit = query.get("prefix", ""), min(int(query.get("max-keys", "1000")), 1000)
    delimiter, contents, folders = query.get("delimiter", ""), [], []
    names, more = BUCKETS.names(bucket, prefix, after, limit)
    for name in names:
        rest = name.removeprefix(prefix)
        if delimiter and delimiter in rest:
            folders.append(prefix + rest.partition(delimiter)[0] + delimiter)
            continue
        stored = BUCKETS.get(bucket, name)
        contents.append(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(stored.data)}</Size><ETag>&quot;{stored.etag}&quot;</ETag>"
            f"<LastModified>{stored.updated:%Y-%m-%dT%H:%M:%S.%fZ}</LastModified></Contents>"
        )
    common = [f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in dict.fromkeys(folders)]
    token = f"<NextContinuationToken>{escape(names[-1])}</NextContinuationToken>" if more else ""
    body = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(contents)}{''.join(common)}"
    return Response(f"<ListBucketResult>{body}</ListBucketResult>", media_type="application/xml")


async def xml_object(request: Request) -> Response:
    """One object: GET, HEAD, PUT (also a copy, or a part), POST (begin or end an upload in parts), DELETE."""
    bucket, key, query = request.path_params["bucket"], request.path_params["key"], request.query_params
    body = await request.body()
    if request.method in {"GET", "HEAD"}:
        return media(request, BUCKETS.get(bucket, key))
    if request.method == "POST" or "uploadId" in query:
        return _parts(request, bucket, key, body)
    if request.method == "DELETE":
        BUCKETS.delete(bucket, key, if_generation=generation_wanted(request))
        return Response(status_code=204)
    metadata, content_type = metadata_of(request), type_of(request)
    if source := request.headers.get("x-goog-copy-source"):
        from urllib.parse import unquote

        of = BUCKETS.get(*unquote(source).lstrip("/").split("/", 1))
        body, metadata, content_type = of.data, of.metadata, of.content_type
    stored = BUCKETS.put(
        bucket, key, body, if_generation=generation_wanted(request), metadata=metadata, content_type=content_type
    )
    return Response(headers=headers_of(stored))


def _parts(request: Request, bucket: str, key: str, body: bytes) -> Response:
    query = request.query_params
    if "uploads" in query:
        BUCKETS.bucket(bucket)
        id_ = str(BUCKETS.number())
        BUCKETS.uploads[id_] = Upload(key, metadata_of(request), type_of(request))
        return _xml("InitiateMultipartUploadResult", UploadId=id_, Bucket=bucket, Key=key)
    upload = BUCKETS.uploads.get(query["uploadId"])
    if upload is None or upload.key != key:
        raise MissingError("No such upload")
    if request.method == "PUT":
        upload.parts[int(query["partNumber"])] = body
        return Response(headers={"ETag": f'"{query["partNumber"]}-{len(body)}"'})
    del BUCKETS.uploads[query["uploadId"]]
    if request.method == "DELETE":
        return Response(status_code=204)
    numbers = [int(e.text or "") for e in ET.fromstring(body).iter() if e.tag.rpartition("}")[2] == "PartNumber"]
    data = b"".join(upload.parts[number] for number in numbers)
    stored = BUCKETS.put(
        bucket, key, data, if_generation=generation_wanted(request), metadata=upload.metadata,
        content_type=upload.content_type,
    )  # fmt: skip
    return _xml("CompleteMultipartUploadResult", ETag=f'"{stored.etag}"', Bucket=bucket, Key=key)


def _xml(tag: str, **fields: str) -> Response:
    body = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    return Response(f"<{tag}>{body}</{tag}>", media_type="application/xml")


def described(bucket: str, key: str, stored: Stored) -> dict[str, Any]:
    return {
        "kind": "storage#object", "bucket": bucket, "name": key, "size": str(len(stored.data)), "etag": stored.etag,
        "generation": str(stored.generation), "metageneration": "1", "contentType": stored.content_type,
        "updated": stored.updated.isoformat(), "metadata": stored.metadata,
    }  # fmt: skip


async def json_list(request: Request) -> Response:
    query, bucket = request.query_params, request.path_params["bucket"]
    limit = int(query.get("maxResults", "1000"))
    names, more = BUCKETS.names(bucket, query.get("prefix", ""), query.get("pageToken", ""), limit)
    items = [described(bucket, n, BUCKETS.get(bucket, n)) for n in names]
    return JSONResponse({"kind": "storage#objects", "items": items} | ({"nextPageToken": names[-1]} if more else {}))


async def json_object(request: Request) -> Response:
    bucket, key = request.path_params["bucket"], request.path_params["key"]
    if request.method == "DELETE":
        BUCKETS.delete(bucket, key, if_generation=generation_wanted(request))
        return Response(status_code=204)
    stored = BUCKETS.get(bucket, key)
    whole = request.query_params.get("alt") == "media"
    return media(request, stored) if whole else JSONResponse(described(bucket, key, stored))


async def json_upload(request: Request) -> Response:
    """Take an object as the body (media), or as a part behind its description (multipart/related)."""
    bucket, body, content_type = request.path_params["bucket"], await request.body(), type_of(request)
    description: dict[str, Any] = {"name": request.query_params.get("name")}
    if request.query_params.get("uploadType") == "multipart":
        boundary = content_type.partition("boundary=")[2].strip("\"'").encode()
        parts = [p.removeprefix(b"\r\n").partition(b"\r\n\r\n") for p in body.split(b"--" + boundary)[1:-1]]
        description |= json.loads(parts[0][2])
        body = parts[1][2].removesuffix(b"\r\n")
    stored = BUCKETS.put(
        bucket, description["name"], body, if_generation=generation_wanted(request),
        metadata=description.get("metadata", {}), content_type=description.get("contentType", content_type),
    )  # fmt: skip
    return JSONResponse(described(bucket, description["name"], stored))


def failed(request: Request, error: Exception) -> Response:
    status, code = (412, "PreconditionFailed") if isinstance(error, PreconditionError) else (404, "NotFound")
    if "/storage/v1/" in request.url.path:
        return JSONResponse({"error": {"code": status, "message": str(error)}}, status)
    return Response(f"<Error><Code>{code}</Code><Message>{escape(str(error))}</Message></Error>", status)


def application(public_key: str | None) -> Starlette:
    async def signed(request: Request, call_next: Any) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            if public_key is not None:
                jwt.decode(token, public_key, algorithms=["RS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError:
            return Response("<Error><Code>AuthenticationRequired</Code></Error>", 401)
        answer: Response = await call_next(request)
        return answer

    objects, methods = "/storage/v1/b/{bucket}/o", ["GET", "HEAD", "PUT", "POST", "DELETE"]
    routes = [
        Route("/upload" + objects, json_upload, methods=["POST"]),
        Route(objects, json_list),
        Route(objects + "/{key:path}", json_object, methods=["GET", "DELETE"]),
        Route("/download" + objects + "/{key:path}", json_object),
        Route("/{bucket}", xml_bucket),
        Route("/{bucket}/", xml_bucket),
        Route("/{bucket}/{key:path}", xml_object, methods=methods),
    ]
    errors = {PreconditionError: failed, MissingError: failed}
    return Starlette(routes=routes, exception_handlers=errors, middleware=[Middleware(BaseHTTPMiddleware, signed)])


if __name__ == "__main__":
    port, bucket, *key_file = sys.argv[1:]
    BUCKETS.objects[bucket] = {}
    key = Path(key_file[0]).read_text() if key_file else None
    uvicorn.run(application(key), host="127.0.0.1", port=int(port), log_level="error")
