"""Bytes of a block, all at once: where one occurs, what can be seen from each, and pieces of them as an Arrow array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Positions = NDArray[np.int64]

_STRIP = 1 << 19
_WORD = 8
_WIDE = 1 << 31
"""From so many bytes on, a position does not fit into 32 bits."""


def positions(data: bytes, octet: int, then: int | None = None) -> Positions:
    """Return where an octet stands, in order; with `then`, only where that one follows.

    A strip at a time, which stays near the processor: ten gigabytes a second.
    """
    import numpy as np

    octets = np.frombuffer(data, np.uint8)
    size = min(_STRIP, (len(octets) // _WORD + 1) * _WORD)
    found, follows = np.zeros(size, bool), np.zeros(size, bool)
    parts: list[Positions] = []
    for start in range(0, len(octets), size):
        strip = octets[start : start + size]
        if len(strip) < size:
            found[len(strip) :] = False
        np.equal(strip, octet, out=found[: len(strip)])
        if then is not None:
            after = octets[start + 1 : start + 1 + size]
            follows[len(after) :] = False
            np.equal(after, then, out=follows[: len(after)])
            found &= follows
        parts.append(_set(found) + start)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def windows(data: bytes | pa.Buffer, form: str) -> NDArray[Any]:
    """Return all that can be seen through a window of a form (a NumPy dtype), by its first byte; nothing is copied."""
    import numpy as np

    kind = np.dtype(form)
    return np.ndarray((max(len(data) - kind.itemsize + 1, 0),), kind, data, strides=(1,))


def pieces(
    data: bytes | bytearray | pa.Buffer,
    starts: NDArray[np.integer[Any]],
    ends: NDArray[np.integer[Any]],
    null: NDArray[np.bool_] | None = None,
    kind: pa.DataType | None = None,
) -> pa.Array:
    """Return `data[starts[i]:ends[i]]` for every i, null where `null` is set; what lies between them is left out.

    Each begins where the one before it ends, or later: those that are null, too. They are binary; `kind` is pa.string()
    where the caller knows that they are UTF-8, which is not looked at.

    Raises:
        pyarrow.ArrowInvalid: they are 2 GiB or more together.
    """
    import numpy as np
    import pyarrow as pa

    rows = len(starts)
    if not rows:
        return pa.array([], kind or pa.binary())
    buffer = pa.py_buffer(data)
    wide = buffer.size >= _WIDE
    # Pieces and what is between them by turns, over the bytes as they are: the former are taken.
    bounds = np.empty(2 * rows, np.int64 if wide else np.int32)
    bounds[0::2], bounds[1::2] = starts, ends
    by_turns = pa.Array.from_buffers(
        pa.large_binary() if wide else pa.binary(), 2 * rows - 1, [None, pa.py_buffer(bounds), buffer]
    )
    wanted = np.arange(0, 2 * rows, 2, dtype=bounds.dtype)
    taken = by_turns.take(pa.array(wanted, mask=null if null is not None and null.any() else None))
    if wide:
        taken = taken.cast(pa.binary())
    return taken if kind is None else taken.view(kind)


def _set(found: NDArray[np.bool_]) -> Positions:
    """Return where `found`, of whole words, is set; quick where most words are not."""
    import numpy as np

    words = found.view(np.uint64)
    at = np.flatnonzero(words != 0)
    within = np.flatnonzero(words[at].view(bool))
    positions: Positions = at[within >> 3] * _WORD + (within & 7)
    return positions
