"""Which messages are in the lake and may come again, by a digest of their ids."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

_DIGEST = 8
_LONGEST_LIFE = 14 * 86_400.0
"""Seconds that SQS keeps a message at most."""
_MOST = 200_000


def digest_of(message_id: str) -> bytes:
    """Return eight bytes for an id."""
    return blake2b(message_id.encode(), digest_size=_DIGEST).digest()


class Known:
    """Digests of the last committed micro-batch, and of whatever else may not have been deleted from the queue.

    Those of an earlier run are kept until their messages have come again and were deleted, or are too old to come.
    """

    def __init__(self, dumped: Iterable[Mapping[str, Any]] = (), clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._generations = [(float(g["at"]), _load(g["ids"])) for g in dumped]
        self._open: set[bytes] = set()
        self._gone: set[bytes] = set()

    def seen(self, message_id: str) -> bool:
        """Tell whether the message is in the lake, or in the micro-batch that is open."""
        digest = digest_of(message_id)
        return digest in self._open or any(digest in ids for _, ids in self._generations)

    def handed(self, message_ids: Iterable[str]) -> None:
        """Note messages that the open micro-batch holds."""
        self._open.update(map(digest_of, message_ids))

    def committed(self) -> None:
        """The open micro-batch is in the lake; what was deleted before need not be known any more."""
        left = [(at, ids - self._gone) for at, ids in self._generations]
        self._generations = [(at, ids) for at, ids in left if ids]
        self._generations.append((self._clock(), self._open))
        self._open, self._gone = set(), set()

    def deleted(self, message_ids: Iterable[str]) -> None:
        """Forget messages with the next commit; until then they are known, since a queue may be wrong."""
        self._gone.update(map(digest_of, message_ids))

    def dump(self) -> list[dict[str, Any]]:
        """Return what a position keeps, the open micro-batch included: it is committed with it."""
        now = self._clock()
        kept: list[dict[str, Any]] = []
        size = 0
        for at, ids in reversed([*self._generations, (now, self._open)]):
            if ids and now - at < _LONGEST_LIFE and (not kept or size + len(ids) <= _MOST):
                kept.append({"at": round(at), "ids": base64.b64encode(b"".join(sorted(ids))).decode()})
                size += len(ids)
        return kept[::-1]


def _load(dumped: str) -> set[bytes]:
    packed = base64.b64decode(dumped)
    return {packed[n : n + _DIGEST] for n in range(0, len(packed), _DIGEST)}
