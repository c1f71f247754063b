"""Lines of a block become entries: one line each, or a first line with those that continue it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from etl_resources.octets import pieces

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

NEWLINE = 10


@dataclass(slots=True)
class Entries:
    """The entries of a block, none of them blank. `text` is null where the bytes are not text."""

    text: pa.StringArray
    raw: pa.BinaryArray
    lines: NDArray[np.int64]
    """Number of the first line of each, 1-based."""


def entries_of(data: bytes, line: int, start: str | None) -> Entries:
    """Return the entries of whole lines, of which the first has the number `line`.

    `start` matches a line that begins an entry; None: every line is one.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
    at, lines = _line_starts(data, line)
    if start is not None and len(lines):
        begins = _begins(_binary(data, at), start)
        begins[0] = True
        at, lines = np.append(at[:-1][begins], at[-1]), lines[begins]
    raw = _binary(data, at)
    text = pc.ascii_rtrim(_text(data, at, raw), "\n")
    blank = pc.equal(text, "").fill_null(False)  # noqa: FBT003 - the value that is filled in
    if pc.any(blank).as_py():
        kept = pc.invert(blank)
        text, raw, lines = text.filter(kept), raw.filter(kept), lines[kept.to_numpy(zero_copy_only=False)]
    assert isinstance(text, pa.StringArray)  # noqa: S101 - what the kernel makes of one
    return Entries(text, raw, lines)


def behind_fields(texts: pa.StringArray, fields: Sequence[Any], literal: int) -> pa.StringArray:
    """Return what is left of texts that begin with the fields and `literal` bytes; all of one whose fields are null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(texts):
        return texts
    lengths = [pc.binary_length(field) for field in fields]
    length = pc.add(reduce(pc.add, lengths), pa.scalar(literal, pa.int32()))
    _, offsets, data = texts.buffers()
    at = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    begins = at[:-1] + pc.fill_null(length, 0).to_numpy(zero_copy_only=False)
    found = pieces(data, begins, at[1:], kind=pa.string())
    assert isinstance(found, pa.StringArray)  # noqa: S101 - what the kernel makes of one
    return found


def last_start(data: bytes, start: str) -> int:
    """Return where the last line that begins an entry begins; 0: none but perhaps the first."""
    at, _ = _line_starts(data, 1)
    if len(at) < 2:
        return 0
    (found,) = _begins(_binary(data, at), start).nonzero()
    return int(at[found[-1]]) if len(found) else 0


def _line_starts(data: bytes, line: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each line begins, and at last where the text ends; and the number of each line."""
    import numpy as np

    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE) + 1
    return np.concatenate([[0], ends]), np.arange(line, line + len(ends), dtype=np.int64)


def _begins(lines: pa.BinaryArray, start: str) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    found: NDArray[np.bool_] = pc.match_substring_regex(lines, start).to_numpy(zero_copy_only=False)
    return found.copy()


def _binary(data: bytes, at: NDArray[np.int64]) -> Any:
    import numpy as np
    import pyarrow as pa

    buffers = [None, pa.py_buffer(at.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(at) - 1, buffers)


def _text(data: bytes, at: NDArray[np.int64], raw: pa.BinaryArray) -> pa.StringArray:
    """Return the entries as text; null where they are none: bytes that are not UTF-8, or NUL."""
    import numpy as np
    import pyarrow as pa

    if b"\0" not in data and _is_utf8(data):
        buffers = [None, pa.py_buffer(at.astype(np.int32)), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.string(), len(at) - 1, buffers)
    # One by one, which only a block with such bytes has to bear.
    return pa.array([v if _is_utf8(v) and b"\0" not in v else None for v in raw.to_pylist()], pa.string())


def _is_utf8(data: bytes) -> bool:
    try:
        return data.isascii() or data.decode() is not None
    except UnicodeDecodeError:
        return False
