"""A Delta table as it was when it was opened."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from etl_resources.delta.commit import COMMIT_KEY

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
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
        self._committed: dict[str, int] = {}
        self._committed_as_of = -1

    def refresh(self) -> Handle:
        """Go on to the newest version of the table: after a commit, when all has been decided; returns itself."""
        self.delta.update_incremental()
        return self

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
        # For each answer delta-rs reads the log since its last checkpoint.
        if self._committed_as_of != self.version:
            self._committed, self._committed_as_of = {}, self.version
        if app_id not in self._committed:
            self._committed[app_id] = self.delta.transaction_version(app_id) or 0
        return self._committed[app_id]

    def rows(self) -> int:
        """Count the rows, out of the log."""
        return self.delta.count()

    def record(self, app_id: str) -> dict[str, Any] | None:
        """Return the record of the newest commit under `app_id` that the Delta log still has."""
        # A commit that was taken back is still in the log.
        found = (record for record in self.records() if record.get("app_id") == app_id)
        return next((record for record in found if record["version"] == self.committed(app_id)), None)

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
        greater = {} if column is None or above is None else {column: above}
        return [self.table.location(path) for path in self._paths({}, greater)]

    def read(
        self,
        equal: Mapping[str, Any],
        *,
        above: Mapping[str, int] | None = None,
        wanted: ds.Expression | None = None,
        columns: Collection[str] | None = None,
    ) -> pa.Table:
        """Read the rows that have certain values, greater ones, and satisfy a condition.

        For tables of events, of which a few rows are wanted: files that cannot have them are not opened.
        """
        import pyarrow.dataset as ds

        from etl_resources.delta.storage import is_local

        conditions = [ds.field(name) == value for name, value in equal.items()]
        conditions += [ds.field(name) > value for name, value in (above or {}).items()]
        conditions += [] if wanted is None else [wanted]
        filters = reduce(and_, conditions) if conditions else None
        names = None if columns is None else list(columns)
        if not is_local(self.table.uri) or not self.plain_files():
            return self.delta.to_pyarrow_dataset().to_table(filter=filters, columns=names)
        files = [self.table.location(path).removeprefix("file://") for path in self._paths(equal, above or {})]
        return ds.dataset(files, schema=self.schema(), format="parquet").to_table(filter=filters, columns=names)

    def _paths(self, equal: Mapping[str, Any], above: Mapping[str, int]) -> list[str]:
        """Return the files that may have rows with these values, and with greater ones than those."""
        import pyarrow as pa

        actions = pa.table(self.delta.get_add_actions(flatten=True))
        bounds = {name: actions[name].to_pylist() for name in actions.column_names if name.startswith(("min.", "max."))}
        unknown = [None] * actions.num_rows

        def may_have(index: int) -> bool:
            for name, value in equal.items():
                low, high = bounds.get(f"min.{name}", unknown)[index], bounds.get(f"max.{name}", unknown)[index]
                if (low is not None and value < low) or (high is not None and value > high):
                    return False
            highs = ((value, bounds.get(f"max.{name}", unknown)[index]) for name, value in above.items())
            return all(high is None or high > value for value, high in highs)

        paths = actions["path"].to_pylist()
        return [path for index, path in enumerate(paths) if may_have(index)]

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
