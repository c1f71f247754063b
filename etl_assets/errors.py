"""`ops/errors`: the dead-letter queue. Append-only events; the newest event of an error is its state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from etl_assets.run import Run
from etl_resources.exceptions import ErrorBudgetExceededError
from etl_resources.lake import Commit, Handle, Lake, LakeTable

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.delta.staging import Staging
    from etl_resources.engines.duckdb import Session

Status = Literal["open", "replayed", "discarded", "withdrawn"]
"""`withdrawn`: a run was killed between the errors and the data, and its repetition, with other code, has no such error."""


def error_schema() -> pa.Schema:
    """Columns of `ops/errors`; `error_id` is `<asset>:<batch>:<row>`, `record` the row as JSON, `raw` unparsed bytes."""
    import pyarrow as pa

    return pa.schema(
        [
            ("error_id", pa.string()),
            ("asset", pa.string()),
            ("commit", pa.int64()),
            ("batch", pa.int64()),
            ("row", pa.int64()),
            ("status", pa.string()),
            ("rule", pa.string()),
            ("rules", pa.list_(pa.field("element", pa.string()))),
            ("reason", pa.string()),
            ("record", pa.string()),
            ("raw", pa.binary()),
            ("origin", pa.string()),
            ("line", pa.int64()),
            ("run_id", pa.string()),
            ("happened_at", pa.timestamp("us", tz="UTC")),
            ("note", pa.string()),
        ]
    )


@dataclass(frozen=True)
class Budget:
    """How many rows of one piece of work may be rejected before the run fails and nothing is published."""

    max_rows: int | None = None
    max_share: float | None = None

    def check(self, rejected: dict[str, int], read: int, *, where: str, samples: Iterable[str] = ()) -> None:
        """Raise ErrorBudgetExceededError when too many rows were rejected; the message lists rules and samples."""
        total = sum(rejected.values())
        over_rows = self.max_rows is not None and total > self.max_rows
        over_share = self.max_share is not None and read > 0 and total / read > self.max_share
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


def from_unreadable(unreadable: pa.RecordBatch, asset: str, batch: int, first: int, run: Run) -> pa.Table:
    """Return error rows for records that a source could not parse."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = unreadable.num_rows
    number = pa.array(range(first, first + rows), pa.int64())
    base = f"{asset}:{batch}:u"
    columns = {
        "error_id": pc.binary_join_element_wise(pa.scalar(base), number.cast(pa.string()), ""),
        "asset": pa.repeat(pa.scalar(asset), rows),
        "commit": pa.repeat(pa.scalar(batch, pa.int64()), rows),
        "batch": pa.repeat(pa.scalar(batch, pa.int64()), rows),
        "row": number,
        "status": pa.repeat(pa.scalar("open"), rows),
        "rule": pa.repeat(pa.scalar("unreadable"), rows),
        "rules": pa.array([["unreadable"]] * rows),
        "reason": unreadable.column("reason"),
        "raw": unreadable.column("raw"),
        "origin": unreadable.column("origin"),
        "line": unreadable.column("line"),
        "run_id": pa.repeat(pa.scalar(run.run_id), rows),
        "happened_at": pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC")), rows),
    }
    schema = error_schema()
    return pa.table([columns.get(field.name, pa.nulls(rows, field.type)) for field in schema], schema=schema)


def from_refused(refused: pa.Table, asset: str, number: int, run: Run) -> pa.Table:
    """Return error rows for rows that a target refused; their identity is their content, for they may come again."""
    import hashlib

    import pyarrow as pa

    rows = refused.num_rows
    records = refused["record"].to_pylist()
    digests = [hashlib.sha256(record.encode()).hexdigest()[:16] for record in records]
    columns = {
        "error_id": pa.array([f"{asset}:{number}:{digest}" for digest in digests]),
        "asset": pa.repeat(pa.scalar(asset), rows),
        "commit": pa.repeat(pa.scalar(number, pa.int64()), rows),
        "status": pa.repeat(pa.scalar("open"), rows),
        "rule": refused["rule"],
        "rules": pa.array([[rule] for rule in refused["rule"].to_pylist()], pa.list_(pa.string())),
        "reason": refused["reason"],
        "record": refused["record"],
        "run_id": pa.repeat(pa.scalar(run.run_id), rows),
        "happened_at": pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC")), rows),
    }
    schema = error_schema()
    return pa.table([columns.get(field.name, pa.nulls(rows, field.type)) for field in schema], schema=schema)


