"""A Delta table as it was when it was opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.delta.commit import COMMIT_KEY

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from etl_resources.lake import LakeTable

FIRST_LOOK = 16
"""Commits looked at first when a record is sought: the wanted one is nearly always among the newest."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a table: path within it, bytes, rows, and when it was written (ms)."""

    path: str
    size: int
    rows: int
    modified: int


class Handle:
    """A Delta table as it was when it was opened.

    What is decided from a handle (which rows are new, which version comes next) has to be committed with the same
    handle: then Delta refuses the commit if somebody else was faster.
    """

    def __init__(self, delta: DeltaTable, table: LakeTable) -> None:
        self.delta = delta
        self.table = table

    @property
    def version(self) -> int:
        """Version of the Delta table."""
        return self.delta.version()

    def schema(self) -> pa.Schema:
        """Return the Arrow schema."""
        import pyarrow as pa

        return pa.schema(self.delta.schema().to_arrow())

    def committed(self, app_id: str) -> int:
        """Return the number of the last commit under `app_id`, 0 if there is none."""
        return self.delta.transaction_version(app_id) or 0

    def rows(self) -> int:
        """Count the rows, out of the log."""
        return self.delta.count()

    def record(self, app_id: str) -> dict[str, Any] | None:
        """Return the record of the newest commit under `app_id` that the Delta log still has."""
        return next((record for record in self.records() if record.get("app_id") == app_id), None)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records of the commits, newest first, each with `delta_version` and `timestamp` (ms) added."""
        seen, limit = 0, FIRST_LOOK
        while True:
            entries = self.delta.history(limit)
            for entry in entries[seen:]:
                if COMMIT_KEY in entry:
                    stamps = {"delta_version": entry["version"], "timestamp": entry["timestamp"]}
                    yield {**json.loads(entry[COMMIT_KEY]), **stamps}
            if len(entries) < limit:
                return
            # Each commit is a file to read; a look at all of them after every load would cost the square of the loads.
            seen, limit = len(entries), limit * 4

    def files(self, column: str | None = None, above: int | None = None) -> list[str]:
        """Return the URIs of the data files; with `column` and `above`, those that may hold a greater value."""
        import pyarrow as pa

        actions = pa.table(self.delta.get_add_actions(flatten=True))
        names = actions.column("path").to_pylist()
        bounds = f"max.{column}"
        if above is not None and bounds in actions.column_names:
            highs = actions.column(bounds).to_pylist()
            names = [name for name, high in zip(names, highs, strict=True) if high is None or high > above]
        return [self.table.location(name) for name in names]

    def data_files(self) -> list[DataFile]:
        """Return the data files, as the log has them."""
        import pyarrow as pa

        actions = pa.table(self.delta.get_add_actions(flatten=True)).to_pylist()
        return [
            DataFile(action["path"], action["size_bytes"], action["num_records"], action["modification_time"])
            for action in actions
        ]

    def plain_files(self) -> bool:
        """Tell whether the data files alone are the table: no deletion vectors, no partition columns."""
        features = self.delta.protocol().reader_features or []
        return "deletionVectors" not in features and not self.delta.metadata().partition_columns

    def skipping(self) -> frozenset[str] | None:
        """Return the columns on which the log keeps minimum and maximum; None: the table does not say."""
        listed = self.delta.metadata().configuration.get(SKIPPING)
        if listed is None:
            return None
        return frozenset(name.strip("`") for name in listed.split(",") if name)


SKIPPING = "delta.dataSkippingStatsColumns"
