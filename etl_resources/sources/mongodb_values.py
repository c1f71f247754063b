"""Single BSON values: as plain ones for a column of another type, as text, and whole documents as extended JSON."""

from __future__ import annotations

import struct
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from etl_resources.files import json_types

if TYPE_CHECKING:
    import pyarrow as pa
    from bson import CodecOptions


@cache
def codec() -> CodecOptions[dict[str, Any]]:
    """Return how values are decoded: times with their zone, and any moment that BSON can hold."""
    from bson import CodecOptions
    from bson.binary import UuidRepresentation
    from bson.codec_options import DatetimeConversion

    return CodecOptions(
        tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO,
        uuid_representation=UuidRepresentation.STANDARD,
    )  # fmt: skip


def decoded(code: int, raw: bytes) -> Any:
    """Return one value, given its BSON type and bytes."""
    import bson

    body = bytes([code]) + b"v\0" + raw + b"\0"
    return bson.decode(struct.pack("<i", len(body) + 4) + body, codec())["v"]


def fitted(code: int, raw: bytes, kind: pa.DataType, path: str) -> Any:
    """Return a value as Arrow takes it for the type, nothing lost.

    Raises:
        MisfitError: the type cannot hold it.
    """
    import pyarrow as pa
    from bson import Decimal128
    from pyarrow import types

    value = decoded(code, raw)
    if types.is_string(kind):
        return text_of(value)
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, Decimal) and types.is_decimal(kind) and value.is_finite():
        try:
            return pa.scalar(value, kind).as_py()
        except (pa.ArrowInvalid, ValueError):
            pass
    elif isinstance(value, str | int | float) or (isinstance(value, Decimal) and value.is_finite()):
        return json_types.fit(value, kind, path)
    raise json_types.MisfitError(f"{path}: {text_of(value)[:80]} does not fit {kind}")


def text_of(value: Any) -> str:
    """Return a value as text: numbers, ObjectIds, UUIDs and times as they are written, else extended JSON (relaxed)."""
    import datetime
    import uuid

    from bson import Decimal128, ObjectId, json_util

    if type(value) is str:  # JavaScript code is a str, too
        return value
    if isinstance(value, ObjectId | uuid.UUID | Decimal128 | Decimal):
        return str(value)
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json_util.dumps(value, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False)


def extended(document: bytes) -> bytes:
    """Return a document as canonical extended JSON, from which it can be made again; BSON that is broken, as it is."""
    import bson
    from bson import json_util

    try:
        found = bson.decode(document, codec())
    except (bson.errors.InvalidBSON, ValueError):
        return document
    return json_util.dumps(found, json_options=json_util.CANONICAL_JSON_OPTIONS, ensure_ascii=False).encode()
