"""How the decided rows get into a silver table, and the rejected ones into `ops/errors`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.errors import ErrorTable
from etl_assets.silver_passing import AHEAD
from etl_resources.delta.merging import Merge
from etl_resources.delta.rewriting import Changes, Source
from etl_resources.engines.duckdb import literal, quote
from etl_resources.exceptions import ConfigurationError, RowsNotConservedError
from etl_resources.lake import Commit, Handle
from etl_resources.read_ahead import read_ahead

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.partitions import Part
    from etl_assets.silver_commit import Refinement
    from etl_resources.delta.staging import Staging


class Writer:
    """Writes the rows of one commit: appended, merged, in place of a partition, or in place of the whole table."""

    def __init__(self, refinement: Refinement, commit: Commit, staged: Staging | None = None) -> None:
        self.refinement, self.commit, self.staged = refinement, commit, staged
        self.session, self.schema, self.work = refinement.session, refinement.schema, refinement.work
        self.table = refinement.silver.table
        assert refinement.handle is not None  # noqa: S101 - opened before
        self.handle: Handle = refinement.handle

    def write(self, account: RowAccount) -> Handle:
        """Commit; returns the table after it.

        Raises:
            RowsNotConservedError: other rows were written than the account says; the table is as it was.
        """
        if self.staged is not None:
            return self._put(self.staged, account)
        columns = ", ".join(f"j.{quote(name)}" for name in self.schema.names)
        rows = f"SELECT {columns} FROM fated j WHERE j.__action IS NOT NULL"  # noqa: S608 - where nothing is met
        if self.work.part is not None:
            expected = Changes(inserted=account.inserted, deleted=account.removed)
            predicate = window_predicate(self.work.part, self.schema, self.table.name)
            return self.table.replace_where(
                self.handle, self._reader(rows, self.schema), predicate, self.commit, expected
            )
        if self.work.rebuild or not (self._changes() or account.removed):
            return self._insert(rows, account)
        return self._merge(columns, account)

    def _changes(self) -> bool:
        """Tell whether a row of the table is updated or deleted."""
        if self.refinement.meets is None:
            return False
        return bool(self.session.execute("SELECT 1 FROM decided WHERE __action IN ('update', 'delete') LIMIT 1"))

    def _insert(self, sql: str, account: RowAccount) -> Handle:
        """Append: no row of the load meets a row of the table, so there is nothing to merge."""
        # A column may have become personal after the handle was opened.
        personal = self.refinement.silver.spec.personal
        with self.table.stage(self.handle, self.schema, personal=personal) as staged:
            # The engine works on the next batches while the last ones are compressed.
            for batch in read_ahead((_conform(batch, self.schema) for batch in self.session.stream(sql)), AHEAD):
                staged.write(batch)
            return self._put(staged, account)

    def _put(self, staged: Staging, account: RowAccount) -> Handle:
        """Commit the staged rows as further ones, or as the whole table."""
        staged.finish()
        if staged.stored_rows != account.inserted:
            raise RowsNotConservedError(
                f"{staged.stored_rows} rows were written, but the account says {account.inserted}",
                where=self.table.name,
                fix="nothing was committed; this is a defect of the platform or of the storage: please report it",
            )
        put = self.table.replace if self.work.rebuild else self.table.append
        return put(self.handle, staged, self.commit)

    def _merge(self, columns: str, account: RowAccount) -> Handle:
        key = self.refinement.versions.key
        changes = (
            f"(SELECT {columns}, j.__action AS _action FROM fated j "  # noqa: S608
            "WHERE j.__action IS NOT NULL AND j.__fate NOT LIKE 'filtered:%' UNION ALL BY NAME "
            f"SELECT {', '.join(quote(name) for name in key)}, 'delete' AS _action FROM removed)"
        )
        expected = Changes(account.inserted, account.updated, account.deleted + account.removed)
        what = Merge(self.session, changes, self.schema.names, key, expected, self.refinement.silver.spec.personal)
        return self.table.merge(self.handle, what, self.commit)

    def _reader(self, sql: str, schema: pa.Schema) -> Source:
        def read() -> pa.RecordBatchReader:
            import pyarrow as pa

            batches = (_conform(batch, schema) for batch in self.session.stream(sql))
            return pa.RecordBatchReader.from_batches(schema, batches)

        return read


def rejected_rows(refinement: Refinement, rejected: str) -> Iterator[pa.Table]:
    """Yield a row of `ops/errors` per rejected row, with the bronze record as it came.

    Args:
        rejected: SQL relation with `_batch`, `_row`, `__fate` and the masks of the rejected rows, and maybe of others.
    """
    import pyarrow as pa

    judgement, app_id = refinement.judgement, literal(refinement.silver.app_id)
    # What a person gave up stays so when the table is built anew.
    errors = ErrorTable(refinement.silver.lake) if refinement.work.rebuild else None
    given_up = (
        errors.current(refinement.session, asset=refinement.silver.app_id, status="discarded") if errors else None
    )
    status, join = "'open' AS status, NULL::VARCHAR AS note", ""
    if given_up is not None:
        status = "coalesce(d.status, 'open') AS status, d.note AS note"
        join = f"LEFT JOIN {given_up} d ON d.batch = j._batch AND d.row = j._row"
    sql = f"""
        SELECT {app_id} || ':' || j._batch || ':' || j._row AS error_id, {app_id} AS asset,
            {refinement.number}::BIGINT AS commit, j._batch AS batch, j._row AS row, {status},
            substr(j.__fate, 10) AS rule, {judgement.names("rule")} AS rules,
            array_to_string({judgement.names("reason")}, '; ') AS reason, to_json(b)::VARCHAR AS record,
            b._origin AS origin, {literal(refinement.run.run_id)} AS run_id, now() AS happened_at
        FROM {rejected} j JOIN {refinement.work.relation} b ON b._batch = j._batch AND b._row = j._row {join}
        WHERE j.__fate LIKE 'rejected:%'
    """  # noqa: S608
    for batch in refinement.session.stream(sql):
        yield pa.Table.from_batches([batch])


def window_predicate(part: Part, schema: pa.Schema, where: str) -> str:
    """Return the SQL predicate of a partition, in the type of its event-time column.

    Raises:
        ConfigurationError: the table has no such column, or it is neither a date nor a timestamp.
    """
    from pyarrow import types

    kind = schema.field(part.column).type if part.column in schema.names else None
    if kind is None or not (types.is_date(kind) or types.is_timestamp(kind)):
        raise ConfigurationError(
            f"the partitions are days of {part.column!r}, which is {kind or 'no column'} in the table",
            where=where,
            fix="let the contract or a cast step give that column the type date or timestamp",
        )
    shape, name = ("%Y-%m-%d", "Date32") if types.is_date(kind) else ("%Y-%m-%d %H:%M:%S", _arrow_name(kind))
    low, high = (f"arrow_cast('{bound.strftime(shape)}', '{name}')" for bound in (part.start, part.end))
    return f"`{part.column}` >= {low} AND `{part.column}` < {high}"


def _arrow_name(kind: pa.DataType) -> str:
    return 'Timestamp(Microsecond, Some("UTC"))' if kind.tz else "Timestamp(Microsecond, None)"


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    from etl_resources.delta.evolution import conform

    return conform(batch, schema, where="silver")
