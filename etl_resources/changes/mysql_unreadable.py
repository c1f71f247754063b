"""Events with values that no column of a lake can hold, as records of `unreadable_schema()`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def unreadable_event(
    event: dict[str, Any], row: pa.Schema, key: tuple[str, ...], odd: dict[str, str], origin: str
) -> dict[str, Any]:
    """Return one event as a record of `unreadable_schema()`; `odd` are the values that do not fit, as text."""
    shown = {name: event[name] for name in row.names} | odd
    types = {name: "boolean" if (t := str(row.field(name).type)) == "bool" else t for name in odd}
    reason = "; ".join(f"{name}: {text!r} does not fit {types[name]}" for name, text in odd.items())
    raw = {
        "key": {name: shown[name] for name in key}, "pos": event["_pos"], "seq": event["_seq"], "op": event["_op"],
        "values": shown,
    }  # fmt: skip
    text = json.dumps(raw, default=_plain, ensure_ascii=False)
    return {"reason": reason, "raw": text.encode(errors="replace"), "origin": origin, "line": None}


def _plain(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
