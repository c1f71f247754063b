"""Takes the text of arrays and composite values apart, all values of a column at once.

Both are written the same way: values between brackets, with separators, quoted where needed. In an array a quote or a
backslash within quotes has a backslash before it; in a composite value it is doubled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_QUOTE, _BACKSLASH = b'"\\'


@dataclass(slots=True)
class Parts:
    """What values consist of: `texts` of all parts, each quoted or not, and where those of value i begin (n + 1)."""

    texts: pa.Array
    quoted: Any
    bounds: Any


def parts(texts: pa.Array, opening: str, separator: str, closing: str) -> Parts:
    """Return the parts of texts that are each `opening`, parts between separators, `closing`, or null.

    Nothing between the brackets is one empty part.
    """
    import numpy as np

    from etl_resources.changes.pgoutput_values import pieces

    offsets, octets, _ = pieces(texts)
    quotes, escapes, outside = _quoting(octets)
    ends = outside & ((octets == ord(separator)) | (octets == ord(closing)))
    begins = outside & (octets == ord(opening))
    doubled = _doubled(quotes) if opening == "(" else np.zeros(len(octets), np.bool_)
    dropped = (quotes & ~doubled) | escapes | begins
    return _parts(octets, offsets, ends, dropped)


def subarrays(texts: pa.Array, separator: str) -> Parts:
    """Return the arrays that arrays of arrays consist of, as their texts."""
    import numpy as np

    from etl_resources.changes.pgoutput_values import pieces

    offsets, octets, _ = pieces(texts)
    _, _, outside = _quoting(octets)
    begins, closes = outside & (octets == ord("{")), outside & (octets == ord("}"))
    depth = np.cumsum(begins.astype(np.int64) - closes)
    ends = (closes & (depth == 0)) | (outside & (depth == 1) & (octets == ord(separator)))
    return _parts(octets, offsets, ends, begins & (depth == 1))


def _parts(octets: Any, offsets: Any, ends: Any, dropped: Any) -> Parts:
    """Return what lies between the ends, without what is dropped."""
    import numpy as np
    import pyarrow as pa

    from etl_resources.changes.pgoutput_values import from_pieces

    at = np.flatnonzero(ends)
    kept = ~(dropped | ends)
    lengths = np.concatenate(([0], np.cumsum(kept)))
    counts = np.concatenate(([0], np.cumsum(ends)))
    bounds = np.concatenate(([0], lengths[at]))
    found = from_pieces(bounds, octets[kept], np.ones(len(at), np.bool_), pa.string())
    return Parts(found, octets[at - 1] == _QUOTE, counts[offsets])


def _quoting(octets: Any) -> tuple[Any, Any, Any]:
    """Return which bytes are quotes that stand for nothing themselves or are doubled, which are such backslashes, and
    which are outside of quotes."""
    import numpy as np

    escaped = _escaped(octets)
    quotes = (octets == _QUOTE) & ~escaped
    # Quotes come in pairs within a value, also where they are doubled, so the count starts anew with each of them.
    return quotes, (octets == _BACKSLASH) & ~escaped, ((np.cumsum(quotes) & 1) == 0) & ~quotes


def _escaped(octets: Any) -> Any:
    """Return which bytes have a backslash before them that stands for nothing itself."""
    import numpy as np

    escaped = np.zeros(len(octets) + 1, np.bool_)
    slashes = np.flatnonzero(octets == _BACKSLASH)
    if len(slashes):
        # In a run of backslashes, every other one escapes the byte behind it.
        starts = np.concatenate(([True], np.diff(slashes) != 1))
        begin = np.maximum.accumulate(np.where(starts, slashes, 0))
        escaped[slashes[(slashes - begin) % 2 == 0] + 1] = True
    return escaped[:-1]


def _doubled(quotes: Any) -> Any:
    """Return the second of two quotes that stand for one within quotes: it opens again what the first has closed."""
    import numpy as np

    number = np.cumsum(quotes)
    before = np.concatenate(([False], quotes[:-1]))
    return quotes & before & ((number & 1) == 1)
