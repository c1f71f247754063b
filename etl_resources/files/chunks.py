"""What the parser of every format hands on, and how blocks of a file are parsed side by side in their order."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, TypeVar, cast

from etl_resources.read_ahead import read_ahead
from etl_resources.source import unreadable_schema

if TYPE_CHECKING:
    import codecs

    import pyarrow as pa

BLOCK_BYTES = 2 << 20
BOM = b"\xef\xbb\xbf"
_AHEAD = 8
"""As many blocks as a row group takes to be written, about."""
_B = TypeVar("_B")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that could not be parsed: why, its bytes as they came, and its first line (1-based)."""

    reason: str
    raw: bytes
    line: int


@dataclass(slots=True)
class Chunk:
    """Some records of one file, in order. `records` counts them apart from the parser, unreadable ones included."""

    data: pa.Table | None
    records: int
    unreadable: list[Unreadable] = field(default_factory=list)


def unreadable_batch(records: Iterable[tuple[str, Unreadable]]) -> pa.RecordBatch:
    """Return (origin, record) pairs in `unreadable_schema()`."""
    import pyarrow as pa

    rows = [{"reason": u.reason, "raw": u.raw, "origin": origin, "line": u.line} for origin, u in records]
    return pa.RecordBatch.from_pylist(rows, schema=unreadable_schema())


def blocks_of(stream: IO[bytes], encoding: str, origin: str, *, units: int = 1) -> Iterator[bytes]:
    """Yield a stream in blocks of UTF-8 without byte order mark, whatever its encoding; `units` times the usual size.

    What the encoding cannot decode becomes bytes that are not valid UTF-8, so that the record that holds it is found
    to be unreadable later; nothing is replaced.
    """
    import codecs

    plain = codecs.lookup(encoding).name in {"utf-8", "ascii"}
    lenient = "surrogatepass" if codecs.lookup(encoding).name.startswith("utf") else "surrogateescape"
    decoder = None if plain else codecs.getincrementaldecoder(encoding)(lenient)
    first = True
    while True:
        block = stream.read(units * BLOCK_BYTES)
        text = block if decoder is None else _decode(decoder, block, origin)
        if first and text:
            text, first = text.removeprefix(BOM), False
        if text:
            yield text
        if not block:
            return


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, origin: str) -> bytes:
    from etl_resources.exceptions import UnavailableError

    try:
        return decoder.decode(block, final=not block).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise UnavailableError(
            f"{origin} ends or breaks in the middle of a character: {error.reason}", where=origin,
            fix="check the option `encoding`, and that the file is complete",
        ) from None  # fmt: skip


def raw_bytes(record: bytes, encoding: str) -> bytes:
    """Return the bytes of a record as they were in the file, before `blocks_of` made UTF-8 of them."""
    import codecs

    name = codecs.lookup(encoding).name
    if name in {"utf-8", "utf-8-sig", "ascii"}:
        return record
    if name == "utf-16":
        name = "utf-16-le"  # without another byte order mark
    return record.decode("utf-8", "surrogatepass").encode(
        name, "surrogatepass" if name.startswith("utf") else "surrogateescape"
    )


def map_in_order(function: Callable[[_B], _R], blocks: Iterable[_B]) -> Generator[_R]:
    """Yield `function(block)` for every block, in order, computed on a few threads with a bounded number ahead.

    The blocks are made in a thread, too, so that all goes on while the consumer is busy, e.g. with writing.
    """
    rest = iter(blocks)
    first = list(islice(rest, 2))
    if len(first) < 2:  # threads would cost more than they save
        yield from map(function, first)
        return
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="parse")
    submitted = (pool.submit(function, block) for block in chain(first, rest))
    try:
        with closing(cast("Generator[Future[_R]]", read_ahead(submitted, _AHEAD))) as futures:
            for future in futures:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
