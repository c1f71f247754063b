"""The format of Server-Sent Events (WHATWG HTML, section 9.2), from bytes in pieces of any size, in bounded memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BREAK = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is the last event id as of it, None if it came without one."""

    data: bytes
    id: str | None
    type: str | None
    problem: str | None = None
    """Why the data are not all there."""


class EventParser:
    """Finds events; `retry` is the last reconnection time that was sent, in seconds."""

    def __init__(self, max_bytes: int) -> None:
        self.retry: float | None = None
        self._max = max_bytes
        self._pieces: list[bytes] = []  # of a line that has not ended
        self._held = 0
        self._cut = False  # the line was too long and is not kept
        self._after_return = False
        self._first = True
        self._begin()

    def _begin(self) -> None:
        self._data: list[bytes] = []
        self._size = 0
        self._type: str | None = None
        self._too_long = False

    _id: str | None = None

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that are complete with this piece."""
        if self._after_return and piece.startswith(b"\n"):
            piece = piece[1:]
            self._after_return = False
        if not piece:
            return []
        self._after_return = piece.endswith(b"\r")
        *lines, rest = _BREAK.split(piece)
        events = []
        for line in lines:
            self._hold(line)
            if (event := self._line(b"".join(self._pieces))) is not None:
                events.append(event)
            self._pieces, self._held, self._cut = [], 0, False
        self._hold(rest)
        return events

    def _hold(self, part: bytes) -> None:
        self._held += len(part)
        if self._held > self._max + 64:  # longer than any field may be
            self._cut = True
            part = part[: max(0, 64 - sum(map(len, self._pieces[:1])))]
        if part and (not self._cut or not self._pieces):
            self._pieces.append(part)

    def _line(self, line: bytes) -> Event | None:
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._take(value)
        elif name == b"event":
            self._type = value.decode(errors="replace") or None
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit() and len(value) < 12:
            self.retry = int(value) / 1000
        return None

    def _take(self, value: bytes) -> None:
        self._size += len(value) + 1
        self._too_long = self._too_long or self._cut or self._size - 1 > self._max
        if not self._too_long:
            self._data.append(value)

    def _dispatch(self) -> Event | None:
        event = None
        if self._size or self._too_long:
            problem = f"longer than {self._max:,} bytes (max_message_bytes)" if self._too_long else None
            event = Event(b"\n".join(self._data), self._id, self._type, problem)
            self._id = None
        self._begin()
        return event
