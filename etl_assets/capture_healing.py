"""Events that could not be decoded leave their key behind the source, until a later event of it arrives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_assets.errors import newest

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.landing import Landing

_SEPARATOR = "\x1f"


class Healing:
    """The keys of one bronze table that have not converged."""

    def __init__(self, landing: Landing, key: Sequence[str]) -> None:
        self.landing, self.key = landing, tuple(key)
        self._waiting: dict[str, list[str]] | None = None
        self._healed: set[str] = set()

    def seen(self, data: pa.RecordBatch) -> None:
        """Take note of events that are about to be committed."""
        import pyarrow as pa
        import pyarrow.compute as pc

        waiting = self._known()
        if not waiting:
            return
        parts = [pc.cast(data.column(name), pa.string()) for name in self.key]
        keys = pc.binary_join_element_wise(*parts, _SEPARATOR)
        found = keys.filter(pc.is_in(keys, value_set=pa.array(sorted(waiting), pa.string())))
        self._healed.update(found.unique().to_pylist())

    def close(self) -> None:
        """Close the errors of keys whose later event has been committed, and look for new ones next time."""
        import pyarrow as pa

        waiting = self._waiting or {}
        ids = sorted(error for key in self._healed for error in waiting.get(key, ()))
        self._waiting, self._healed = None if self.landing.account.rejected else self._waiting, set()
        if not ids:
            return
        errors = self.landing.errors.errors
        rows = newest(errors.events({"asset": self.landing.bronze.app_id}, ids=pa.array(ids, pa.string())))
        errors.close(rows, "obsolete", "a later change of its key has arrived", self.landing.run)
        self._waiting = None

    def _known(self) -> dict[str, list[str]]:
        """Return the keys with open errors -> their errors; read once, and again when something was rejected."""
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
                if (key := self._key_of(raw)) is not None:
                    self._waiting.setdefault(key, []).append(error_id)
        return self._waiting

    def _key_of(self, raw: bytes | None) -> str | None:
        try:
            key = json.loads(raw or b"null")["key"]
            return _SEPARATOR.join(str(key[name]) for name in self.key)
        except (ValueError, TypeError, KeyError):
            return None  # it is not an event, or its key is what could not be decoded: only a person can say
