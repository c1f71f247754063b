"""From the text of composite values to the JSON that `to_json` makes of them, which is what a snapshot reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from etl_resources.changes.pgoutput_nested import Parts, parts, subarrays

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.pgoutput_values import Converted, Converter
    from etl_resources.sources.postgres_types import Type

_NUMBERS = {"int2", "int4", "int8", "float4", "float8", "numeric"}
_TEMPORAL = {"date", "timestamp", "timestamptz"}
_CONTROL = {chr(code): json.dumps(chr(code))[1:-1] for code in range(1, 32)}


def records(type_: Type) -> Converter:
    """Return the function that turns texts of a composite type into JSON.

    What has another number of fields than the type comes back as a misfit.
    """
    return lambda texts: _misfits(texts, _record(texts, type_))


def _misfits(texts: pa.Array, values: pa.Array) -> Converted:
    import pyarrow.compute as pc

    if values.null_count == texts.null_count:
        return values, None
    return values, pc.if_else(values.is_valid(), None, texts)


def _record(texts: pa.Array, type_: Type) -> pa.Array:
    """Return the JSON, null where there is none."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = parts(texts, "(", ",", ")")
    good = np.diff(found.bounds) == len(type_.fields)
    pieces: list[Any] = []
    fits = pa.array(good)
    for place, (name, field) in enumerate(type_.fields):
        values = _field(found, place, good)
        made = _fragment(values, field)
        fits = pc.and_(fits, pc.equal(made.is_valid(), values.is_valid()))
        pieces += [("{" if place == 0 else ",") + json.dumps(name, ensure_ascii=False) + ":", made.fill_null("null")]
    joined = pc.binary_join_element_wise(*pieces, "}", "")
    return pc.if_else(fits, joined, None)


def _field(found: Parts, place: int, good: Any) -> pa.Array:
    """Return one field of the records that are good, null else; a part that is empty and not quoted is null."""
    import numpy as np
    import pyarrow as pa

    index = np.where(good, found.bounds[:-1] + place, 0)
    empty = np.ones(len(index), np.bool_)
    if len(found.texts):
        lengths = pa.compute.binary_length(found.texts).to_numpy()
        empty = (lengths[index] == 0) & ~found.quoted[index]
    return found.texts.take(pa.array(index, mask=empty | ~good))


def _fragment(texts: pa.Array, type_: Type) -> pa.Array:
    """Return values as JSON."""
    import pyarrow.compute as pc

    if type_.element is not None:
        return _array(texts, type_)
    if type_.fields:
        return _record(texts, type_)
    name = type_.name if type_.kind == "b" else ""
    if name == "bool":
        return pc.if_else(pc.equal(texts, "t"), "true", "false")
    if name in _NUMBERS:
        return pc.if_else(pc.match_substring_regex(texts, "^-?[0-9]"), texts, _string(texts))
    if name in _TEMPORAL:
        iso = pc.replace_substring_regex(texts, r"^([0-9-]+) ([0-9])", r"\1T\2")
        texts = pc.replace_substring_regex(iso, r"\+00( BC)?$", r"+00:00\1")
    return texts if name in {"json", "jsonb"} else _string(texts)


def _string(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    escaped = pc.replace_substring(pc.replace_substring(texts, "\\", "\\\\"), '"', '\\"')
    if pc.any(pc.match_substring_regex(texts, r"[\x01-\x1f]")).as_py():
        for character, code in _CONTROL.items():
            escaped = pc.replace_substring(escaped, character, code)
    return pc.binary_join_element_wise('"', escaped, '"', "")


def _array(texts: pa.Array, type_: Type) -> pa.Array:
    """Return JSON arrays."""
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = pc.replace_substring_regex(texts, r"^\[[0-9:\[\]-]+\]=", "")
    nested = pc.starts_with(plain, "{{")
    if pc.any(nested).as_py():
        outer = subarrays(pc.if_else(nested, plain, None), type_.delimiter)
        flat = _array(pc.if_else(nested, None, plain), type_)
        return pc.if_else(nested, _joined(_array(outer.texts, type_), outer, nested), flat)
    found = parts(plain, "{", type_.delimiter, "}")
    nothing = pc.and_(pc.equal(found.texts, "NULL"), pa.array(~found.quoted))
    made = _fragment(pc.if_else(nothing, None, found.texts), type_.element or type_)
    empty = pc.and_(pc.equal(pc.binary_length(found.texts), 0), pa.array(~found.quoted))
    return _joined(pc.if_else(empty, "", made.fill_null("null")), found, plain.is_valid())


def _joined(made: pa.Array, found: Parts, given: pa.Array) -> pa.Array:
    """Return the JSON of parts as arrays, null where not given."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    bounds = pa.array(found.bounds.astype(np.int32))
    lists = pa.ListArray.from_arrays(bounds, made, mask=pc.invert(given.fill_null(False)))  # noqa: FBT003
    return pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", "")
