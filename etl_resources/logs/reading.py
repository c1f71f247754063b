"""One read of a log stream: the files that were read before go on, then come the new ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from etl_resources.exceptions import ConfigurationError
from etl_resources.files import json_types
from etl_resources.files.align import common_schema
from etl_resources.files.assemble import Assembler
from etl_resources.files.chunks import Chunk
from etl_resources.files.compression import Limits
from etl_resources.files.csv_records import Block
from etl_resources.files.storage import Storage, is_uri
from etl_resources.logs.known import Mark, Marks, holds, is_being_copied, recognise
from etl_resources.logs.looking import Seen, opened
from etl_resources.logs.parsers import JsonParser, Parser, text_parser
from etl_resources.logs.tail import Ending, Part, Tail
from etl_resources.source import Batch, Estimate, Position, Snapshot, Stream

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.sources.log import LogOptions

_SAMPLE_BYTES = 8 << 20
_PROVENANCE = frozenset({"_batch", "_row", "_read_at", "_op", "_seq", "_origin"})


@dataclass
class Reading:
    """Reads the files of one stream, once."""

    stream: Stream
    options: LogOptions
    storage: Storage
    marks: Marks = field(default_factory=Marks)

    def batches(self, seen: list[Seen], since: Position | None, batch_rows: int) -> Iterator[Batch]:
        """Yield what came since `since`."""
        window = self.stream.window
        fresh = window is not None or isinstance(self.stream.capture, Snapshot)
        self.marks = Marks.load(None if fresh else since)
        known = recognise(seen, self.marks, self.storage, limits_of(self.options))
        if all(s.id in known and known[s.id].unchanged(s) for s in seen):
            return
        parser = make_parser(self.options, seen, self.storage, since)
        assembler = Assembler(batch_rows)

        def position() -> Position | None:
            return self.marks.dump() | parser.position() if window is None else since

        try:
            for origin, part, chunk in self._chunks(seen, known, parser):
                refuse_provenance(chunk, origin)
                yield from assembler.add(self._in_window(chunk, origin), origin)
                self._mark(known, part.mark)
                assembler.file_ends(position)
            yield from assembler.flush()
        finally:
            parser.close()

    def _in_window(self, chunk: Chunk, origin: str) -> Chunk:
        from etl_resources.files.window import restrict

        return chunk if self.stream.window is None else restrict(chunk, self.stream.window, origin)

    def _chunks(self, seen: list[Seen], known: dict[str, Mark], parser: Parser) -> Iterator[tuple[str, Part, Chunk]]:
        """Yield the records of every part of a file, with its path; the caller marks the part as read."""
        # A copy can only be told from a log of its own when the file that it was made of has been read to its end.
        for one in sorted(seen, key=lambda s: (s.id not in known, s.modified_ns, s.path)):
            mark = known.get(one.id) or self._copied(one, seen, known)
            if mark is not None and mark.unchanged(one):
                continue
            current = self._current(mark)
            with opened(one, self.storage, limits_of(self.options)) as stream:
                if stream is None:
                    continue
                at = replace(current or Mark("", ""), path=one.path, id=one.id)
                live = not (one.compressed or is_uri(one.path))
                tail = Tail(stream, at, parser.start, self.options.max_record_bytes, live=live, whole=one.compressed)
                written = datetime.fromtimestamp(one.modified_ns / 1e9, UTC)
                parts = tail.parts(self._ending(one, mark, seen), None if one.compressed else one.size)
                # Closed before the file is: a thread reads ahead in it.
                with closing(parser.chunks(parts, written)) as chunks:
                    for part, chunk in chunks:
                        yield one.path, part, chunk
                self._read_to_end(one, tail, known)

    def _current(self, mark: Mark | None) -> Mark | None:
        return next((m for m in self.marks.all if mark is not None and m.id == mark.id), mark)

    def _copied(self, one: Seen, seen: list[Seen], known: dict[str, Mark]) -> Mark | None:
        """Return the mark of a new file that is a copy of one that was read, and is still there."""
        by_id = {s.id: s for s in seen}
        if one.path == one.log:
            return None
        for mark in [m for m in self.marks.all if m.id in by_id and by_id[m.id].log == one.log and m.id != one.id]:
            limits, origin = limits_of(self.options), by_id[mark.id]
            if holds(one, mark, self.storage, limits):
                found = replace(mark, path=one.path, id=one.id, size=-1)
                known[one.id] = found
                return self.marks.put(None, found)
            if is_being_copied(one, origin, self.storage, limits):
                return replace(mark, id=one.id, size=one.size, modified_ns=one.modified_ns)  # looked at by the next run
        return None

    def _ending(self, one: Seen, mark: Mark | None, seen: list[Seen]) -> Ending:
        """Return what may be taken of the end: nothing that is still being written."""
        if one.compressed or is_uri(one.path):
            return Ending(last_entry=True, unfinished_line=True)
        idle = time.time() - one.modified_ns / 1e9 >= self.options.final_after
        newer = any(s.log == one.log and s.path != one.path and s.modified_ns >= one.modified_ns for s in seen)
        moved = one.path != one.log or (mark is not None and mark.path != one.path)
        return Ending(last_entry=idle, unfinished_line=idle and moved and newer)

    def _read_to_end(self, one: Seen, tail: Tail, known: dict[str, Mark]) -> None:
        """Note that nothing is left of a file, so that it is not opened again as long as nothing is written to it."""
        if tail.mark.offset and (one.compressed or tail.mark.offset == one.size):
            self._mark(known, replace(tail.mark, size=one.size, modified_ns=one.modified_ns))

    def _mark(self, known: dict[str, Mark], mark: Mark) -> None:
        old = next((m for m in self.marks.all if m.id == mark.id), None)
        known[mark.id] = self.marks.put(old, replace(mark, seen=int(time.time())))


def limits_of(options: LogOptions) -> Limits:
    """Return how far a compressed file may expand."""
    return Limits(options.max_expanded_bytes, options.max_expansion)


def make_parser(options: LogOptions, seen: list[Seen], storage: Storage, since: Position | None) -> Parser:
    """Return the parser of a stream; of JSON one whose types are declared, landed before, or found by a first look."""
    import pyarrow as pa

    if options.format != "json":
        return text_parser(options)
    from etl_resources.files.json_format import JsonReader, initial_schema
    from etl_resources.files.json_parse import JsonSettings
    from etl_resources.files.json_sample import sample_schema

    declared = pa.schema([(n, json_types.parse_type(kind, n)) for n, kind in options.columns.items()])
    landed = json_types.load_schema((since or {}).get("schema", {}))
    known = pa.schema(list({f.name: f for f in [*landed, *declared]}.values()))
    settings = JsonSettings(lines=True, encoding=options.encoding, max_record_bytes=options.max_record_bytes)
    budget, found = _SAMPLE_BYTES, pa.schema([])
    for one in seen:
        with opened(one, storage, limits_of(options)) as stream:
            if stream is None or budget <= 0:
                continue
            sampled, used = sample_schema(stream, one.path, settings, budget)
        budget, found = budget - used, json_types.union_schema(found, sampled)
    return JsonParser(JsonReader(initial_schema(known, found)), options.encoding, options.max_record_bytes)


def schema_of(options: LogOptions, seen: list[Seen], storage: Storage) -> pa.Schema:
    """Return the columns that a first look at the files shows."""
    parser = make_parser(options, seen, storage, None)
    schema, budget = parser.schema(), _SAMPLE_BYTES
    try:
        for one in seen if options.format == "logfmt" else []:
            with opened(one, storage, limits_of(options)) as stream:
                data = b"" if stream is None else stream.read(min(budget, 1 << 20))
            data = data[: data.rfind(b"\n") + 1]
            part = Part(Block(data, 1, 0), Mark(one.path, one.id))
            for _, chunk in parser.chunks(iter([part]), datetime.now(UTC)):
                schema = common_schema(schema, chunk.data.schema, one.path) if chunk.data is not None else schema
            budget -= len(data)
    finally:
        parser.close()
    return schema


def unread(options: LogOptions, seen: list[Seen], storage: Storage, since: Position | None) -> Estimate:
    """Return names and size of the files that hold something new."""
    known = recognise(seen, Marks.load(since), storage, limits_of(options))
    new = [s for s in seen if s.id not in known or not known[s.id].unchanged(s)]
    left = [s.size - (known[s.id].offset if s.id in known and not s.compressed else 0) for s in new]
    return Estimate(None, sum(left), tuple(s.path for s in new))


def refuse_provenance(chunk: Chunk, origin: str) -> None:
    """Raise ConfigurationError if a column has a name that is kept for where a record comes from."""
    if chunk.data is not None and (taken := _PROVENANCE.intersection(chunk.data.column_names)):
        raise ConfigurationError(
            f"{origin} has a field {', '.join(sorted(taken))}, a name that is kept for provenance", where=origin,
            fix="have it renamed where it is written",
        )  # fmt: skip
