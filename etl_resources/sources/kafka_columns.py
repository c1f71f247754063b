"""What stands beside the body of a message, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import Message

NAMES = ("topic", "partition", "offset", "timestamp", "key", "headers")
PREFIX = "kafka_"
_NO_TIMESTAMP = 0


def types(key_format: str) -> dict[str, pa.DataType]:
    """Return the types of the columns by their names in the option `metadata`."""
    import pyarrow as pa

    header = pa.struct([("name", pa.string()), ("value", pa.binary())])
    return {
        "topic": pa.string(), "partition": pa.int32(), "offset": pa.int64(), "timestamp": pa.timestamp("us", "UTC"),
        "key": pa.binary() if key_format == "bytes" else pa.string(), "headers": pa.list_(header),
    }  # fmt: skip


def columns(messages: Sequence[Message], wanted: Sequence[str], key_format: str) -> dict[str, pa.Array]:
    """Return the `wanted` columns, and `_op` and `_origin`, one value per message; text keys are known to be UTF-8."""
    import pyarrow as pa

    kinds = types(key_format)
    found = {PREFIX + name: _column(name, messages, kinds[name]) for name in NAMES if name in wanted}
    bodies = [m.value() is None for m in messages]
    if any(bodies):
        found["_op"] = pa.array(["delete" if gone else "read" for gone in bodies], pa.string())
    return found | {"_origin": origins(messages)}


def _column(name: str, messages: Sequence[Message], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if name == "topic":
        return pa.array([m.topic() for m in messages], kind)
    if name == "partition":
        return pa.array([m.partition() for m in messages], kind)
    if name == "offset":
        return offsets(messages)
    if name == "timestamp":
        stamps = [m.timestamp() for m in messages]
        milliseconds = pa.array([None if how == _NO_TIMESTAMP else ms for how, ms in stamps], pa.int64())
        return milliseconds.cast(pa.timestamp("ms", "UTC")).cast(kind)
    if name == "key":
        return pa.array([m.key() for m in messages], pa.binary()).cast(kind)
    return pa.array([_headers(m.headers()) for m in messages], kind)


def _headers(headers: Any) -> list[dict[str, Any]] | None:
    return [{"name": name, "value": value} for name, value in headers] if headers else None


def offsets(messages: Sequence[Message]) -> pa.Array:
    """Return the offsets of the messages, int64."""
    import pyarrow as pa

    return pa.array([m.offset() for m in messages], pa.int64())


def origins(messages: Sequence[Message]) -> pa.Array:
    """Return `topic/partition` of the messages."""
    import pyarrow as pa

    return pa.array([f"{m.topic()}/{m.partition()}" for m in messages], pa.string())


def bad_keys(messages: Sequence[Message]) -> set[int]:
    """Return the indexes of the messages whose key is not UTF-8."""
    import pyarrow as pa

    keys = [m.key() for m in messages]
    try:
        pa.array(keys, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return {n for n, key in enumerate(keys) if isinstance(key, bytes) and not _is_utf8(key)}
    return set()


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True
