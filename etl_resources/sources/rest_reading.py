"""From pages to batches with positions: what the sources `rest` and `graphql` have in common."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.files.chunks import Chunk, Unreadable, unreadable_batch
from etl_resources.read_ahead import read_ahead
from etl_resources.source import Batch, Position, Snapshot, Stream
from etl_resources.sources.rest_listing import Listing, ListingChangedError, Step, Tally, dump_tally, tally_of

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.rest_cursor import Boundary
    from etl_resources.sources.rest_records import Records

_GROUP_BYTES = 8 << 20
_PROVENANCE = frozenset({"_batch", "_row", "_read_at", "_op", "_seq", "_origin"})


@dataclass(frozen=True)
class Plan:
    """How a stream is read. `listing` makes the listing from the cursor to ask from, as the API writes it."""

    listing: Callable[[str | None], Listing]
    records: Records
    boundary: Boundary | None
    commit_pages: int
    pages_ahead: int
    """Pages fetched while earlier ones are parsed; 0: fetched when they are asked for."""
    where: str


def read(plan: Plan, stream: Stream, since: Position | None, batch_rows: int) -> Generator[Batch, None, None]:
    """Yield the records of a stream. Every batch carries a position, but in a snapshot and a window.

    Raises:
        ListingChangedError: the listing changed while it was read. The position is then behind a batch without records,
            and the next read begins the listing anew.
    """
    yield from _Read(plan, stream, since or {}, batch_rows).batches()


@dataclass
class _Read:
    plan: Plan
    stream: Stream
    position: Mapping[str, Any]
    batch_rows: int
    rows_read: int = 0
    repeated: int = 0
    given: bool = False
    """Whether a batch has been given, or an earlier read has left this one unfinished."""
    committed_pages: int = 0
    since: str | None = None
    pages: int = 0

    def batches(self) -> Iterator[Batch]:
        reading = self.position.get("reading") if self._resumes else None
        boundary = self.plan.boundary
        if reading is not None:
            self.since, self.given = reading["since"], True
            if boundary is not None:
                boundary.go_on(reading)
        elif boundary is not None:
            self.since = boundary.asked_from()
        listing = self.plan.listing(self.since)
        state, tally = (reading["state"], tally_of(reading["tally"])) if reading else ({}, Tally())
        try:
            for group in self._groups(read_ahead(listing.steps(state, tally), self.plan.pages_ahead)):
                yield from self._batches_of(group)
        except (ListingChangedError, NotFoundError, ConfigurationError) as error:
            stale = isinstance(error, ListingChangedError) or self.pages == 0
            if self._resumes and self.given and stale:
                yield self._begin_anew()
            raise

    @property
    def _resumes(self) -> bool:
        return self.stream.window is None and not isinstance(self.stream.capture, Snapshot)

    def _groups(self, steps: Iterator[Step]) -> Iterator[list[Step]]:
        """Yield as many pages together as make up a batch."""
        group: list[Step] = []
        records = size = 0
        for step in steps:
            self.pages += 1
            group.append(step)
            records, size = records + step.page.objects, size + len(step.page.records)
            full = records >= self.batch_rows or size >= _GROUP_BYTES
            if full or self.pages - self.committed_pages >= self.plan.commit_pages or step.following is None:
                yield group
                group, records, size = [], 0, 0

    def _batches_of(self, group: list[Step]) -> Iterator[Batch]:
        parsed = self.plan.records.parse([step.page for step in group])
        chunk = Chunk(parsed.table, parsed.count, [u for _, u in parsed.unreadable])
        _refuse_provenance(parsed.table.schema, self.plan.where)
        origins = [origin for origin, _ in parsed.unreadable]
        if self.stream.window is not None:
            from etl_resources.files.window import restrict

            chunk = restrict(chunk, self.stream.window, self.plan.where)
            origins += [self.plan.where] * (len(chunk.unreadable) - len(origins))
        table = came = cast("pa.Table", chunk.data)
        if self.plan.boundary is not None:
            table = self.plan.boundary.sift(came)
            self.repeated += came.num_rows - table.num_rows
        position = self._position(group[-1])
        yield from self._sliced(
            table, chunk.records, list(zip(origins, chunk.unreadable, strict=True)), group[-1], position
        )

    def _sliced(
        self,
        table: pa.Table,
        count: int,
        unreadable: list[tuple[str, Unreadable]],
        last: Step,
        position: Position | None,
    ) -> Iterator[Batch]:
        base, rows = self.rows_read, table.num_rows
        self.rows_read += count
        ends = last.following is None
        # A snapshot of nothing is known to be empty; an incremental read that finds nothing new says nothing.
        closes = ends and (self.given or self.plan.boundary is None)
        if not (rows or unreadable or closes):
            return
        self.given = True
        # A group is as large as a batch, and a page more; only an answer that is huge by itself is cut.
        start = 0
        while rows - start > 2 * self.batch_rows:
            yield Batch(_one(table.slice(start, self.batch_rows)), base + start + self.batch_rows)
            start += self.batch_rows
        commit = position is not None and self.pages - self.committed_pages >= self.plan.commit_pages and not ends
        if commit:
            self.committed_pages = self.pages
        repeated, self.repeated = self.repeated, 0
        yield Batch(
            _one(table.slice(start)), self.rows_read, position, unreadable_batch(unreadable) if unreadable else None,
            repeated, commit=commit,
        )  # fmt: skip

    def _position(self, last: Step) -> Position | None:
        boundary, schema = self.plan.boundary, {"schema": self.plan.records.dump()}
        if self.stream.window is not None:
            return None
        if last.following is None:
            return schema | (boundary.dump() if boundary is not None else {})
        if not self._resumes:
            return None
        reading = {"since": self.since, "state": dict(last.following), "tally": dump_tally(last.tally)}
        return {**self.position, **schema, "reading": reading | (boundary.found() if boundary is not None else {})}

    def _begin_anew(self) -> Batch:
        import pyarrow as pa

        before = {name: value for name, value in self.position.items() if name != "reading"}
        schema = self.plan.records.schema
        empty = pa.RecordBatch.from_pylist([], schema=schema)
        position = {**before, "schema": self.plan.records.dump()}
        return Batch(empty, self.rows_read, position, repeated=self.repeated, commit=True)


def _one(table: pa.Table) -> pa.RecordBatch:
    import pyarrow as pa

    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _refuse_provenance(schema: pa.Schema, where: str) -> None:
    if taken := _PROVENANCE.intersection(schema.names):
        raise ConfigurationError(
            f"the records have a field {', '.join(sorted(taken))}, a name that is kept for provenance", where=where,
            fix="leave it out, if the API can be asked for certain fields only",
        )  # fmt: skip
