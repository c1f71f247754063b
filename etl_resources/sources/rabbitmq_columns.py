"""What a message brings beside its body, as columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etl_resources.sources.rabbitmq_consumer import OFFSET, Delivery

if TYPE_CHECKING:
    import pyarrow as pa

_TEXTS = (
    "message_id", "correlation_id", "reply_to", "type", "app_id", "user_id", "content_type", "content_encoding",
    "expiration",
)  # fmt: skip
_NUMBERS = ("timestamp", "priority")

NAMES = frozenset(f"_{n}" for n in ("exchange", "routing_key", "redelivered", "headers", *_TEXTS, *_NUMBERS))


def property_columns(deliveries: Sequence[Delivery]) -> dict[str, pa.Array]:
    """Return a column for each property, `_headers` as JSON text; null where a message has none."""
    import pyarrow as pa

    columns = {
        "_exchange": pa.array([d.exchange for d in deliveries], pa.string()),
        "_routing_key": pa.array([d.routing_key for d in deliveries], pa.string()),
        "_redelivered": pa.array([d.redelivered for d in deliveries], pa.bool_()),
    }
    properties = [d.properties for d in deliveries]
    for name in _TEXTS:
        columns[f"_{name}"] = pa.array([getattr(p, name) for p in properties], pa.string())
    for name in _NUMBERS:
        columns[f"_{name}"] = pa.array([getattr(p, name) for p in properties], pa.int64())
    headers = [None if not p.headers else json.dumps(_plain(p.headers), ensure_ascii=False) for p in properties]
    columns["_headers"] = pa.array(headers, pa.string())
    return columns


def offsets(deliveries: Sequence[Delivery]) -> list[int | None]:
    """Return the offset in the stream queue of each message; None: it came from another kind of queue."""
    headers = (d.properties.headers or {} for d in deliveries)
    return [int(h[OFFSET]) if OFFSET in h else None for h in headers]


def _plain(value: Any) -> Any:
    """Return a header's value as JSON has it: bytes that are no text in hexadecimal, times and decimals as text."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bytes | bytearray):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return bytes(value).hex()
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
