"""From the staging table into the target, by key: only what differs is written."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_resources.exceptions import RowsNotConservedError
from etl_resources.postgres_errors import RefusedStatementError
from etl_resources.postgres_sql import columns, quote
from etl_resources.targets.postgres_refusals import Refusals, apply_in_halves
from etl_resources.targets.postgres_staging import NUMBER, STAGE, index_stage, row_as_json

if TYPE_CHECKING:
    from etl_resources.postgres_session import Session
    from etl_resources.targets.postgres_table import Table


@dataclass
class Applied:
    """Rows by what was done with them."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    deleted: int = 0
    refused: list[int] = field(default_factory=list)


class KeyedLoad:
    """One load by key: the newest version of each key is inserted, updated or left alone."""

    def __init__(
        self, session: Session, table: Table, key: tuple[str, ...], refusals: Refusals, *, staged: int, last: int
    ) -> None:
        self._session, self._table, self._refusals = session, table, refusals
        self._key = key
        self._staged = staged
        self._last = last
        self._match = " AND ".join(f"s.{quote(name)} = t.{quote(name)}" for name in key)
        # The binary images are compared: exact for every type, also for those without an equality of their own.
        self._differs = f"NOT (ROW({columns(table.names, 's.')})::record *= ROW({columns(table.names, 't.')})::record)"

    def apply(self, *, delete_absent: bool) -> Applied:
        """Bring the target up to the staged rows; with `delete_absent` it then has these and no other.

        Raises:
            RowsNotConservedError: a trigger or rule of the target swallowed rows.
        """
        done = Applied()
        self._staged -= self._refuse_null_keys()
        done.superseded = self._drop_superseded()
        self._staged -= done.superseded
        self._session.execute(f"ANALYZE pg_temp.{STAGE}")
        if self._table.is_new:
            self._write(done, to_insert=self._staged, to_update=0)
            self._table.add_key(self._session, self._key)
            return done
        self._table.add_missing(self._session)
        # Readers go on; other writers wait, or the counts below would not be true for long.
        self._session.execute(f"LOCK TABLE {self._table.quoted} IN SHARE ROW EXCLUSIVE MODE")
        if delete_absent:
            done.deleted = self._delete_absent()
        to_insert, to_update, done.unchanged = self._classify()
        self._write(done, to_insert, to_update)
        if delete_absent and done.refused:
            # What a table holds after a replace must not depend on what it held before.
            self._session.execute(f"DELETE FROM pg_temp.{STAGE} WHERE {NUMBER} IN ({_listed(done.refused)})")  # noqa: S608
            done.deleted += self._delete_absent()
        return done

    def _refuse_null_keys(self) -> int:
        """Take rows out that no key identifies."""
        refused = 0
        for name in self._key:
            condition = f"FROM pg_temp.{STAGE} s WHERE {quote(name)} IS NULL"
            found = self._session.rows(f"SELECT (to_jsonb(s) - '{NUMBER}')::text {condition} ORDER BY {NUMBER}")
            error = RefusedStatementError(
                f"the key column {name} is null", where=self._table.quoted, sqlstate="23502",
                diagnosis={"COLUMN_NAME": name},
            )  # fmt: skip
            for (record,) in found:
                self._refusals.add(record, error)
            if found:
                self._session.execute(f"DELETE {condition}")
            refused += len(found)
        return refused

    def _drop_superseded(self) -> int:
        key = columns(self._key)
        newest = f"SELECT {key}, max({NUMBER}) AS newest FROM pg_temp.{STAGE} GROUP BY {key} HAVING count(*) > 1"  # noqa: S608
        return self._session.execute(
            f"DELETE FROM pg_temp.{STAGE} s USING ({newest}) t WHERE {self._match} AND s.{NUMBER} < t.newest"  # noqa: S608
        )

    def _delete_absent(self) -> int:
        return self._session.execute(
            f"DELETE FROM {self._table.quoted} t"  # noqa: S608
            f" WHERE NOT EXISTS (SELECT FROM pg_temp.{STAGE} s WHERE {self._match})"
        )

    def _classify(self) -> tuple[int, int, int]:
        """Return how many staged rows are to be inserted, to be updated, and are there already."""
        absent = f"t.{quote(self._key[0])} IS NULL"
        found = self._session.rows(
            f"SELECT count(*) FILTER (WHERE {absent}), count(*) FILTER (WHERE NOT {absent} AND {self._differs}),"  # noqa: S608
            f" count(*) FROM pg_temp.{STAGE} s LEFT JOIN {self._table.quoted} t ON {self._match}"
        )
        to_insert, to_update, rows = (int(n) for n in found[0])
        if rows != self._staged:
            raise RowsNotConservedError(f"{self._staged} rows were staged, {rows} found", where=self._table.quoted)
        return to_insert, to_update, rows - to_insert - to_update

    def _write(self, done: Applied, to_insert: int, to_update: int) -> None:
        done.updated = self._run(self._update, to_update, done)
        done.inserted = self._run(self._insert, to_insert, done)

    def _run(self, statement: Callable[[int, int], int], expected: int, done: Applied) -> int:
        if expected == 0:
            return 0
        index = functools.partial(index_stage, self._session)
        count, refused = apply_in_halves(self._session, 0, self._last, statement, before_halving=index)
        for number, error in refused:
            self._refusals.add(row_as_json(self._session, STAGE, number), error)
            done.refused.append(number)
        if count + len(refused) != expected:
            raise RowsNotConservedError(
                f"{expected} rows were to be written, {count} were written and {len(refused)} refused",
                where=self._table.quoted, fix="look for triggers or rules of the table that drop rows",
            )  # fmt: skip
        return count

    def _update(self, first: int, last: int) -> int:
        changed = ", ".join(f"{quote(n)} = s.{quote(n)}" for n in self._table.names if n not in self._key)
        if not changed:
            changed = f"{quote(self._key[0])} = s.{quote(self._key[0])}"
        return self._session.execute(
            f"UPDATE {self._table.quoted} t SET {changed} FROM pg_temp.{STAGE} s"  # noqa: S608
            f" WHERE {self._match} AND {self._differs}{self._between(first, last)}"
        )

    def _insert(self, first: int, last: int) -> int:
        names = columns(self._table.names)
        absent = f" AND NOT EXISTS (SELECT FROM {self._table.quoted} t WHERE {self._match})"
        return self._session.execute(
            f"INSERT INTO {self._table.quoted} ({names}) OVERRIDING SYSTEM VALUE"  # noqa: S608
            f" SELECT {columns(self._table.names, 's.')} FROM pg_temp.{STAGE} s"
            f" WHERE true{'' if self._table.is_new else absent}{self._between(first, last)}"
        )

    def _between(self, first: int, last: int) -> str:
        if (first, last) == (0, self._last):
            return ""
        return f" AND s.{NUMBER} BETWEEN {first} AND {last}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
