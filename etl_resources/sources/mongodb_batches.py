"""From raw documents to batches: what does not fit is set apart, what was read before is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError
from etl_resources.files import json_types
from etl_resources.source import unreadable_schema
from etl_resources.sources.mongodb_bson import Buffer, CorruptError, document_starts, fields_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.sources.mongodb_horizon import Horizon

_PIECE_BYTES = 2 << 20
_PROVENANCE = frozenset({"_batch", "_row", "_read_at", "_op", "_seq", "_origin", "_partition"})


@dataclass(frozen=True)
class Converted:
    """Documents as records; `records` counts them before anything was done to them, unreadable ones included."""

    data: pa.RecordBatch
    unreadable: pa.RecordBatch | None
    records: int


class Converter:
    """Turns raw batches into records, in `schema`, which grows by the keys that turn up; types that are set stay."""

    def __init__(self, schema: pa.Schema, horizon: Horizon | None, origin: str, *, with_id: bool) -> None:
        self.schema, self._horizon, self._origin, self._with_id = schema, horizon, origin, with_id

    def convert(self, data: bytes, rows: int) -> Iterator[Converted]:
        """Yield the documents in pieces of at most `rows`."""
        starts = document_starts(data)
        first = 0
        while first < len(starts):
            behind = int(starts.searchsorted(starts[first] + _PIECE_BYTES, "right"))
            end = max(first + 1, min(first + rows, behind))
            to = int(starts[end]) if end < len(starts) else len(data)
            yield self._piece(data[int(starts[first]) : to])
            first = end

    def empty(self) -> pa.RecordBatch:
        """Return no records, in the schema."""
        import pyarrow as pa

        return pa.RecordBatch.from_pylist([], schema=self.visible())

    def visible(self) -> pa.Schema:
        """Return the schema of the records."""
        import pyarrow as pa

        return pa.schema([f for f in self.schema if self._with_id or f.name != "_id"])

    def _piece(self, data: bytes) -> Converted:
        try:
            return self._whole(data, [])
        except CorruptError:
            good, bad = _sifted(data)
        return self._whole(b"".join(good), bad)

    def _whole(self, data: bytes, broken: list[tuple[bytes, str]]) -> Converted:
        """Convert sound documents, and list the broken ones with them.

        Raises:
            CorruptError: one of the documents is not sound.
        """
        import numpy as np
        import pyarrow as pa

        from etl_resources.sources import mongodb_arrow
        from etl_resources.sources.mongodb_types import grown
        from etl_resources.sources.mongodb_values import extended

        buffer, starts = Buffer(data), document_starts(data)
        fields = fields_of(buffer, starts)
        schema = checked(grown(self.schema, fields), self._origin)
        arrow = mongodb_arrow.Converter()
        arrays = arrow.struct(fields, list(schema), np.arange(len(starts)))
        documents = _views(data, starts)
        keep = np.ones(len(starts), np.bool_)
        if self._horizon is not None:
            keep = ~self._horizon.repeated(fields, documents)
        records = int(keep.sum()) + len(broken)
        unfit = [n for n in sorted(arrow.misfits) if keep[n]]
        broken = [*broken, *((extended(bytes(documents[n])), arrow.misfits[n]) for n in unfit)]
        keep[unfit] = False
        self.schema = schema
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema).select(self.visible().names)
        return Converted(_kept(batch, keep), self._set_apart(broken), records)

    def _set_apart(self, broken: list[tuple[bytes, str]]) -> pa.RecordBatch | None:
        import pyarrow as pa

        rows = [{"reason": why, "raw": raw, "origin": self._origin, "line": None} for raw, why in broken]
        return pa.RecordBatch.from_pylist(rows, schema=unreadable_schema()) if rows else None


def _kept(batch: pa.RecordBatch, keep: NDArray[np.bool_]) -> pa.RecordBatch:
    import pyarrow as pa

    return batch if keep.all() else batch.filter(pa.array(keep))


def _views(data: bytes, starts: Any) -> list[memoryview]:
    whole, ends = memoryview(data), [*starts.tolist()[1:], len(data)]
    return [whole[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]


def _sifted(data: bytes) -> tuple[list[bytes], list[tuple[bytes, str]]]:
    """Return the documents that are sound, and the others with the reason; for the rare batch that has one of those."""
    import numpy as np

    from etl_resources.sources import mongodb_arrow
    from etl_resources.sources.mongodb_types import grown

    good, bad = [], []
    for view in _views(data, document_starts(data)):
        document = bytes(view)
        try:
            fields = fields_of(Buffer(document), np.zeros(1, np.int64))
            arrow = mongodb_arrow.Converter()
            arrow.struct(fields, list(grown(_nothing(), fields)), np.arange(1))
            good.append(document)
        except CorruptError as error:
            bad.append((document, str(error)))
    return good, bad


def _nothing() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([])


def checked(schema: pa.Schema, where: str) -> pa.Schema:
    """Return the schema, if its names are free.

    Raises:
        ConfigurationError: a field has a name that is kept for provenance.
    """
    if taken := sorted(_PROVENANCE.intersection(schema.names)):
        raise ConfigurationError(
            f"documents have a field {', '.join(taken)}, a name that is kept for provenance", where=where,
            fix="read the other fields only, with `fields: [...]`, or a view that renames it",
        )  # fmt: skip
    return schema


def sample_schema(data: bytes, declared: dict[str, Any], where: str) -> pa.Schema:
    """Return the schema that some documents show; declared types come before what is found."""
    from etl_resources.sources.mongodb_types import grown

    schema = json_types.load_schema(declared)
    try:
        found = grown(schema, fields_of(Buffer(data), document_starts(data)))
    except CorruptError:
        data = b"".join(_sifted(data)[0])
        found = grown(schema, fields_of(Buffer(data), document_starts(data)))
    return checked(_in_order(found, data), where)


def _in_order(schema: pa.Schema, data: bytes) -> pa.Schema:
    """Return the columns as the documents have them, those that were declared included."""
    import pyarrow as pa

    names = list(fields_of(Buffer(data), document_starts(data)))
    place = {name: n for n, name in enumerate(names)}
    return pa.schema(sorted(schema, key=lambda f: place.get(f.name, len(names))))
