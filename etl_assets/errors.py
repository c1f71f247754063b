"""`ops/errors`: the dead-letter queue. Append-only events; the newest event of an error is its state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etl_assets.error_rows import PERSONAL, Status, error_schema, filled
from etl_assets.run import Run
from etl_resources.exceptions import (
    ConcurrentCommitError,
    ConfigurationError,
    ErrorBudgetExceededError,
    NotFoundError,
    RowsNotConservedError,
)
from etl_resources.lake import Commit, Handle, Lake, LakeTable

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.engines.duckdb import Session

CLOSE_ATTEMPTS = 5
"""Tries at recording what became of errors while other runs do the same."""


@dataclass(frozen=True)
class Budget:
    """How many rows of one table may be rejected in a run before it fails and nothing more is published."""

    max_rows: int | None = None
    max_share: float | None = None

    def check(self, rejected: Mapping[str, int], read: int, *, where: str, samples: Iterable[str] = ()) -> None:
        """Raise ErrorBudgetExceededError when too many rows were rejected; the message lists rules and samples."""
        total = sum(rejected.values())
        over_rows = self.max_rows is not None and total > self.max_rows
        over_share = self.max_share is not None and read > 0 and total > self.max_share * read
        if not (over_rows or over_share):
            return
        allowed = f"{self.max_rows} rows" if over_rows else f"{self.max_share:.2%} of the rows"
        rules = ", ".join(f"{rule} {rows}" for rule, rows in sorted(rejected.items(), key=lambda item: -item[1]))
        shown = "".join(f"\n    {sample}" for sample in samples)
        raise ErrorBudgetExceededError(
            f"{total} of {read} rows were rejected, {allowed} are allowed: {rules}{shown}",
            where=where,
            fix="nothing was published: mend the rules or the source, or raise errors.max_rows / errors.max_share",
        )


class ErrorTable:
    """Reads `ops/errors` and records what became of errors."""

    def __init__(self, lake: Lake) -> None:
        self.table: LakeTable = lake.table("ops", "errors")

    def current(self, session: Session, *, asset: str | None = None, status: str | None = "open") -> str | None:
        """Return SQL, usable after FROM, with one row per error in its newest state; None: there are no errors."""
        from etl_resources.engines.duckdb import literal

        handle = self.table.open()
        if handle is None:
            return None
        where = f"WHERE asset = {literal(asset)}" if asset is not None else ""
        state = f"WHERE status = {literal(status)}" if status is not None else ""
        relation = session.lake_relation(handle)
        newest = f"SELECT arg_max(e, (e.event, e.happened_at)) AS e FROM {relation} e {where} GROUP BY error_id"  # noqa: S608
        return f"(SELECT * FROM (SELECT unnest(e) FROM ({newest})) {state})"  # noqa: S608

    def open_counts(self, session: Session) -> dict[str, int]:
        """Return the number of open errors per asset."""
        relation = self.current(session)
        if relation is None:
            return {}
        return dict(session.execute(f"SELECT asset, count(*) FROM {relation} GROUP BY 1"))  # noqa: S608

    def events(
        self,
        equal: Mapping[str, Any],
        *,
        ids: pa.Array | None = None,
        columns: Collection[str] | None = None,
    ) -> pa.Table:
        """Return the events that have certain values, or are about certain errors, oldest first."""
        import pyarrow.dataset as ds

        handle = self.table.open()
        if handle is None:
            return error_schema().empty_table()
        wanted = None if ids is None else ds.field("error_id").isin(ids)
        found = handle.read(equal, wanted=wanted, columns=columns)
        return found.sort_by([("event", "ascending"), ("happened_at", "ascending")])

    def close(
        self, rows: pa.Table, status: Status, note: str, run: Run, marks: Mapping[str, int] | None = None
    ) -> None:
        """Record what became of errors.

        Args:
            rows: rows of this table, in their newest state.
            marks: Delta transactions of the same commit.
        """
        events = filled(rows, status=status, note=note, run_id=run.run_id, happened_at=datetime.now(UTC))
        self.restate(events, marks)

    def restate(self, rows: pa.Table, marks: Mapping[str, int] | None = None) -> None:
        """Record errors in the state that `rows` have, as of now."""
        for attempt in range(CLOSE_ATTEMPTS):
            handle = self.table.open()
            if handle is None or (rows.num_rows == 0 and not marks):
                return
            try:
                self.append(handle, rows, Commit("close", handle.committed("close") + 1, marks=marks or {}))
            except ConcurrentCommitError:
                if attempt == CLOSE_ATTEMPTS - 1:
                    raise
            else:
                return

    def append(self, handle: Handle, events: pa.Table, commit: Commit) -> None:
        """Append events under the fence of a commit."""
        with self.table.stage(handle, error_schema()) as staged:
            # After every event that this handle can have seen.
            for batch in filled(events, event=handle.version + 1).to_batches():
                staged.write(batch)
            staged.finish()
            if staged.stored_rows != events.num_rows:
                raise RowsNotConservedError(
                    f"{events.num_rows} events were to be written, {staged.stored_rows} were; nothing was committed",
                    where=self.table.name,
                    fix="this is a defect of the platform or of the storage: please report it",
                )
            self.table.tidy(self.table.append(handle, staged, commit))

    def ensure(self) -> Handle:
        """Open the table, creating it if it is not there."""
        return self.table.ensure(error_schema(), personal=PERSONAL)


def discard(lake: Lake, error_ids: Collection[str], reason: str, run: Run) -> int:
    """Give errors up, with the reason why; their rows stay in bronze. Returns how many were open until now.

    Raises:
        ConfigurationError: no reason is given.
        NotFoundError: there is no such error; none was discarded.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not reason.strip():
        raise ConfigurationError("errors are discarded for a reason", where="ops/errors", fix="say why: --reason TEXT")
    errors, wanted = ErrorTable(lake), pa.array(sorted(set(error_ids)), pa.string())
    found = newest(errors.events({}, ids=wanted))
    missing = sorted(set(error_ids) - set(found["error_id"].to_pylist()))
    if missing:
        raise NotFoundError(
            f"there is no error {', '.join(missing[:5])}" + (" …" if len(missing) > 5 else ""),
            where="ops/errors",
            fix="`etl errors list` shows the errors there are; none was discarded",
        )
    still_open = found.filter(pc.equal(found["status"], "open"))
    errors.close(still_open, "discarded", reason, run)
    return still_open.num_rows


def newest(events: pa.Table) -> pa.Table:
    """Return the last event of each error; `events` are in their order."""
    import pyarrow as pa

    numbered = events.append_column("__at", pa.array(range(events.num_rows), pa.int64()))
    last = numbered.group_by("error_id").aggregate([("__at", "max")])["__at_max"]
    return events.take(last.sort() if last.num_chunks else last.cast(pa.int64()))
