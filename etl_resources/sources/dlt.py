"""Source `dlt`: any source or resource of the library dlt as a stream, with its state in bronze's own commit."""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.extras import client
from etl_resources.secret import Secret
from etl_resources.source import Batch, Capabilities, Position, Snapshot, Source, Stream, StreamOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.messages_json import JsonDecoder

_SAMPLE_ITEMS = 1_000


class DltOptions(StreamOptions):
    """What is written under `source: {type: dlt, ...}`."""

    type: Literal["dlt"] = "dlt"
    resource: str = Field(
        pattern=r"^[\w.]+:\w+$",
        description="`module:name` of a dlt source or resource, or of a function that gives one.",
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="Arguments of the function.")
    secrets: dict[str, Secret] = Field(default_factory=dict, description="Secret arguments: `name: {env: VARIABLE}`.")
    select: str | None = Field(default=None, description="Which resource, where a source has several.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Types of columns, where those found in the first items will not do."
    )


class DltSource(Source):
    """Runs the extraction of a dlt resource; what dlt does behind it (normalising, loading) is not used.

    The state that the resource keeps, that of `dlt.sources.incremental` included, is the position. A resource may
    move its state before it gives the items, so only the end of a read can be resumed.
    """

    options_type: ClassVar[type[StreamOptions]] = DltOptions
    capabilities: ClassVar[Capabilities] = Capabilities(captures=frozenset({"snapshot"}))

    def read_schema(self, stream: Stream) -> pa.Schema:
        """Return the columns of the first items; a resource does not say before what it is going to give."""
        import pyarrow as pa

        batches = self._read(stream, None, _SAMPLE_ITEMS)
        try:
            first = next(batches, None)
        finally:
            batches.close()
        return first.data.schema if first is not None else pa.schema([])

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 131_072) -> Iterator[Batch]:
        """Yield the items of one extraction; only the last batch carries a position, the resource's state.

        Raises:
            ConfigurationError: there is no such module or resource, or dlt lacks a setting that it needs.
            UnavailableError, CredentialsRejectedError, NotFoundError: what the resource raised means that.
            EngineError: the resource raised anything else.
        """
        yield from self._read(stream, since, batch_rows)

    def _read(self, stream: Stream, since: Position | None, batch_rows: int) -> Generator[Batch, None, None]:
        from etl_resources.messages import RESERVED
        from etl_resources.messages_json import JsonDecoder

        options = _options(stream)
        os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
        json = client("dlt.common.json", extra="dlt").json
        kept = None if isinstance(stream.capture, Snapshot) else since
        state = json.typed_loads(kept["state"]) if kept else {}
        decoder = JsonDecoder(options.columns, (since or {}).get("payload", {}), RESERVED)
        rows_read, held = 0, None
        for items in _chunks(_items(options, state), batch_rows):
            rows_read += len(items)
            data, unreadable = _columns(items, decoder, json, options.resource)
            if held is not None:
                yield held
            held = Batch(data, rows_read, unreadable=unreadable)
        if held is not None:
            position = {"state": json.typed_dumps(state), "payload": decoder.dump()}
            yield Batch(held.data, held.rows_read, position, held.unreadable)


def _options(stream: Stream) -> DltOptions:
    if not isinstance(stream.options, DltOptions):
        raise ConfigurationError(f"stream {stream.name} is not a dlt stream", where=str(stream.options))
    return stream.options


def _items(options: DltOptions, state: dict[str, Any]) -> Generator[Any, None, None]:
    """Yield what the resource gives; it reads and writes `state`."""
    from dlt.common.configuration.container import Container
    from dlt.common.pipeline import StateInjectableContext

    from etl_resources.sources.dlt_errors import translated

    with Container().injectable_context(StateInjectableContext(state=state)):  # type: ignore[arg-type]
        with translated(options.resource):
            items = iter(_resource(options))
        while True:
            with translated(options.resource):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


def _resource(options: DltOptions) -> Any:
    """Return the resource that the options name, bound to its arguments."""
    dlt = client("dlt", extra="dlt")
    module, _, name = options.resource.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise NotFoundError(f"there is no module {module}", where=options.resource, fix="check `resource`") from error
    except AttributeError as error:
        raise NotFoundError(f"{module} has no {name}", where=options.resource, fix="check `resource`") from error
    arguments = {**options.arguments, **{key: secret.reveal() for key, secret in options.secrets.items()}}
    made = found(**arguments) if arguments or not isinstance(found, dlt.sources.DltResource) else found
    if isinstance(made, dlt.sources.DltResource):
        return made
    if not isinstance(made, dlt.sources.DltSource):
        raise ConfigurationError(f"{options.resource} gives a {type(made).__name__}, not a dlt source or resource")
    names = list(made.resources)
    chosen = options.select or (names[0] if len(names) == 1 else "")
    if chosen not in names:
        raise NotFoundError(
            f"{options.resource} has no resource {chosen!r}", where=options.resource,
            fix=f"`select` one of {', '.join(names)}",
        )  # fmt: skip
    return made.resources[chosen]


def _chunks(items: Generator[Any, None, None], rows: int) -> Iterator[Any]:
    """Yield lists of up to `rows` objects, and Arrow record batches as they come."""
    import pyarrow as pa

    gathered: list[Any] = []
    with _closing(items):
        for item in items:
            if isinstance(item, pa.Table | pa.RecordBatch):
                if gathered:
                    yield gathered
                    gathered = []
                yield from item.to_batches(max_chunksize=rows) if isinstance(item, pa.Table) else [item]
                continue
            gathered.append(item)
            if len(gathered) >= rows:
                yield gathered
                gathered = []
    if gathered:
        yield gathered


@contextmanager
def _closing(items: Generator[Any, None, None]) -> Iterator[None]:
    try:
        yield
    finally:
        items.close()


def _columns(items: Any, decoder: JsonDecoder, json: Any, origin: str) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """Return records and unreadable records: dlt's own JSON of an object, typed as that of any source."""
    import pyarrow as pa

    if isinstance(items, pa.RecordBatch):
        return items, None
    bodies = [json.dumpb(item) for item in items]
    return decoder.decode(bodies).beside({}, bodies, pa.array([origin] * len(bodies), pa.string()))


SOURCE = DltSource
