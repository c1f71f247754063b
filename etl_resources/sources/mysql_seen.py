"""Which rows of the window that is read again have been read before: remembered by a digest of the whole row."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import UnavailableError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MOST = 500_000
"""Rows that are remembered at the most: the position is part of every commit."""


class Seen:
    """Tells new rows from known ones, and remembers those that the next read will meet again.

    A row is known by 64 bits of the MD5 of its bytes on the wire. Rows that are equal in every column are counted, so
    that a second one is new.
    """

    def __init__(self, known: str | None, where: str) -> None:
        import duckdb
        import numpy as np

        raw = np.frombuffer(base64.b64decode(known or ""), "<u8")
        self._known, self._left = np.unique(raw, return_counts=True)
        self._kept: list[np.ndarray[Any, Any]] = []
        self._count, self._where = 0, where
        self._engine = duckdb.connect()

    def digests(self, rows: pa.Array) -> np.ndarray[Any, Any]:
        """Return one number for each of the `binary` rows."""
        import pyarrow as pa

        table = pa.table({"r": rows})
        self._engine.register("rows_now", table)
        found: np.ndarray[Any, Any] = self._engine.execute(
            "SELECT md5_number_lower(r) AS d FROM rows_now"
        ).fetchnumpy()["d"]
        self._engine.unregister("rows_now")
        return found

    def new(self, digests: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return which of the rows have not been read before."""
        import numpy as np

        if not len(self._known):
            return np.ones(len(digests), bool)
        values, first, counts = np.unique(digests, return_inverse=True, return_counts=True)
        at = np.minimum(np.searchsorted(self._known, values), len(self._known) - 1)
        known = self._known[at] == values
        expected = np.where(known, self._left[at], 0)
        # The first so many of equal rows are the known ones; which of them does not matter.
        order = np.argsort(first, kind="stable")
        nth = np.empty(len(digests), np.int64)
        nth[order] = np.arange(len(digests)) - np.repeat(np.cumsum(counts) - counts, counts)
        self._left[at[known]] -= np.minimum(counts, expected)[known]
        fresh: np.ndarray[Any, Any] = nth >= expected[first]
        return fresh

    def keep(self, digests: np.ndarray[Any, Any]) -> None:
        """Remember rows.

        Raises:
            UnavailableError: there are too many.
        """
        self._kept.append(digests)
        self._count += len(digests)
        if self._count > MOST:
            raise UnavailableError(
                f"more than {MOST:,} rows have no cursor, or one that a row still to be committed may be behind",
                where=self._where,
                fix="end transactions that are open for long; fill in empty cursors; use a TIMESTAMP as cursor;"
                " or capture: {snapshot: {}}",
            )

    def to_text(self) -> str:
        """Return what was kept, as text for the position."""
        import numpy as np

        kept = np.concatenate(self._kept) if self._kept else np.empty(0, "<u8")
        return base64.b64encode(np.sort(kept).astype("<u8").tobytes()).decode()

    def close(self) -> None:
        """Let go of the engine."""
        self._engine.close()
