"""The first load of a collection, in chunks: each as of one moment, in the order of `_id`, behind the last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etl_resources.source import Batch, unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa
    import pymongo

    from etl_resources.changes.mongodb_position import Snapshot
    from etl_resources.changes.mongodb_rows import Rows
    from etl_resources.sources.mongodb import MongoSource
    from etl_resources.sources.mongodb_read import Raw

_BYTES = 16 << 20


class Chunks:
    """Reads chunks of at most `size` documents of one collection, or of some megabytes."""

    def __init__(self, source: MongoSource, client: pymongo.MongoClient[Any], rows: Rows, size: int) -> None:
        self._source, self._client, self._rows, self._size = source, client, rows, size

    def next(self, progress: Snapshot, at: int) -> tuple[list[Raw], bool]:
        """Return the documents behind the last one as they were at a `_pos`, and whether these are the last.

        Raises:
            UnavailableError: the server could not be reached, though it was tried again.
            ConfigurationError: the server no longer keeps that moment.
        """
        from etl_resources.changes.mongodb_position import moment_of
        from etl_resources.sources import mongodb_read
        from etl_resources.sources.mongodb_bson import document_starts
        from etl_resources.sources.mongodb_values import codec

        rows, source = self._rows, self._source
        collection = self._client[source.database].get_collection(rows.collection, codec_options=codec())
        projection = dict.fromkeys(sorted(rows.wanted), 1) if rows.wanted is not None else None
        found = mongodb_read.Found(
            collection, {}, projection, ordered=True, resilience=source.resilience, where=rows.where
        )
        found = mongodb_read.as_of(found, moment_of(at))
        reader = mongodb_read.Reader(found, self._size, after=progress.after)
        given: list[Raw] = []
        size = count = 0
        try:
            while count < self._size and size < _BYTES:
                raw = reader.next()
                if raw is None:
                    return given, True
                given.append(raw)
                size, count = size + len(raw.data), count + len(document_starts(raw.data))
            return given, False
        finally:
            reader.close()

    def rows(self, raws: list[Raw], progress: Snapshot, at: int, read: int) -> Iterator[Batch]:
        """Yield documents as rows whose `_pos` is `at`; counts on from `read`."""
        from etl_resources.sources.mongodb_batches import Converter

        converter = Converter(self._rows.schema, None, self._rows.where, with_id=True)
        for raw in raws:
            for piece in converter.convert(raw.data, 65_536):
                self._rows.schema = converter.schema
                read += piece.records
                data = self._rows.read(piece.data, at, progress.rows)
                progress.rows += piece.records
                yield Batch(data, read, unreadable=_told(piece.unreadable, at))
            progress.after = raw.last


def _told(unreadable: pa.RecordBatch | None, at: int) -> pa.RecordBatch | None:
    """Return documents that do not fit as a log tells them."""
    import pyarrow as pa

    if unreadable is None:
        return None
    rows = unreadable.to_pylist()
    for row in rows:
        try:
            values = json.loads(row["raw"])
        except ValueError:
            values = {"bson": row["raw"].hex()}
        key = {"_id": values["_id"]} if "_id" in values else None
        row["raw"] = json.dumps({"key": key, "pos": at, "seq": None, "op": "read", "values": values}).encode()
    return pa.RecordBatch.from_pylist(rows, schema=unreadable_schema())
