"""Merge by key: the files that hold a changed row are written anew, and take the place of the old ones in one commit.

delta-rs has a MERGE of its own, which takes twice the processor time and tells what it did only after the commit
(measured, 1.6.6). Here every row is counted before it: what is to be done, where it meets the table, and what lies in
the new files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.delta.commit import Commit
from etl_resources.delta.evolution import conform
from etl_resources.delta.rewriting import Changes
from etl_resources.delta.swapping import exchange
from etl_resources.exceptions import ConfigurationError, RowsNotConservedError

if TYPE_CHECKING:
    from etl_resources.delta.handle import DataFile, Handle
    from etl_resources.delta.staging import Staging
    from etl_resources.engines.duckdb import Session

_FILE = "__file"


@dataclass(frozen=True)
class Merge:
    """What is merged: `changes` is an SQL relation of `session` with `columns` of the table, and `_action`."""

    session: Session
    changes: str
    columns: Collection[str]
    key: Sequence[str]
    expected: Changes
    personal: Collection[str] = ()
    """Columns of which no minimum and maximum is kept, on top of those that the table knows."""


def merge(handle: Handle, what: Merge, commit: Commit) -> None:
    """Commit the changes; see `LakeTable.merge`."""
    table = handle.table
    if not handle.plain_files():
        raise ConfigurationError(
            "rows cannot be merged into a table with deletion vectors or partition columns",
            where=table.name,
            fix="load it anew with --full-refresh, or take the feature off it with what put it there",
        )
    keys = _keys(handle, what)
    files = _touched(handle, what, keys)
    with table.stage(handle, handle.schema(), personal=what.personal) as staged:
        if files:
            _write_kept(handle, what, keys, files, staged)
        _write_changed(handle, what, files, staged)
        staged.finish()
        wanted = sum(file.rows for file in files) - what.expected.deleted + what.expected.inserted
        if staged.stored_rows != wanted:
            raise RowsNotConservedError(
                f"{staged.stored_rows} rows were written instead of {wanted}; nothing was committed",
                where=table.name,
                fix="this is a defect of the platform or of the storage: please report it",
            )
        with staged.committing(table._files):  # noqa: SLF001 - a part of it, in a room of its own
            exchange(handle, files, staged, commit, alone=True)
    what.session.execute(f"DROP TABLE {keys}")


def _keys(handle: Handle, what: Merge) -> str:
    """Create a table of the keys and what is to be done with them, and hold its rows against the account."""
    session, expected = what.session, what.expected
    keys = session.temporary("merged")
    made = f"CREATE TEMP TABLE {keys} AS SELECT {_listed(what.key)}, _action FROM {what.changes}"  # noqa: S608
    rows, total = session.execute(made)[0][0], expected.inserted + expected.updated
    if rows != total + expected.deleted:
        raise RowsNotConservedError(
            f"{rows} rows were to be written, but the account says {total + expected.deleted}; nothing was committed",
            where=handle.table.name,
            fix="this is a defect of the platform: please report it",
        )
    return keys


def _touched(handle: Handle, what: Merge, keys: str) -> list[DataFile]:
    """Return the files that have rows which are updated or deleted.

    Raises:
        RowsNotConservedError: other rows of the table have the keys than the account says, or not all rows were seen.
    """
    # Not as it was listed for those who decided what is new: what they did not see is seen here.
    there = {_name(file.path): file for file in handle.data_files()}
    paths = [file.path for file in there.values()]
    seen = what.session.lake_relation(handle, files=paths, columns=(), named=_FILE)
    rows = {_name(file): n for file, n in what.session.execute(f"SELECT {_FILE}, count(*) FROM {seen} GROUP BY 1")}  # noqa: S608
    if rows != {name: file.rows for name, file in there.items() if file.rows}:
        raise RowsNotConservedError(
            f"the files of the table have {sum(rows.values())} rows, but its log says {handle.rows()}; "
            "nothing was committed",
            where=handle.table.name,
            fix="a data file was changed or is gone: restore it, or load the table anew with --full-refresh",
        )
    relation = what.session.lake_relation(handle, files=paths, columns=what.key, named=_FILE)
    found = what.session.execute(
        f"SELECT {_FILE}, _action, count(*) FROM {relation} t JOIN {keys} s ON {_same_key(what)} GROUP BY ALL"  # noqa: S608
    )
    met = {action: sum(n for _, a, n in found if a == action) for action in ("insert", "update", "delete")}
    expected = what.expected
    if met != {"insert": 0, "update": expected.updated, "delete": expected.deleted}:
        raise RowsNotConservedError(
            f"the table has {met['update']} of {expected.updated} rows that are to be updated, {met['delete']} of "
            f"{expected.deleted} that are to be deleted, and {met['insert']} that are to be inserted; "
            "nothing was committed",
            where=handle.table.name,
            fix="look for what else writes to the table, and load it anew with --full-refresh",
        )
    return [there[name] for name in {_name(file) for file, _, _ in found}]


def _name(location: str) -> str:
    return location.rpartition("/")[2]


def _write_kept(handle: Handle, what: Merge, keys: str, files: Sequence[DataFile], staged: Staging) -> None:
    """Write the rows of the files that stay as they are."""
    relation = what.session.lake_relation(handle, files=[file.path for file in files])
    rows = f"""
        SELECT {_listed(handle.schema().names)} FROM {relation} t
        ANTI JOIN (SELECT * FROM {keys} WHERE _action <> 'insert') s ON {_same_key(what)}
    """  # noqa: S608 - quoted
    _write(handle, what.session, rows, staged)


def _write_changed(handle: Handle, what: Merge, files: Sequence[DataFile], staged: Staging) -> None:
    """Write the rows that are inserted and updated; columns that the changes have not keep their values."""
    from etl_resources.engines.duckdb import quote

    given, names = frozenset(what.columns), handle.schema().names
    columns = ", ".join(f"{'s' if name in given else 't'}.{quote(name)} AS {quote(name)}" for name in names)
    old = ""
    if not given.issuperset(names):
        relation = what.session.lake_relation(handle, files=[file.path for file in files])
        old = f"LEFT JOIN {relation} t ON {_same_key(what)}"
    rows = f"SELECT {columns} FROM (SELECT * FROM {what.changes} WHERE _action <> 'delete') s {old}"  # noqa: S608
    _write(handle, what.session, rows, staged)


def _write(handle: Handle, session: Session, sql: str, staged: Staging) -> None:
    schema, where = handle.schema(), handle.table.name
    for batch in session.stream(sql):
        staged.write(conform(batch, schema, where=where))


def _listed(names: Sequence[str]) -> str:
    from etl_resources.engines.duckdb import quote

    return ", ".join(map(quote, names))


def _same_key(what: Merge) -> str:
    from etl_resources.engines.duckdb import quote

    return " AND ".join(f"t.{quote(name)} = s.{quote(name)}" for name in what.key)
