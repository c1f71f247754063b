"""`ops/accounts`: every row account ever committed, one row each, kept when the Delta logs are cleaned.

The account stands in the commit of the data; the ledger is a copy. A kill between the two is healed by the next run,
which copies what the ledger has not got yet.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from etl_assets.account import RowAccount
from etl_resources.exceptions import ConcurrentCommitError, RowsNotConservedError
from etl_resources.lake import Commit, Handle, Lake, LakeTable

if TYPE_CHECKING:
    import pyarrow as pa

FIGURES = ("read", "inserted", "updated", "deleted", "unchanged", "superseded", "removed")


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = [(name, pa.string()) for name in ("asset", "run_id", "filtered", "rejected", "partition", "record")]
    counts = [(name, pa.int64()) for name in ("version", "delta_version", *FIGURES)]
    return pa.schema([*text, *counts, ("committed_at", pa.timestamp("us", tz="UTC"))])


class Ledger:
    """The accounts of all tables of a lake."""

    def __init__(self, lake: Lake) -> None:
        self.table: LakeTable = lake.table("ops", "accounts")
        self._handle: Handle | None = None

    def copy(self, handle: Handle, app_id: str) -> None:
        """Bring the ledger up to date with the commits of one table."""
        ledger, newest = self._newest(), handle.committed(app_id)
        known = ledger.committed(app_id) if ledger is not None else 0
        if newest <= known:
            return
        rows: list[dict[str, Any]] = []
        for record in handle.records():
            # A commit that was taken back has the number of one that came after it.
            if record.get("app_id") == app_id and record["version"] == newest - len(rows):
                rows.append(ledger_row(app_id, record))
            if len(rows) == newest - known:
                break
        if len(rows) != newest - known:
            raise RowsNotConservedError(
                f"the log has the accounts of {len(rows)} of the commits {known + 1} to {newest} of {app_id}",
                where=handle.table.name,
                fix="the Delta log was cleaned before the accounts were copied, or it was changed by hand; "
                "reload the table with --full-refresh",
            )
        self.write(app_id, rows[::-1], newest)

    def write(self, app_id: str, rows: list[dict[str, Any]], version: int) -> None:
        """Append rows of the ledger, the oldest first, unless it has come to `version` of `app_id` already."""
        import pyarrow as pa

        ledger = self._newest() or self.table.ensure(_schema())
        if ledger.committed(app_id) >= version:
            return
        with self.table.stage(ledger, _schema()) as staged:
            staged.write(pa.RecordBatch.from_pylist(rows, schema=_schema()))
            try:
                self.table.append(ledger, staged, Commit(app_id, version))
            except ConcurrentCommitError:
                if ledger.refresh().committed(app_id) < version:
                    raise
                staged.discard()  # the other run copied the same rows
        self.table.tidy(ledger)

    def rows(self, app_id: str, above: int = 0, *, records: bool = False) -> list[dict[str, Any]]:
        """Return the rows of one table with `version > above`, oldest first; `record` only if `records` are wanted."""
        # A record may hold a position that names every file of a source.
        columns = [name for name in _schema().names if records or name != "record"]
        ledger = self._newest()
        if ledger is None:
            return []
        found = ledger.read({"asset": app_id}, above={"version": above}, columns=columns)
        return found.sort_by("version").to_pylist()

    def _newest(self) -> Handle | None:
        """Return the ledger as it is now; None: there is none yet."""
        self._handle = self.table.newest(self._handle)
        return self._handle

    def last_record(self, app_id: str) -> dict[str, Any] | None:
        """Return the newest commit record of one table."""
        ledger = self._newest()
        newest = ledger.committed(app_id) if ledger is not None else 0
        rows = self.rows(app_id, newest - 1, records=True) if newest else []
        return json.loads(rows[-1]["record"]) if rows else None


def ledger_row(app_id: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the ledger for one commit record (with `version`, `delta_version` and `timestamp` in ms)."""
    from datetime import UTC, datetime

    account = record.get("account") or RowAccount().to_json()
    return {
        "asset": app_id,
        "run_id": record.get("run_id"),
        "filtered": json.dumps(account["filtered"]),
        "rejected": json.dumps(account["rejected"]),
        "partition": json.dumps(record["partition"]) if record.get("partition") else None,
        "record": json.dumps(record),
        "version": record["version"],
        "delta_version": record.get("delta_version"),
        **{name: account.get(name, 0) for name in FIGURES},
        "committed_at": datetime.fromtimestamp(record["timestamp"] / 1000, tz=UTC),
    }
