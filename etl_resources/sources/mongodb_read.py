"""Raw batches of documents off the wire: as of one moment, in ranges side by side, and again where a cursor breaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from etl_resources.mongodb_errors import translated

if TYPE_CHECKING:
    from datetime import datetime

    from bson import Timestamp
    from pymongo.collection import Collection
    from pymongo.cursor import RawBatchCursor
    from pymongo.read_concern import ReadConcern

    from etl_resources.resilience import Policy

_SPLIT_SAMPLE = 64
"""How many documents are sampled per range, to find where the ranges begin."""


@dataclass(frozen=True)
class Found:
    """What is read: a collection as of a moment, a filter, a projection. `ordered`: by `_id`, over its index."""

    collection: Collection[Any]
    filter: Mapping[str, Any]
    projection: Mapping[str, int] | None
    ordered: bool
    resilience: Policy
    where: str


@dataclass(frozen=True)
class Raw:
    """Some documents, one after the other, and the `_id` of the last as a BSON document; None: not in order."""

    data: bytes
    last: bytes | None


class Reader:
    """One cursor. By `_id`, it goes on where it was if the server has lost it; else only its start can be repeated."""

    def __init__(
        self, found: Found, batch: int, *, after: bytes | None = None, first: Any = None, end: Any = None
    ) -> None:
        self._found, self._batch, self._after = found, batch, after
        self._first, self._end = first, end
        self._cursor: RawBatchCursor[Any] | None = None
        self._given = False

    def next(self) -> Raw | None:
        """Return the next documents, or None behind the last.

        Raises:
            UnavailableError: the server could not be reached, or has lost a cursor that cannot be opened again.
        """
        if self._given and not self._found.ordered:
            return self._next()  # to begin again would double what was given
        return self._found.resilience.call(self._next)

    def close(self) -> None:
        """Let the server forget the cursor."""
        if self._cursor is not None:
            with suppress(Exception):  # it is gone, or will time out
                self._cursor.close()

    def _next(self) -> Raw | None:
        with translated(self._found.where):
            try:
                if self._cursor is None:
                    self._cursor = self._open()
                data = next(self._cursor, None)
                while data is not None and not (data := self._behind(data)):
                    data = next(self._cursor, None)
            except BaseException:
                self.close()
                self._cursor = None
                raise
        if data is None:
            return None
        self._given = True
        if self._found.ordered:
            self._after = _identity(data, _last_start(data))
        return Raw(data, self._after)

    def _open(self) -> RawBatchCursor[Any]:
        import bson

        from etl_resources.sources.mongodb_values import codec

        found, first = self._found, self._first
        options: dict[str, Any] = {"batch_size": self._batch}
        if found.ordered:
            # Bounds of the index and not a filter: `_id: {$gt: x}` leaves out every `_id` of another type than x.
            options |= {"sort": [("_id", 1)], "hint": [("_id", 1)]}
            if self._after is not None:
                first = bson.decode(self._after, codec())["_id"]
        cursor = found.collection.find_raw_batches(dict(found.filter), found.projection, **options)
        if found.ordered and first is not None:
            cursor = cursor.min([("_id", first)])
        if found.ordered and self._end is not None:
            cursor = cursor.max([("_id", self._end)])
        return cursor  # type: ignore[no-any-return,unused-ignore]

    def _behind(self, data: bytes) -> bytes:
        """Return the documents without a first one that was given before: the lower bound of an index is inclusive."""
        if self._after is None or not data or _identity(data, 0) != self._after:
            return data
        return data[int.from_bytes(data[:4], "little") :]


def raw_batches(readers: Sequence[Reader]) -> Iterator[Raw]:
    """Yield the batches of all readers as they come, each one batch ahead."""
    pool = ThreadPoolExecutor(len(readers), thread_name_prefix="etl-mongodb")
    under_way: dict[Future[Raw | None], Reader] = {}
    try:
        for reader in readers:
            under_way[pool.submit(reader.next)] = reader
        while under_way:
            for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                reader, raw = under_way.pop(done), done.result()
                if raw is not None:
                    under_way[pool.submit(reader.next)] = reader
                    yield raw
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for reader in readers:
            reader.close()


def ranges(found: Found, count: int, batch: int) -> list[Reader]:
    """Return readers of at most `count` ranges of `_id`, which together are everything."""
    pipeline: list[dict[str, Any]] = [{"$sample": {"size": _SPLIT_SAMPLE * count}}, {"$project": {"_id": 1}}]
    ids = []
    if count > 1 and found.ordered:
        with translated(found.where):
            ids = [d["_id"] for d in found.collection.aggregate([*pipeline, {"$sort": {"_id": 1}}])]
    step = max(1, len(ids) // count)
    bounds: list[Any] = []
    for identity in ids[step::step][: count - 1]:
        if not bounds or identity != bounds[-1]:  # a sample may hold a document twice
            bounds.append(identity)
    lower, upper = [None, *bounds], [*bounds, None]
    return [Reader(found, batch, first=first, end=end) for first, end in zip(lower, upper, strict=True)]


def sample(found: Found, half: int) -> bytes:
    """Return documents from both ends: what was written first, and what is written now."""
    ends: list[dict[str, Any]] = [{"limit": 2 * half}]
    if found.ordered:
        ends = [{"sort": [("_id", order)], "limit": half} for order in (1, -1)]
    with translated(found.where):
        parts = [found.collection.find_raw_batches(dict(found.filter), found.projection, **end) for end in ends]
        return b"".join(raw for part in parts for raw in part)


def as_of(found: Found, at: Timestamp | None) -> Found:
    """Return what is read as of a moment of the cluster's clock; None: what a majority has, document by document."""
    return replace(found, collection=found.collection.with_options(read_concern=_concern(at)))


def _concern(at: Timestamp | None) -> ReadConcern:
    from pymongo.read_concern import ReadConcern

    class AtTime(ReadConcern):
        """Sessions of pymongo keep a moment, too, but belong to one thread, and end with its cursor."""

        @property
        def document(self) -> dict[str, Any]:
            return {"level": "snapshot", "atClusterTime": at}

    return ReadConcern("majority") if at is None else AtTime("snapshot")


def moment(collection: Collection[Any]) -> tuple[Timestamp | None, datetime]:
    """Return now, by the cluster's clock of writes (None: the server is alone, and has none), and by the server's."""
    client = collection.database.client
    member = client.admin.command(
        "hello", read_preference=collection.read_preference, codec_options=client.codec_options
    )
    in_cluster = "setName" in member or member.get("msg") == "isdbgrid"
    return member.get("operationTime") if in_cluster else None, member["localTime"]


def _identity(data: bytes, start: int) -> bytes:
    import bson
    from bson.raw_bson import RawBSONDocument

    from etl_resources.sources.mongodb_values import codec

    size = int.from_bytes(data[start : start + 4], "little")
    raw = RawBSONDocument(data[start : start + size], codec().with_options(document_class=RawBSONDocument))
    return bson.encode({"_id": raw["_id"]}, codec_options=codec())


def _last_start(data: bytes) -> int:
    start = at = 0
    while at < len(data):
        start, at = at, at + int.from_bytes(data[at : at + 4], "little")
    return start
