"""What stands beside the body of a message, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = ("message_id", "sent_at", "receive_count", "group", "sequence", "attributes")
PREFIX = "sqs_"


def columns(messages: Sequence[dict[str, Any]], wanted: Sequence[str], origin: str) -> dict[str, pa.Array]:
    """Return the `wanted` columns, and `_origin`, one value per message as boto3 gives it."""
    import pyarrow as pa

    found = {PREFIX + name: _column(name, messages) for name in NAMES if name in wanted}
    return found | {"_origin": pa.repeat(pa.scalar(origin, pa.string()), len(messages))}


def _column(name: str, messages: Sequence[dict[str, Any]]) -> pa.Array:
    import pyarrow as pa

    system = [m.get("Attributes", {}) for m in messages]
    if name == "message_id":
        return pa.array([m["MessageId"] for m in messages], pa.string())
    if name == "sent_at":
        sent = pa.array([_int(a.get("SentTimestamp")) for a in system], pa.int64())
        return sent.cast(pa.timestamp("ms", "UTC")).cast(pa.timestamp("us", "UTC"))
    if name == "receive_count":
        return pa.array([_int(a.get("ApproximateReceiveCount")) for a in system], pa.int64())
    if name == "attributes":
        kind = pa.list_(pa.struct([("name", pa.string()), ("type", pa.string()), ("value", pa.binary())]))
        return pa.array([_attributes(m.get("MessageAttributes")) for m in messages], kind)
    key = {"group": "MessageGroupId", "sequence": "SequenceNumber"}[name]
    return pa.array([a.get(key) for a in system], pa.string())


def _attributes(given: Any) -> list[dict[str, Any]] | None:
    if not given:
        return None
    return [
        {
            "name": name,
            "type": value["DataType"],
            "value": value["BinaryValue"] if "BinaryValue" in value else value["StringValue"].encode(),
        }
        for name, value in sorted(given.items())
    ]


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)
