"""Records with values that Arrow types cannot hold are set apart, so that the others can be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from etl_resources.source import unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa


def set_apart(
    records: pa.RecordBatch, odd: dict[str, pa.Array], origin: str
) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Split off the records that hold a value of `odd`, and return them in `unreadable_schema()`, or None.

    `odd` has, for some columns, the text of the values that do not fit, else null. Such records are few, so they may be
    turned into objects.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    is_odd = pc.is_valid(next(iter(odd.values())))
    for texts in odd.values():
        is_odd = pc.or_(is_odd, pc.is_valid(texts))
    if not pc.any(is_odd).as_py():
        return records, None
    rejected = records.filter(is_odd).to_pylist()
    rows = []
    given = {name: texts.filter(is_odd).to_pylist() for name, texts in odd.items()}
    for n, record in enumerate(rejected):
        texts_here = {name: texts[n] for name, texts in given.items() if texts[n] is not None}
        reason = "; ".join(
            f"{name}: {text!r} does not fit {records.schema.field(name).type}" for name, text in texts_here.items()
        )
        raw = json.dumps(record | texts_here, default=str, ensure_ascii=False).encode()
        rows.append({"reason": reason, "raw": raw, "origin": origin, "line": None})
    unreadable = pa.RecordBatch.from_pylist(rows, schema=unreadable_schema())
    return records.filter(pc.invert(is_odd)), unreadable
