"""Whole entries of one log file, from where reading stopped to its end: nothing that is still being written."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from etl_resources.files.chunks import Unreadable
from etl_resources.files.csv_records import Block, Dialect, count_records, record_ends
from etl_resources.logs.entries import last_start
from etl_resources.logs.known import TAIL_BYTES, Mark, digest, read_up_to
from etl_resources.logs.looking import HEAD_BYTES

_LINES = Dialect(quote=None)
BLOCK_BYTES = 4 << 20
_KEPT = 64 << 10
"""Of a line that is too long, so many bytes are kept."""


@dataclass(frozen=True, slots=True)
class Part:
    """Whole lines of a file, or one that is too long; and the mark behind them."""

    piece: Block | Unreadable
    mark: Mark


@dataclass(frozen=True, slots=True)
class Ending:
    """What may be taken of the end of a file."""

    last_entry: bool
    """The last entry, though lines that continue it might follow."""
    unfinished_line: bool
    """The last line, though it has no end."""


class Tail:
    """Reads on in a text whose mark is `mark`.

    `start` tells a line that begins an entry, None: every line does. `live`: it may be written to at the same time.
    `whole`: it can only be read from its beginning, as it is compressed.
    """

    def __init__(
        self, stream: IO[bytes], mark: Mark, start: str | None, max_record_bytes: int, *, live: bool, whole: bool
    ) -> None:
        self._stream, self._start, self._limit = stream, start, max_record_bytes
        self._head = b""
        """The first bytes, which must not change while the file is read; empty: nobody writes to it."""
        self.mark = mark
        self._live, self._whole = live, whole
        self._begin()

    def _begin(self) -> None:
        """Go to the mark, reading what has to be read again on the way."""
        self._head = read_up_to(self._stream, HEAD_BYTES)
        if self._whole:  # a compressed text can only be read from its beginning
            before = self._head[: self.mark.offset]
            self._pending = self._head[self.mark.offset :]
            left = self.mark.offset - len(before)
            while left:
                block = self._stream.read(min(left, BLOCK_BYTES))
                if not block:
                    break
                before, left = (before + block)[-TAIL_BYTES:], left - len(block)
            self._last = before[-TAIL_BYTES:]
            return
        first = max(0, self.mark.offset - TAIL_BYTES)
        self._stream.seek(first)
        self._last = read_up_to(self._stream, self.mark.offset - first)
        self._pending = b""

    def parts(self, ending: Ending, size: int | None) -> Iterator[Part]:
        """Yield what there is up to `size` bytes of text (None: to the end), with the mark behind each part.

        It stops where the file is truncated meanwhile; the rest is looked for in what the file was copied to.
        """
        data, at = self._pending, self.mark.offset + len(self._pending)
        while True:
            room = BLOCK_BYTES if size is None else min(BLOCK_BYTES, size - at)
            block = self._stream.read(room) if room > 0 else b""
            if not self._same_text():
                return
            at, data = at + len(block), data + block
            stop = data.rfind(b"\n") + 1
            if self._start is not None and (block or not ending.last_entry):
                stop = last_start(data[:stop], self._start)
            if stop:
                yield self._part(data[:stop])
                data = data[stop:]
            if not block:
                break
            if len(data) > self._limit:
                if (found := self._skip(data, size, at)) is None:
                    return
                part, data, at = found
                yield part
        if data and ending.unfinished_line:
            yield self._part(data)

    def _part(self, data: bytes) -> Part:
        """Return whole lines (the last one perhaps without its end) as a part."""
        line = self.mark.line + 1
        whole = data if data.endswith(b"\n") else data + b"\n"
        ends, _ = record_ends(whole, _LINES)
        self._advance(data, len(ends))
        return Part(Block(whole, line, count_records(whole, ends, _LINES)), self.mark)

    def _skip(self, data: bytes, size: int | None, at: int) -> tuple[Part, bytes, int] | None:
        """Return an entry that is too long as unreadable, what was read behind it, and up to where; None: no end."""
        raw, line, before = data[:_KEPT], self.mark.line + 1, self.mark
        newline = data.rfind(b"\n")
        while newline < 0:
            self._advance(data, 0)
            room = BLOCK_BYTES if size is None else min(BLOCK_BYTES, size - at)
            data = self._stream.read(room) if room > 0 else b""
            at += len(data)
            if not data or not self._same_text():
                self.mark = before  # the line is not complete yet, and will be read from its beginning again
                return None
            newline = data.find(b"\n")
        self._advance(data[: newline + 1], data.count(b"\n", 0, newline + 1))
        reason = f"record too long: more than {self._limit:,} bytes, of which the first {_KEPT:,} are kept"
        return Part(Unreadable(reason, raw, line), self.mark), data[newline + 1 :], at

    def _advance(self, data: bytes, lines: int) -> None:
        mark, self._last = self.mark, (self._last + data[-TAIL_BYTES:])[-TAIL_BYTES:]
        offset = mark.offset + len(data)
        self.mark = replace(
            mark, offset=offset, line=mark.line + lines, checksum=zlib.crc32(data, mark.checksum),
            head=digest(self._head[:offset]), tail=digest(self._last), size=-1,
        )  # fmt: skip

    def _same_text(self) -> bool:
        """Tell whether what was read last was still the same text: it begins as it did when it was opened."""
        if not self._live:
            return True
        here = self._stream.tell()
        self._stream.seek(0)
        head = read_up_to(self._stream, len(self._head))
        self._stream.seek(here)
        return head == self._head
