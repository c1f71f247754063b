"""One commit of a silver table: errors first, then the data with their account."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from etl_assets.account import RowAccount
from etl_assets.errors import ErrorTable, error_schema
from etl_assets.run import Run
from etl_assets.silver_fates import TABLE, Versions, decide
from etl_assets.silver_query import Judgement, hit
from etl_resources.delta.rewriting import Changes, Source
from etl_resources.engines.duckdb import Session, literal, quote
from etl_resources.exceptions import ContractViolationError, RowsNotConservedError
from etl_resources.lake import Commit, Handle

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.silver import Silver
    from etl_assets.silver_work import Work
    from etl_resources.source import Window


class Refinement:
    """One commit of a silver table."""

    def __init__(
        self, silver: Silver, session: Session, judgement: Judgement, work: Work, handle: Handle | None, run: Run
    ) -> None:
        self.silver, self.session, self.judgement, self.work = silver, session, judgement, work
        self.handle, self.run = handle, run
        self.errors = ErrorTable(silver.lake)
        self.number = (handle.committed(silver.app_id) if handle is not None else 0) + 1
        self.versions = Versions(silver.spec.key, silver.spec.order)
        self.watched: dict[str, int] = {}
        self.references = silver.reference_versions()

    def publish(self) -> tuple[RowAccount, int]:
        """Judge, decide, write errors, then data; returns the account and the Delta version."""
        silver, session = self.silver, self.session
        session.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {self.judgement.sql}")
        current = self._current()
        decide(session, self.judgement, self.versions, current=current, rivals=self.work.rivals)
        account = self._account()
        self._gate(account)
        self.run.progress(silver.app_id, account.read)
        schema = self._schema()
        handle = silver.table.ensure(schema, personal=self._personal())
        if self.handle is None:
            self.handle = handle
        if not self.work.rebuild:
            self.handle = silver.table.evolve(self.handle, schema)
        try:
            self._stage_errors()
            self.run.point("silver:before_errors")
            self.errors.commit(silver.app_id, self.number, self.run)
        finally:
            self.errors.discard()
        self.run.point("silver:before_commit")
        fresh = self._write(account, schema)
        self.run.point("silver:after_commit")
        silver.ledger.copy(fresh, silver.app_id)
        silver.table.tidy()
        return account, fresh.version

    def _current(self) -> str | None:
        """Return the relation of the rows that the new ones meet; None where there are none or they all go."""
        if self.handle is None or self.work.rebuild or self.work.window is not None or self.handle.rows() == 0:
            return None
        return self.session.lake_relation(self.handle)

    def _account(self) -> RowAccount:
        rows = self.session.execute("SELECT fate, count(*) FROM fated GROUP BY 1")
        counts = {fate: count for fate, count in rows if fate is not None}
        account = RowAccount(
            read=self.work.read,
            inserted=counts.pop("inserted", 0),
            updated=counts.pop("updated", 0),
            deleted=counts.pop("deleted", 0),
            unchanged=counts.pop("unchanged", 0),
            superseded=counts.pop("superseded", 0) + self.work.superseded,
            filtered={fate.partition(":")[2]: rows for fate, rows in counts.items() if fate.startswith("filtered:")},
            rejected={fate.partition(":")[2]: rows for fate, rows in counts.items() if fate.startswith("rejected:")},
            removed=self._removals(),
        )
        return account.check(where=self.silver.app_id)

    def _removals(self) -> int:
        """Create `removed(key…)`, the keys that leave the table though no row announces it, and count them."""
        keys = ", ".join(quote(name) for name in self.versions.key)
        filtered = "SELECT {keys} FROM judged j JOIN fated f ON f.rid = j.rowid WHERE f.action = 'delete' AND f.fate LIKE 'filtered:%'"
        sql = filtered.format(keys=self.versions.keys("j"))
        current = self._current()
        if self.silver.spec.snapshot and current is not None and not self.work.replay:
            sql += (
                f" UNION SELECT {keys} FROM {current} s WHERE NOT EXISTS "  # noqa: S608
                f"(SELECT 1 FROM judged j WHERE {self.versions.same_key('j', 's')})"
            )
        self.session.execute(f"CREATE OR REPLACE TEMP TABLE removed AS {sql}")
        return self.session.execute("SELECT count(*) FROM removed")[0][0]

    def _gate(self, account: RowAccount) -> None:
        """Hold the staged rows against the budget and the rules that must not fail."""
        silver, spec = self.silver, self.silver.spec
        samples = (f"{rule}: {record}" for rule, record in self._samples()) if account.rejected else ()
        spec.budget.check(dict(account.rejected), account.read, where=silver.app_id, samples=samples)
        if not self.judgement.watched:
            return
        counts = ", ".join(
            f"count(*) FILTER (WHERE {hit('j', 'w', index)})" for index in range(len(self.judgement.watched))
        )
        hits = self.session.execute(f"SELECT count(*), {counts} FROM judged j")[0]  # noqa: S608
        self.watched = {rule.id: rows for rule, rows in zip(self.judgement.watched, hits[1:], strict=True)}
        broken = [
            f"{rule.id} ({rule.description or rule.kind}): {self.watched[rule.id]} of {hits[0]} rows"
            for rule in self.judgement.watched
            if rule.on_fail == "fail" and not rule.threshold.holds(self.watched[rule.id], hits[0])
        ]
        if broken:
            raise ContractViolationError(
                "the contract does not hold: " + "; ".join(broken),
                where=silver.app_id,
                fix="nothing was published: mend the source or the steps, or let the rule reject rows (on_fail: reject)",
            )

    def _samples(self, limit: int = 3) -> list[tuple[str, str]]:
        """Return some rejected rows for people, one per rule at first."""
        sql = (
            "SELECT f.fate, to_json(j)::VARCHAR FROM judged j JOIN fated f ON f.rid = j.rowid "  # noqa: S608
            f"WHERE f.fate LIKE 'rejected:%' QUALIFY row_number() OVER (PARTITION BY f.fate) = 1 LIMIT {limit}"
        )
        return [(fate, record[:200]) for fate, record in self.session.execute(sql)]

    def _stage_errors(self) -> None:
        """Stage a row of `ops/errors` per rejected row, with the bronze record as it came."""
        silver, run = self.silver, self.run
        sql = f"""
            SELECT {literal(silver.app_id)} || ':' || j._batch || ':' || j._row AS error_id,
                {literal(silver.app_id)} AS asset, {self.number}::BIGINT AS commit, j._batch AS batch, j._row AS row,
                'open' AS status, substr(f.fate, 10) AS rule, {self.judgement.names("rule")} AS rules,
                array_to_string({self.judgement.names("reason")}, '; ') AS reason, to_json(b)::VARCHAR AS record,
                NULL::BLOB AS raw, b._origin AS origin, NULL::BIGINT AS line, {literal(run.run_id)} AS run_id,
                now() AS happened_at, NULL::VARCHAR AS note
            FROM judged j JOIN fated f ON f.rid = j.rowid JOIN {self.work.relation} b
                ON b._batch = j._batch AND b._row = j._row
            WHERE f.fate LIKE 'rejected:%'
        """  # noqa: S608
        if self.work.replay or not self.session.execute("SELECT 1 FROM fated WHERE fate LIKE 'rejected:%' LIMIT 1"):
            return
        import pyarrow as pa

        for batch in self.session.stream(sql):
            self.errors.stage(pa.Table.from_batches([batch]).cast(error_schema()))

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        columns = ", ".join(quote(name) for name in (*self.judgement.columns, *TABLE))
        schema = self.session.arrow_schema(f"(SELECT {columns} FROM judged)")  # noqa: S608
        contract = self.silver.spec.contract
        described = {column.name: column.description for column in contract.columns} if contract is not None else {}
        return pa.schema([_delta_field(field, described.get(field.name)) for field in schema])

    def _personal(self) -> Sequence[str]:
        contract = self.silver.spec.contract
        return contract.personal_columns if contract is not None else ()

    def _write(self, account: RowAccount, schema: pa.Schema) -> Handle:
        silver, work = self.silver, self.work
        assert self.handle is not None  # noqa: S101 - set by publish
        record = {
            "run_id": self.run.run_id,
            "account": account.to_json(),
            "bronze": dict(work.marks),
            "partition": work.partition,
        }
        # As of before the rows were judged: if a table grew meanwhile, the next run tries the missing keys again.
        references = {f"reference:{name}": version for name, version in self.references.items()}
        commit = Commit(silver.app_id, self.number, record, {**references, **work.marks})
        columns = ", ".join(f"j.{quote(name)}" for name in schema.names)
        rows = f"SELECT {columns} FROM judged j JOIN fated f ON f.rid = j.rowid WHERE f.action"  # noqa: S608
        if work.window is not None:
            account = replace(account, removed=self._in_window(schema))
            record["account"] = account.to_json()
            return self._write_partition(f"{rows} = 'insert'", schema, commit, account)
        changed = self.session.execute("SELECT count(*) FROM fated WHERE action IN ('update', 'delete')")[0][0]
        if work.rebuild or not (changed or account.removed):
            return self._write_inserts(f"{rows} = 'insert'", schema, commit, account)
        return self._merge(columns, schema, commit, account)

    def _in_window(self, schema: pa.Schema) -> int:
        """Count the rows of the partition that go."""
        handle = self.handle
        assert handle is not None  # noqa: S101 - set by publish
        window = self.work.window
        assert window is not None  # noqa: S101 - asked by the caller
        if handle.rows() == 0:
            return 0
        relation, column = self.session.lake_relation(handle), quote(window.column)
        low, high = (
            f"CAST({literal(bound.strftime('%Y-%m-%d %H:%M:%S'))} AS TIMESTAMP)" for bound in (window.start, window.end)
        )
        where = f"{column}::TIMESTAMP >= {low} AND {column}::TIMESTAMP < {high}"
        return self.session.execute(f"SELECT count(*) FROM {relation} WHERE {where}")[0][0]

    def _write_inserts(self, sql: str, schema: pa.Schema, commit: Commit, account: RowAccount) -> Handle:
        """Append: no row of the load meets a row of the table, so there is nothing to merge."""
        table, handle = self.silver.table, self.handle
        assert handle is not None  # noqa: S101 - set by publish
        with table.stage(handle, schema) as staged:
            for batch in self.session.stream(sql):
                staged.write(_cast(batch, schema))
            staged.finish()
            _agree(staged.stored_rows, account.inserted, "rows written", table.name)
            return table.replace(handle, staged, commit) if self.work.rebuild else table.append(handle, staged, commit)

    def _write_partition(self, sql: str, schema: pa.Schema, commit: Commit, account: RowAccount) -> Handle:
        window, handle = self.work.window, self.handle
        assert window is not None  # noqa: S101 - asked by the caller
        assert handle is not None  # noqa: S101 - set by publish
        expected = Changes(inserted=account.inserted, deleted=account.removed)
        predicate = window_predicate(window, schema)
        return self.silver.table.replace_where(handle, self._reader(sql, schema), predicate, commit, expected)

    def _merge(self, columns: str, schema: pa.Schema, commit: Commit, account: RowAccount) -> Handle:
        import pyarrow as pa

        handle = self.handle
        assert handle is not None  # noqa: S101 - set by publish
        sql = (
            f"SELECT {columns}, f.action AS _action FROM judged j JOIN fated f ON f.rid = j.rowid "  # noqa: S608
            "WHERE f.action IS NOT NULL AND f.fate NOT LIKE 'filtered:%' UNION ALL BY NAME "
            f"SELECT {', '.join(quote(name) for name in self.versions.key)}, 'delete' AS _action FROM removed"
        )
        wanted = schema.append(pa.field("_action", pa.string()))
        expected = Changes(account.inserted, account.updated, account.deleted + account.removed)
        return self.silver.table.merge(handle, self._reader(sql, wanted), self.versions.key, commit, expected)

    def _reader(self, sql: str, schema: pa.Schema) -> Source:
        def read() -> pa.RecordBatchReader:
            import pyarrow as pa

            batches = (_cast(batch, schema) for batch in self.session.stream(sql))
            return pa.RecordBatchReader.from_batches(schema, batches)

        return read


def window_predicate(window: Window, schema: pa.Schema) -> str:
    """Return the SQL predicate of a partition, in the type of its event-time column."""
    from pyarrow import types

    kind = schema.field(window.column).type
    shape = "%Y-%m-%d" if types.is_date(kind) else "%Y-%m-%d %H:%M:%S"
    low, high = (
        f"arrow_cast('{bound.strftime(shape)}', '{_arrow_name(kind)}')" for bound in (window.start, window.end)
    )
    return f"`{window.column}` >= {low} AND `{window.column}` < {high}"


def _arrow_name(kind: pa.DataType) -> str:
    from pyarrow import types

    if types.is_date(kind):
        return "Date32"
    return 'Timestamp(Microsecond, Some("UTC"))' if kind.tz else "Timestamp(Microsecond, None)"


def _agree(found: int, expected: int, what: str, table: str) -> None:
    if found != expected:
        raise RowsNotConservedError(
            f"{what}: {found}, but the account says {expected}",
            where=table,
            fix="this is a defect of the platform or of the storage: please report it",
        )


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    from etl_resources.delta.evolution import conform

    return conform(batch, schema, where="silver")


def _delta_field(field: pa.Field, description: str | None) -> pa.Field:
    """Return the field as Delta stores it: microseconds, UTC, nullable; described."""
    import pyarrow as pa

    from etl_resources.delta.evolution import widest

    keep = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    unsigned = pa.types.is_unsigned_integer(field.type)
    kind = field.type if keep and not unsigned else widest(field.type)
    return pa.field(field.name, kind, metadata={"comment": description} if description else None)
