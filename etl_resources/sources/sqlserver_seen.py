"""Recognises records that were read before, by their content."""

from __future__ import annotations

import base64
from collections import Counter
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

LIMIT = 100_000
"""Records that a position remembers, at 8 bytes each: it stands in the commit."""


class Seen:
    """The records near the end of the last read, as numbers of 64 bits; equal records are counted."""

    def __init__(self, text: str | None, where: str) -> None:
        import duckdb
        import numpy as np

        self._before = np.frombuffer(base64.b64decode(text or ""), "<u8")
        self._left = Counter(self._before.tolist())
        self._next: list[np.ndarray[Any, Any]] = []
        self._size = 0
        self._where = where
        self._engine = duckdb.connect(config={"threads": 1})

    def new_rows(self, batch: pa.RecordBatch, again: pa.Array) -> pa.Array:
        """Return which rows were not read before; those with `again` are kept in mind for the next read.

        Raises:
            ConfigurationError: these are more than a position can hold.
        """
        import numpy as np
        import pyarrow as pa

        prints = self._fingerprints(batch)
        kept = prints[np.asarray(again) == 1]
        self._size += len(kept)
        if self._size > LIMIT:
            raise ConfigurationError(
                f"more than {LIMIT:,} rows are within `late_by` of the newest, have no cursor, or one in the future",
                where=self._where, fix="use a smaller late_by, or a rowversion column as the cursor",
            )  # fmt: skip
        self._next.append(kept)
        new = np.ones(len(prints), bool)
        for n in np.flatnonzero(np.isin(prints, self._before)).tolist():
            value = int(prints[n])
            if self._left[value]:
                self._left[value] -= 1
                new[n] = False
        return pa.array(new)

    def _fingerprints(self, batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
        import pyarrow as pa

        plain = pa.Table.from_batches([batch.rename_columns([f"c{n}" for n in range(batch.num_columns)])])
        columns = ", ".join(plain.column_names)
        found = self._engine.from_arrow(plain).project(f"hash({columns}) AS h").to_arrow_table()
        prints: np.ndarray[Any, Any] = found.column("h").to_numpy()
        return prints

    def to_text(self) -> str:
        """Return what the next read has to know."""
        import numpy as np

        joined = np.concatenate([np.empty(0, "<u8"), *self._next]).astype("<u8")
        return base64.b64encode(np.sort(joined).tobytes()).decode()
