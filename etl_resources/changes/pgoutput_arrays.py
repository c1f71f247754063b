"""From the text of arrays to Arrow lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl_resources.changes.pgoutput_nested import parts

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.pgoutput_values import Converted, Converter
    from etl_resources.sources.postgres_types import Type

_ODD = r"^\[|^\{\{"


def arrays(element: Type, delimiter: str) -> Converter:
    """Return the function that turns arrays of a type into lists: of what the type gets, or else of strings.

    Arrays of arrays, and those whose first element is not number 1, are no lists: they come back as misfits.
    """
    from etl_resources.changes.pgoutput_values import converter
    from etl_resources.sources.postgres_types import Type

    as_text = not (element.is_direct or (element.name in {"numeric", "inet"} and not element.domain))
    convert = converter(Type("text") if as_text else element)
    return lambda texts: _lists(texts, convert, delimiter)


def _lists(texts: pa.Array, convert: Converter, delimiter: str) -> Converted:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    odd = pc.fill_null(pc.match_substring_regex(texts, _ODD), fill_value=False)
    plain = pc.if_else(odd, None, texts)
    found = parts(plain, "{", delimiter, "}")
    empty = pc.equal(plain, "{}").fill_null(fill_value=False).to_numpy(zero_copy_only=False)
    elements, bounds = found.texts, found.bounds
    if empty.any():  # the one part of '{}' is none
        wanted = np.ones(len(elements), np.bool_)
        wanted[bounds[:-1][empty]] = False
        elements = elements.filter(pa.array(wanted))
        found.quoted = found.quoted[wanted]
        bounds = bounds - np.concatenate(([0], np.cumsum(empty)))
    nothing = pc.and_(pc.equal(elements, "NULL"), pa.array(~found.quoted))
    values, misfits = convert(pc.if_else(nothing, None, elements))
    if misfits is not None and misfits.null_count < len(misfits):
        out = _owners(bounds, misfits.is_valid().to_numpy(zero_copy_only=False))
        odd = pc.or_(odd, pa.array(out))
    given = plain.is_valid()
    lists = pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), values, mask=pc.invert(given))
    if not pc.any(odd).as_py():
        return lists, None
    return pc.if_else(odd, None, lists), pc.if_else(odd, texts, None)


def _owners(bounds: Any, flags: Any) -> Any:
    """Return which lists have an element that is flagged."""
    import numpy as np

    count = np.concatenate(([0], np.cumsum(flags)))
    return np.diff(count[bounds]) > 0
