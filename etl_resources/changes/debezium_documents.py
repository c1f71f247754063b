"""Documents of Debezium's MongoDB connector, which are extended JSON in a text, as structs with the source's types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etl_resources.changes.debezium_envelopes import Run, key_values

if TYPE_CHECKING:
    import pyarrow as pa

_SIDES = ("after", "before")


def expanded(run: Run, keys: Sequence[bytes | None], known: pa.Schema) -> Run:
    """Return the run with its documents as structs, if it is MongoDB's; `known`: types that are set already.

    A document that does not fit them is told as bad. A delete has its key in `before`, and an update without a document
    (no lookup was asked for, or it was gone) in `after`, with nothing else.
    """
    import pyarrow as pa

    if not run.at or not _is_mongodb(run.table):
        return run
    table, bad = run.table, list(run.bad)
    ids = [_identity(keys[n]) for n in run.at]
    wrong: dict[int, str] = {}
    arrays: dict[str, Any] = {}
    for side in _SIDES:
        texts = _texts(table, side)
        for n, op in enumerate(table.column("op").to_pylist()):
            if texts[n] is None and (side, op) in {("before", "d"), ("after", "u")}:
                texts[n] = ids[n]
        arrays[side], misfits, known = _structs(texts, known)
        wrong |= misfits
    sides = [n for n in _SIDES if n in table.column_names]
    table = table.drop_columns(sides)
    for side in _SIDES:
        table = table.append_column(side, arrays[side])
    keep = [n for n in range(len(run.at)) if n not in wrong]
    bad += [(run.at[n], why) for n, why in wrong.items()]
    return Run([run.at[n] for n in keep], table.take(pa.array(keep, pa.int64())), {}, bad)


def bare(table: pa.Table) -> list[int]:
    """Return the rows of updates whose document is not known, but for its key; of an expanded run."""
    if not _is_mongodb(table) or "after" not in table.column_names:
        return []
    found = enumerate(zip(table.column("op").to_pylist(), table.column("after").to_pylist(), strict=True))
    return [n for n, (op, row) in found if op == "u" and row and not any(v is not None for k, v in row.items()
            if k != "_id")]  # fmt: skip


def _is_mongodb(table: pa.Table) -> bool:
    from pyarrow import types

    kind = table.schema.field("source").type if "source" in table.column_names else None
    if kind is None or not types.is_struct(kind) or kind.get_field_index("connector") < 0:
        return False
    return any(s.get("connector") == "mongodb" for s in table.column("source").slice(0, 1).to_pylist() if s)


def _texts(table: pa.Table, side: str) -> list[str | None]:
    from pyarrow import types

    if side not in table.column_names or not types.is_string(table.schema.field(side).type):
        return [None] * table.num_rows
    found: list[str | None] = table.column(side).to_pylist()
    return found


def _identity(key: bytes | None) -> str | None:
    """Return the document `{"_id": …}` of a message's key, which has the `_id` as extended JSON in a text."""
    found = (key_values(key) or {}).get("id")
    return None if found is None else f'{{"_id": {found}}}'


def _structs(texts: list[str | None], known: pa.Schema) -> tuple[pa.Array, dict[int, str], pa.Schema]:
    """Return documents as structs, why some of them are none, and the types, grown."""
    import bson
    import numpy as np
    import pyarrow as pa
    from bson import json_util

    from etl_resources.sources.mongodb_arrow import Converter
    from etl_resources.sources.mongodb_bson import Buffer, document_starts, fields_of
    from etl_resources.sources.mongodb_types import grown
    from etl_resources.sources.mongodb_values import codec

    documents, rows, wrong = [], [], {}
    options = json_util.JSONOptions(tz_aware=True)
    for n, text in enumerate(texts):
        try:
            if text is not None:
                documents.append(bson.encode(json_util.loads(text, json_options=options), codec_options=codec()))
                rows.append(n)
        except (ValueError, TypeError, bson.errors.BSONError) as error:
            wrong[n] = f"no extended JSON: {error}"
    data = b"".join(documents)
    fields = fields_of(Buffer(data), document_starts(data))
    schema = grown(known, fields)
    owner = np.array(rows, np.int64)
    converter = Converter()
    arrays = converter.struct(fields, list(schema), owner)
    place = np.full(len(texts), -1, np.int64)
    place[owner] = np.arange(len(rows))
    struct = pa.StructArray.from_arrays(arrays, fields=list(schema)).take(pa.array(place, mask=place < 0))
    return struct, {**wrong, **converter.misfits}, schema
