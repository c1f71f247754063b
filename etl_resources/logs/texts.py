"""Fields that stay text: what means nothing becomes null, and the request line is split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_REQUEST = r"^(?P<method>[A-Za-z][A-Za-z_-]*) (?P<path>[^ ]+)(?: (?P<protocol>HTTP/[0-9.]+))?$"
_REQUEST_WITH_SPACES = r"^(?P<method>[A-Za-z][A-Za-z_-]*) (?P<path>[^ ].*) (?P<protocol>HTTP/[0-9.]+)$"
REQUEST_PARTS = ("method", "path", "protocol")


def nulled(texts: Any, nothing: Sequence[str]) -> Any:
    """Return the texts, those that mean nothing as null; no text is copied."""
    import pyarrow as pa
    import pyarrow.compute as pc

    empty = pc.is_in(texts, pa.array(nothing, pa.string())) if len(nothing) != 1 else pc.equal(texts, nothing[0])
    if not nothing or not pc.any(empty).as_py():
        return texts
    if texts.offset or texts.null_count:
        return pc.if_else(empty, pa.scalar(None, pa.string()), texts)
    _, offsets, data = texts.buffers()
    return pa.Array.from_buffers(pa.string(), len(texts), [pc.invert(empty).buffers()[1], offsets, data])


def split_request(requests: Any) -> dict[str, Any]:
    """Return method, path and protocol of request lines, and as `request` those in which none can be seen."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.extract_regex(requests, _REQUEST)
    parts = {part: pc.struct_field(found, part) for part in REQUEST_PARTS}
    none = pa.scalar(None, pa.string())
    if found.null_count:
        # Paths with spaces are rare, and so slow to look for that only what is left over is.
        left = pc.extract_regex(pc.if_else(pc.is_null(found), requests, none), _REQUEST_WITH_SPACES)
        parts = {part: pc.coalesce(texts, pc.struct_field(left, part)) for part, texts in parts.items()}
        whole = pc.if_else(pc.is_null(parts["method"]), requests, none)
    else:
        whole = pa.nulls(len(requests), pa.string())
    return parts | {"protocol": nulled(parts["protocol"], ("",)), "request": nulled(whole, ("", "-"))}
