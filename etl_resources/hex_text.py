"""Bytes that a server sends as hexadecimal digits."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def unhex(texts: pa.Array) -> pa.Array:
    """Return the bytes of texts of hexadecimal digits, all at once: every value has an even number of them.

    Raises:
        binascii.Error: a text holds something else.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = pa.concat_arrays([texts.cast(pa.binary())])  # without an offset
    offsets, data = plain.buffers()[1:]
    starts = np.frombuffer(offsets, np.int32)[: len(plain) + 1]
    if (np.diff(starts) % 2).any():
        raise binascii.Error("Odd-length string")
    decoded = binascii.unhexlify(memoryview(data)[starts[0] : starts[-1]] if data is not None else b"")
    moved = pa.py_buffer(((starts - starts[0]) // 2).astype(np.int32))
    whole = pa.Array.from_buffers(pa.binary(), len(plain), [None, moved, pa.py_buffer(decoded)])
    return pc.if_else(plain.is_null(), pa.scalar(None, pa.binary()), whole) if plain.null_count else whole


def hexed(values: pa.Array) -> pa.Array:
    """Return `binary` values as texts of hexadecimal digits, all at once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = pa.concat_arrays([values])  # without an offset
    offsets, data = plain.buffers()[1:]
    starts = np.frombuffer(offsets, np.int32)[: len(plain) + 1].astype(np.int64)
    digits = binascii.hexlify(memoryview(data)[starts[0] : starts[-1]]) if data is not None else b""
    moved = pa.py_buffer(((starts - starts[0]) * 2).astype(np.int32))
    whole = pa.Array.from_buffers(pa.string(), len(plain), [None, moved, pa.py_buffer(digits)])
    return pc.if_else(plain.is_null(), pa.scalar(None, pa.string()), whole) if plain.null_count else whole
