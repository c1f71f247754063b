"""Events that could not be decoded leave their key behind the source, until a later event of it arrives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_assets.errors import newest

if TYPE_CHECKING:
    from etl_assets.landing import Landing
    from etl_resources.source import Batch

_SEPARATOR = "\x1f"
Place = tuple[int, int]
"""`_pos` and `_seq`."""
_NOWHERE = (-1, -1)


class Healing:
    """The keys of one bronze table that have not converged."""

    def __init__(self, landing: Landing, key: Sequence[str]) -> None:
        self.landing, self.key = landing, tuple(key)
        self._waiting: dict[str, list[tuple[str, Place]]] | None = None
        self._apart: set[str] = set()
        """Keys with an event of this tick that could not be decoded."""
        self._healed: dict[str, Place] = {}

    def seen(self, batch: Batch) -> None:
        """Take note of events that are about to be committed."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if batch.unreadable is not None:
            keys = (self._event_of(raw)[0] for raw in batch.unreadable["raw"].to_pylist())
            self._apart.update(key for key in keys if key is not None)
        if not (waiting := self._known().keys() | self._apart):
            return
        data = batch.data
        parts = [pc.cast(data.column(name), pa.string()) for name in self.key]
        keys = pc.binary_join_element_wise(*parts, _SEPARATOR)
        found = pc.is_in(keys, value_set=pa.array(sorted(waiting), pa.string()))
        places = (data.column(name).filter(found).to_pylist() for name in ("_pos", "_seq"))
        for key, *place in zip(keys.filter(found).to_pylist(), *places, strict=True):
            self._healed[key] = max(self._healed.get(key, _NOWHERE), (place[0], place[1]))

    def forget(self) -> None:
        """Nothing of the tick was committed."""
        self._apart, self._healed = set(), {}

    def close(self) -> None:
        """Close the errors of keys of which a later event has been committed, and look for new ones next time."""
        import pyarrow as pa

        if self._apart:
            self._waiting = None
        waiting = self._known() if self._healed else {}
        ids = sorted(error for key, at in self._healed.items() for error, place in waiting.get(key, ()) if place < at)
        self.forget()
        if not ids:
            return
        errors = self.landing.errors.errors
        rows = newest(errors.events({"asset": self.landing.bronze.app_id}, ids=pa.array(ids, pa.string())))
        errors.close(rows, "obsolete", "a later change of its key has arrived", self.landing.run)
        self._waiting = None

    def _known(self) -> dict[str, list[tuple[str, Place]]]:
        """Return the keys with open errors -> these, with their places; read once, and again when some were added."""
        import pyarrow.compute as pc

        if self._waiting is None:
            errors = self.landing.errors.errors
            events = errors.events(
                {"asset": self.landing.bronze.app_id},
                columns=("error_id", "status", "rule", "raw", "event", "happened_at"),
            )
            last = newest(events)
            last = last.filter(pc.and_(pc.equal(last["status"], "open"), pc.equal(last["rule"], "unreadable")))
            self._waiting = {}
            for error_id, raw in zip(last["error_id"].to_pylist(), last["raw"].to_pylist(), strict=True):
                key, place = self._event_of(raw)
                if key is not None:
                    self._waiting.setdefault(key, []).append((error_id, place))
        return self._waiting

    def _event_of(self, raw: bytes | None) -> tuple[str | None, Place]:
        """Return key and place of an event that could not be decoded; no key: only a person can say."""
        try:
            event = json.loads(raw or b"null")
            key = _SEPARATOR.join(str(event["key"][name]) for name in self.key)
        except (ValueError, TypeError, KeyError):
            return None, _NOWHERE  # it is not an event, or its key is what could not be decoded
        return key, (event.get("pos", -1), event.get("seq", -1))
