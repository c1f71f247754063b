"""PostgreSQL tables as a target: one transaction per load, with its rows, its token and its account."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, ClassVar, cast

from pydantic import Field

from etl_resources.exceptions import ConfigurationError, RowsNotConservedError
from etl_resources.postgres import PostgresConnection
from etl_resources.target import Counts, Load, Target, TargetOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.postgres_session import Session
    from etl_resources.targets.postgres_refusals import Refusals
    from etl_resources.targets.postgres_table import Table


class PostgresTargetOptions(TargetOptions):
    """The table to write; made if it is not there, in a schema that is."""

    table: str = Field(description="`table` or `schema.table`, upper and lower case as it is.")


class PostgresTarget(PostgresConnection, Target):
    """Writes by binary COPY, then by set-based statements that leave unchanged rows alone.

    Without a key, `replace` deletes all rows and copies the new ones; with a key it changes only what differs. Readers
    see the old rows until the commit, and the new ones after it. A table that this target makes gets the load's key
    as its primary key. Missing columns are added; none is dropped or changed.
    """

    options_type: ClassVar[type[TargetOptions]] = PostgresTargetOptions
    modes: ClassVar[frozenset[str]] = frozenset({"replace", "append", "upsert"})

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> Counts:
        """Apply the load in one transaction, or not at all; a token that is already there changes nothing.

        Raises:
            ConfigurationError: an upsert without a key, or with one that no unique index of the table backs.
            SchemaConflictError: a column of the table does not take the load's values as they are.
            RefusedStatementError: the server refused a row and the load has no `on_refused`.
            RowsNotConservedError: rows went missing inside the server; nothing was committed.
        """
        from etl_resources.targets import postgres_commits as commits
        from etl_resources.targets.postgres_refusals import Refusals
        from etl_resources.targets.postgres_table import inspect

        options, where = _options(load.options), f"{load.token.app_id}, {self.address}"
        if load.mode == "upsert" and not load.key:
            raise ConfigurationError("an upsert needs a key", where=where, fix="give `key`, or mode: append")
        with self.session() as session, session.transaction():
            session.rows("SELECT set_config('TimeZone', 'UTC', true)")
            session.execute("SET CONSTRAINTS ALL IMMEDIATE")  # or rows would be refused at the commit, all together
            commits.wait_for_turn(session, load.token.app_id)
            table = inspect(session, options.table, load.schema, where)
            newest = commits.newest(session, table.schema, load.token.app_id)
            if newest is not None and newest >= load.token.version:
                known = commits.account(session, table.schema, load.token) if newest == load.token.version else {}
                return Counts(**known, already_committed=True)
            refusals = Refusals(load.on_refused)
            counts = _apply(session, load, table, batches, refusals)
            refusals.flush()
            _check(counts, where)
            account = {k: v for k, v in asdict(counts).items() if k != "already_committed"}
            commits.record(session, table, load, account)
        return counts

    def committed_version(self, options: TargetOptions, app_id: str) -> int | None:
        """Return the highest version committed under `app_id`, or None."""
        from etl_resources.targets import postgres_commits as commits
        from etl_resources.targets.postgres_table import namespace_of

        with self.session() as session:
            return commits.newest(session, namespace_of(session, _options(options).table, self.address), app_id)


def _options(options: TargetOptions) -> PostgresTargetOptions:
    return cast("PostgresTargetOptions", options)


def _apply(session: Session, load: Load, table: Table, batches: Iterable[pa.RecordBatch], refusals: Refusals) -> Counts:
    from etl_resources.targets.postgres_apply import KeyedLoad
    from etl_resources.targets.postgres_staging import Staging
    from etl_resources.targets.postgres_table import check_key

    if load.key and load.mode != "append":
        check_key(session, table, load.key, table.quoted)
        if table.is_new:
            table.create(session)
        staging = Staging(session, table, refusals, into_target=False)
        staging.load(batches, load.schema)
        keyed = KeyedLoad(session, table, load.key, refusals, staged=staging.loaded, last=staging.read)
        done = keyed.apply(delete_absent=load.mode == "replace")
        return Counts(
            staging.read, done.inserted, done.updated, done.unchanged, done.superseded, done.deleted,
            dict(refusals.counts),
        )  # fmt: skip
    return _without_key(session, load, table, batches, refusals)


def _without_key(
    session: Session, load: Load, table: Table, batches: Iterable[pa.RecordBatch], refusals: Refusals
) -> Counts:
    """Append, or replace all: straight into the table where nothing stands in the way."""
    from etl_resources.targets.postgres_staging import Staging

    if table.is_new:
        table.create(session)
    # A table that gets new columns is locked until the commit, also for readers: so its rows are staged first.
    staging = Staging(session, table, refusals, into_target=not table.lacks_columns)
    if table.lacks_columns:
        staging.load(batches, load.schema)
        table.add_missing(session)
    deleted = 0
    if load.mode == "replace" and not table.is_new:
        # Not TRUNCATE: it locks readers out, and shows an empty table to those with an older snapshot.
        session.execute(f"LOCK TABLE {table.quoted} IN SHARE ROW EXCLUSIVE MODE")
        deleted = session.execute(f"DELETE FROM {table.quoted}")  # noqa: S608 - quoted
    if table.lacks_columns:
        inserted = staging.move_to_target()
    else:
        staging.load(batches, load.schema)
        inserted = staging.loaded
    return Counts(read=staging.read, inserted=inserted, deleted=deleted, rejected=dict(refusals.counts))


def _check(counts: Counts, where: str) -> None:
    after = counts.inserted + counts.updated + counts.unchanged + counts.superseded + sum(counts.rejected.values())
    if counts.read != after:
        raise RowsNotConservedError(
            f"{counts.read} rows came, and {after} are accounted for: {counts}", where=where,
            fix="look for triggers or rules of the table that drop rows; nothing was committed",
        )  # fmt: skip


TARGET = PostgresTarget