class ErrorTable:
    """Writes and reads `ops/errors` for one piece of work at a time."""

    def __init__(self, lake: Lake) -> None:
        self.table: LakeTable = lake.table("ops", "errors")
        self._staged: Staging | None = None
        self._handle: Handle | None = None

    def stage(self, rows: pa.Table) -> None:
        """Keep rows (in `error_schema()`) for the next `commit`, on disk."""
        if rows.num_rows == 0:
            return
        if self._staged is None:
            self._handle = self.table.ensure(error_schema(), personal=("record", "raw"))
            self._staged = self.table.stage(self._handle, error_schema())
        for batch in rows.cast(error_schema()).to_batches():
            self._staged.write(batch)

    def discard(self) -> None:
        """Drop what was staged."""
        if self._staged is not None:
            self._staged.discard()
            self._staged = None

    def commit(self, app_id: str, number: int, run: Run) -> None:
        """Commit the staged errors of piece of work `number` of `app_id`, *before* its data.

        When a killed run has already committed errors for this piece of work, only the difference is written.
        """
        handle = self.table.open()
        done = handle.committed(app_id) if handle is not None else 0
        if handle is not None and done >= number:
            self._repair(handle, app_id, number, run)
            return
        if self._staged is None:
            return
        assert self._handle is not None  # noqa: S101 - set together
        staged, self._staged = self._staged, None
        # Errors of other tables may have come since the files were staged: only this table's number is fenced.
        self.table.append(handle or self._handle, staged, Commit(app_id, number))

    def _repair(self, handle: Handle, app_id: str, number: int, run: Run) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.dataset as ds

        wanted = (ds.field("asset") == app_id) & (ds.field("commit") == number)
        old = handle.delta.to_pyarrow_dataset().to_table(filter=wanted)
        new = error_schema().empty_table()
        if self._staged is not None:
            staged, self._staged = self._staged, None
            new = staged.read().cast(error_schema())
            staged.discard()
        added = new.filter(pc.invert(pc.is_in(new["error_id"], value_set=old["error_id"].combine_chunks())))
        stale = old.filter(pc.invert(pc.is_in(old["error_id"], value_set=new["error_id"].combine_chunks())))
        events = pa.concat_tables(
            [added, _event(stale, "withdrawn", "the run that found it was killed and repeated", run)]
        )
        self.append_events(events, handle, f"{app_id}#repair")

    def append_events(self, events: pa.Table, handle: Handle, app_id: str) -> None:
        """Append events outside of a piece of work."""
        if events.num_rows == 0:
            return
        with self.table.stage(handle, error_schema()) as staged:
            for batch in events.to_batches():
                staged.write(batch)
            self.table.append(handle, staged, Commit(app_id, handle.committed(app_id) + 1))

    def close(self, rows: pa.Table, status: Status, note: str, run: Run) -> None:
        """Record what became of errors: `rows` are rows of this table."""
        handle = self.table.open()
        if handle is not None:
            self.append_events(_event(rows, status, note, run), handle, f"close:{run.run_id}:{status}")

    def current(self, session: Session, *, asset: str | None = None, status: str | None = "open") -> str | None:
        """Return SQL, usable after FROM, with one row per error in its newest state; None: there are no errors at all."""
        from etl_resources.engines.duckdb import literal

        handle = self.table.open()
        if handle is None:
            return None
        where = f"WHERE asset = {literal(asset)}" if asset is not None else ""
        state = f"WHERE status = {literal(status)}" if status is not None else ""
        relation = session.lake_relation(handle)
        newest = f"SELECT error_id, arg_max(e, e.happened_at) AS e FROM {relation} e {where} GROUP BY error_id"  # noqa: S608
        return f"(SELECT * FROM (SELECT unnest(e) FROM ({newest})) {state})"  # noqa: S608

    def open_counts(self, session: Session) -> dict[str, int]:
        """Return the number of open errors per asset."""
        relation = self.current(session)
        if relation is None:
            return {}
        return dict(session.execute(f"SELECT asset, count(*) FROM {relation} GROUP BY 1"))  # type: ignore[arg-type]  # noqa: S608


def _event(rows: pa.Table, status: Status, note: str, run: Run) -> pa.Table:
    """Return the rows again, in another state and as of now."""
    import pyarrow as pa

    count = rows.num_rows
    changed: dict[str, Any] = {
        "status": pa.repeat(pa.scalar(status), count),
        "note": pa.repeat(pa.scalar(note), count),
        "run_id": pa.repeat(pa.scalar(run.run_id), count),
        "happened_at": pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC")), count),
    }
    schema = error_schema()
    return pa.table(
        [changed.get(name, rows[name] if name in rows.column_names else None) for name in schema.names], schema=schema
    )
