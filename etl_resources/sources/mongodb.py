"""MongoDB collections as a source: whole, or what has changed since the last read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from etl_resources.changes.mongodb_settings import MongoLogCapture
from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.hints import nearest
from etl_resources.mongodb import MongoConnection
from etl_resources.source import (
    Batch,
    Capabilities,
    Estimate,
    Incremental,
    LogCapture,
    Position,
    Source,
    Stream,
    StreamOptions,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pymongo

    from etl_resources.change_log import ChangeLog, LogTable
    from etl_resources.sources.mongodb_batches import Converter
    from etl_resources.sources.mongodb_horizon import Horizon
    from etl_resources.sources.mongodb_read import Found, Raw

_MARK_ROWS, _CHEAP = 200_000, 2_000


class MongoStreamOptions(StreamOptions):
    """A collection, and how to read it."""

    type: Literal["mongodb"] = "mongodb"
    collection: str = Field(description="Name of the collection, view or time series.")
    filter: dict[str, Any] = Field(
        default_factory=dict, description="Only documents that match; as in a query, in extended JSON."
    )
    fields: tuple[str, ...] | None = Field(
        default=None, description="Only these fields, and `_id`; `a.b` is a field of an embedded document."
    )
    with_id: bool = Field(default=True, description="Whether `_id` is a column.")
    columns: dict[str, Any] = Field(
        default_factory=dict,
        description="Types of columns, where those found in the sample will not do: a type, [type] for an array,"
        " {name: type} for an embedded document.",
    )
    sample: int = Field(default=1000, ge=2, description="Documents looked at to find the types, old and new ones.")
    late_by: int = Field(
        default=300, ge=0,
        description="Incremental: how far to look back from the newest cursor (seconds, or steps of a number) for what"
        " is written late.",
    )  # fmt: skip
    consistency: Literal["snapshot", "majority"] = Field(
        default="snapshot", description="snapshot: as of one moment; majority: each document as it is when it is read."
    )
    parallel: int = Field(default=1, ge=1, le=32, description="Ranges of `_id` that are read side by side.")


@dataclass(frozen=True)
class _Read:
    """What is known about a read before its first document."""

    found: Found
    whole: Found
    """What is read without regard to window and capture."""
    options: MongoStreamOptions
    horizon: Horizon | None
    after: bytes | None
    now: datetime


class MongoSource(MongoConnection, Source):
    """Reads raw BSON as of one moment of the cluster's clock, and turns it into Arrow columns, in bounded memory.

    Streams carry no `_op` and no `_seq`: a collection tells neither what was done to a document, nor in which order.
    """

    options_type: ClassVar[type[StreamOptions]] = MongoStreamOptions
    capabilities = Capabilities(captures=frozenset({"snapshot", "incremental", "log"}), resumes=True, windows=True)
    log_type: ClassVar[type[LogCapture]] = MongoLogCapture

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the columns that a sample of documents shows, and those that are declared."""
        with self._begin(stream, None) as read:
            found = self._converter(stream, read, None).visible()
        if not isinstance(stream.capture, MongoLogCapture):
            return found
        from etl_resources.changes.mongodb_rows import shown

        return shown(found, stream.capture.id_column, self.address)

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the documents; a first incremental read carries positions in the middle, others only at the end.

        A snapshot of an empty collection is one batch without rows.

        Raises:
            ConfigurationError: the cursor or the window is of a type that has no order in time.
        """
        with self._begin(stream, since) as read:
            converter = self._converter(stream, read, since)
            yield from _batches(read, converter, batch_rows, keep_empty=not isinstance(stream.capture, Incremental))

    def change_log(self, pipeline: str, tables: Sequence[LogTable], capture: LogCapture) -> ChangeLog:  # noqa: ARG002
        """Return the change streams of the collections; nothing is set up that would need the pipeline's name."""
        from etl_resources.changes.mongodb import MongodbLog

        return MongodbLog(self, tables, capture)

    def latest(self, stream: Stream) -> Position | None:
        """Return the newest cursor and the number of documents; they change when something is written as a rule."""
        with self._begin(stream, None) as read:
            count = read.found.collection.estimated_document_count()
            high = read.horizon.high if read.horizon else None
        return {"documents": count, "high": high}

    def estimate(self, stream: Stream, since: Position | None) -> Estimate:
        """Return how many documents match; of an incremental read, with those of the look-back."""
        with self._begin(stream, since) as read:
            if not read.found.filter:
                return Estimate(read.found.collection.estimated_document_count())
            return Estimate(read.found.collection.count_documents(dict(read.found.filter)))

    @contextmanager
    def _begin(self, stream: Stream, since: Position | None) -> Iterator[_Read]:
        from etl_resources.mongodb_errors import translated

        where = f"stream {stream.name}, {self.address}"
        with self.client() as client, translated(where):
            yield self.resilience.call(self._plan, client, stream, since, where)

    def _plan(self, client: pymongo.MongoClient[Any], stream: Stream, since: Position | None, where: str) -> _Read:
        from etl_resources.mongodb_errors import translated
        from etl_resources.sources import mongodb_query, mongodb_read
        from etl_resources.sources.mongodb_values import codec

        options = _options(stream)
        with translated(where):
            plain = self._kind(client, options.collection, where) == "collection"
            collection = client[self.database].get_collection(options.collection, codec_options=codec())
            projection = dict.fromkeys(options.fields, 1) if options.fields is not None else None
            filter_ = mongodb_query.parsed(options.filter, where)
            found = mongodb_read.Found(collection, filter_, projection, plain, self.resilience, where)
            written, now = mongodb_read.moment(collection)
            found = mongodb_read.as_of(found, written if plain and options.consistency == "snapshot" else None)
            return _with_capture(_Read(found, found, options, None, None, now), stream, since)

    def _kind(self, client: pymongo.MongoClient[Any], name: str, where: str) -> str:
        """Return what the name stands for: collection, view, timeseries, or capped."""
        database = client[self.database]
        for found in database.list_collections(filter={"name": name}):
            return "capped" if found.get("options", {}).get("capped") else str(found["type"])
        known = database.list_collection_names()
        fix = nearest(name, known) or f"the database has {', '.join(sorted(known)[:10]) or 'no collections'}"
        raise NotFoundError(f"there is no collection {name}", where=where, fix=fix)

    def _converter(self, stream: Stream, read: _Read, since: Position | None) -> Converter:
        import pyarrow as pa

        from etl_resources.files import json_types
        from etl_resources.sources import mongodb_read
        from etl_resources.sources.mongodb_batches import Converter, sample_schema

        options = read.options
        kept = (since or {}).get("schema")
        if kept:
            declared = json_types.load_schema(options.columns)
            known = json_types.load_schema(kept)
            schema = pa.schema(list({f.name: f for f in [*known, *declared]}.values()))
        else:
            data = self.resilience.call(mongodb_read.sample, read.whole, options.sample // 2)
            schema = sample_schema(data, options.columns, read.found.where)
        self.resilience.call(_require, stream, read, schema)
        origin = f"{self.database}.{options.collection}"
        return Converter(schema, read.horizon, origin, with_id=options.with_id)


def _options(stream: Stream) -> MongoStreamOptions:
    if not isinstance(stream.options, MongoStreamOptions):
        raise ConfigurationError(f"stream {stream.name} is not a mongodb stream", where=str(stream.options))
    options = stream.options
    named = [stream.capture.cursor] if isinstance(stream.capture, Incremental) else []
    named += [stream.window.column] if stream.window else []
    for name in named if options.fields is not None else []:
        if not any(name == f or name.startswith(f"{f}.") for f in (*(options.fields or ()), "_id")):
            raise ConfigurationError(
                f"`fields` leaves out {name}, by which the stream is read", where=f"stream {stream.name}",
                fix=f"add {name} to `fields`",
            )  # fmt: skip
    return options


def _with_capture(read: _Read, stream: Stream, since: Position | None) -> _Read:
    """Return the read restricted to the window, or to what the capture asks for."""
    import base64

    from etl_resources.sources import mongodb_query
    from etl_resources.sources.mongodb_horizon import Horizon

    found = read.found
    if stream.window is not None:
        condition = mongodb_query.both(found.filter, mongodb_query.in_window(stream.window))
        return replace(read, found=replace(found, filter=condition, ordered=False))
    if not isinstance(stream.capture, Incremental):
        return read
    before = Horizon.load(since or {}, stream.capture.cursor, read.options.late_by, found.where)
    if since is not None and (after := since.get("after")) is not None:
        return replace(read, horizon=before.resumed(), after=base64.b64decode(after))
    # Asked for before anything is read: what is written meanwhile is newer, and comes with the next read.
    horizon = before.moved(found.collection, found.filter, read.now, found.where)
    if before.high is not None or before.seen:
        # Few documents, which an index on the cursor finds: not over all `_id`s, so not to be begun again half-way.
        found = replace(found, filter=mongodb_query.both(found.filter, before.condition()), ordered=False)
    return replace(read, found=found, horizon=horizon)


def _require(stream: Stream, read: _Read, schema: pa.Schema) -> None:
    """Make sure that the fields which are named are there."""
    from pyarrow import types

    window = stream.window.column if stream.window else None
    cursor = stream.capture.cursor if isinstance(stream.capture, Incremental) and not window else None
    for name in filter(None, [window, cursor, *(read.options.fields or ())]):
        top = name.partition(".")[0]
        if name not in schema.names:
            _find_field(read, name)
        if name == window and name in schema.names and not types.is_temporal(schema.field(top).type):
            raise ConfigurationError(
                f"field {name} is {schema.field(name).type}, and no date", where=read.found.where,
                fix="partition by a field that holds dates",
            )  # fmt: skip


def _find_field(read: _Read, name: str) -> None:
    from etl_resources.mongodb_errors import translated

    collection = read.found.collection
    with translated(read.found.where):
        some = collection.find_one({})
        if some is None or collection.find_one({name: {"$exists": True}}, {"_id": 1}) is not None:
            return
    raise NotFoundError(f"no document has a field {name}", where=read.found.where, fix=nearest(name, some))


def _batches(read: _Read, converter: Converter, batch_rows: int, *, keep_empty: bool) -> Iterator[Batch]:
    """Yield the documents, each batch held back until it is known whether it is the last."""
    from etl_resources.sources import mongodb_read

    if read.after is not None or read.options.parallel == 1:
        readers = [mongodb_read.Reader(read.found, batch_rows, after=read.after)]
    else:
        readers = mongodb_read.ranges(read.found, read.options.parallel, batch_rows)
    rows_read = marked = 0
    held: Batch | None = None
    for raw in mongodb_read.raw_batches(readers):
        for piece in converter.convert(raw.data, batch_rows):
            if not piece.records:
                continue
            if held is not None:
                yield held
            rows_read += piece.records
            held = Batch(piece.data, rows_read, unreadable=piece.unreadable)
        if held is not None and (mark := _mark(read, converter, raw, rows_read - marked, len(readers))) is not None:
            held, marked = replace(held, position=mark), rows_read
    if held is None and (keep_empty or read.after is not None):
        held = Batch(converter.empty(), 0)
    if held is not None:
        yield replace(held, position=_position(read, converter))


def _position(read: _Read, converter: Converter) -> dict[str, Any]:
    from etl_resources.files import json_types

    schema = {"schema": json_types.dump_schema(converter.schema)}
    return schema | (read.horizon.dump() if read.horizon is not None else {})


def _mark(read: _Read, converter: Converter, raw: Raw, rows: int, readers: int) -> dict[str, Any] | None:
    """Return where a first incremental read can be taken up again, unless that is dear to write and was done lately."""
    import base64

    if read.horizon is None or raw.last is None or readers > 1:
        return None
    if read.horizon.remembered > _CHEAP and rows < _MARK_ROWS:
        return None
    return _position(read, converter) | {"after": base64.b64encode(raw.last).decode()}


SOURCE = MongoSource
