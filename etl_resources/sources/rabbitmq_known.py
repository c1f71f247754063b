"""Which messages have been committed and may be delivered again, so that they are recognised when they are.

A queue delivers again what was not acknowledged. A kill between commit and acknowledgement leaves such messages, so the
position that is committed with them names them by a digest. It is kept until the server has taken note of the
acknowledgement; what an earlier run left, for ten minutes: that long a server may hold on to the consumer of a machine
that vanished, and deliver its messages again only afterwards.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

from etl_resources.sources.rabbitmq_consumer import Delivery

Identity = Literal["message_id", "body"]
_DIGEST = 10
_REMEMBERED_SECONDS = 600.0
_REMEMBERED = 200_000


def digest_of(delivery: Delivery, identity: Identity) -> bytes | None:
    """Return what tells a message from all others; None: nothing does.

    Of two messages with the same id but another body neither is the other delivered again.
    """
    name = delivery.properties.message_id
    if name is None and identity == "message_id":
        return None
    digest = blake2b((name or "").encode(), digest_size=_DIGEST)
    digest.update(b"\0" if name is not None else b"\1")
    digest.update(delivery.body)
    return digest.digest()


@dataclass
class _Generation:
    at: float
    digests: set[bytes]


class Known:
    """Digests of messages that were handed on: in the open micro-batch, or committed and not acknowledged for sure."""

    def __init__(self, dumped: Any = (), clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._committed = [_load(generation) for generation in dumped]
        self._inherited = {id(generation) for generation in self._committed}
        self._ids: set[bytes] = set().union(*(g.digests for g in self._committed))
        self._open: set[bytes] = set()
        self._pending: set[bytes] = set()  # what the next acknowledgement on this connection covers

    def seen(self, digest: bytes | None) -> bool:
        """Tell whether this message was handed on before; from now on it was."""
        if digest is None:
            return False
        known = digest in self._ids or digest in self._open
        # One that comes again is in the next position as well: it is still not acknowledged.
        self._open.add(digest)
        self._pending.add(digest)
        return known

    def commit(self) -> list[dict[str, Any]]:
        """Close the micro-batch, and return what a position keeps."""
        now = self._clock()
        if self._open:
            self._committed.append(_Generation(now, set(self._open)))
            self._ids |= self._open
            self._open.clear()
        # In memory they stay as long as the run: it costs nothing more.
        young = [g for g in self._committed if id(g) not in self._inherited or now - g.at < _REMEMBERED_SECONDS]
        return [_dump(g) for g in self._newest(young)]

    def confirmed(self) -> None:
        """What was handed on over this connection is acknowledged, and will not come again."""
        self._ids -= self._pending
        for generation in self._committed:
            generation.digests -= self._pending
        self._committed = [g for g in self._committed if g.digests]
        self._pending.clear()

    def disconnected(self) -> None:
        """What was not acknowledged over this connection never will be: it is delivered again over the next."""
        self._pending.clear()

    @staticmethod
    def _newest(generations: list[_Generation]) -> list[_Generation]:
        """Return the generations that a position has room for; the newest one in any case."""
        kept: list[_Generation] = []
        for generation in reversed(generations):
            if kept and sum(len(g.digests) for g in [*kept, generation]) > _REMEMBERED:
                break
            kept.append(generation)
        return kept[::-1]


def _dump(generation: _Generation) -> dict[str, Any]:
    packed = b"".join(sorted(generation.digests))
    return {"at": round(generation.at, 3), "digests": base64.b64encode(packed).decode()}


def _load(dumped: Mapping[str, Any]) -> _Generation:
    packed = base64.b64decode(dumped["digests"])
    digests = {packed[n : n + _DIGEST] for n in range(0, len(packed), _DIGEST)}
    return _Generation(float(dumped["at"]), digests)
