"""The last state of a table: the newest event of every key in its log, and the hash of the row that it gave.

The log is the only place where it stands. What is beside it, `ops/hashes/…`, are other hashes of rows of the log: the
hash of an event's row depends on the columns, and on the version of what hashes. When these change, all rows are
compared once by their values, and the new hashes of those that are the same are noted there, so that they need not
become events. It cannot disagree with the log, because an event never changes; without it, rows are compared by their
values again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import DELETE, TRUNCATE
from etl_resources.engines.duckdb import literal, quote
from etl_resources.hashed import HASH
from etl_resources.lake import Commit

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.bronze import Bronze
    from etl_resources.engines.duckdb import Session
    from etl_resources.lake import Handle, LakeTable
    from etl_resources.source import Position

ENTRY = "_capture"
"""Entry of a bronze table's position that is ours; the others are the source's."""
_ORDER = "(_pos::HUGEINT * 18446744073709551616 + _seq)"


@dataclass(frozen=True)
class Mark:
    """What a position says about the comparisons that led to it."""

    epoch: int = 0
    """Number of the newest one; `_pos` of its events."""
    hashed_by: str | None = None
    """What the hashes were made by; None: they were not."""
    since: int = 0
    """The epoch since which they are made by that."""
    reconciled: str | None = None
    """When all keys were last looked at, in ISO 8601, for watermarks."""
    cursor: str | None = None
    """What the source's part of the position is of, for watermarks."""

    @classmethod
    def of(cls, position: Position | None) -> Mark:
        """Read a position, of whatever capture."""
        return cls(**(position or {}).get(ENTRY, {}))

    def within(self, position: Position | None) -> dict[str, Any]:
        """Return the source's position with this in it."""
        return {**(position or {}), ENTRY: {name: value for name, value in asdict(self).items() if value is not None}}


def of_source(position: Position | None) -> Position | None:
    """Return the part of a position that is the source's; None: it was never read."""
    rest = {name: value for name, value in (position or {}).items() if name != ENTRY}
    return rest or None


class State:
    """The last state, in the temporary table `live`: the key, `pos` and `seq` of the newest event, `hash` or null."""

    def __init__(self, session: Session, bronze: Bronze, handle: Handle | None, key: Sequence[str]) -> None:
        self.session, self.bronze, self.key = session, bronze, tuple(key)
        self.schema: pa.Schema | None = handle.schema() if handle is not None else None
        self.log: str | None = None
        self.handle = handle
        if handle is not None and self.schema is not None and "_pos" in self.schema.names:
            self.log = session.lake_relation(handle)
        self.mark = Mark.of(bronze.position_at(handle))

    @property
    def newest(self) -> int:
        """The greatest `_pos` there is, or 0."""
        if self.log is None:
            return self.mark.epoch
        (found,) = self.session.execute(f"SELECT coalesce(max(_pos), 0) FROM {self.log}")[0]  # noqa: S608
        return max(self.mark.epoch, int(found))

    @property
    def names(self) -> Sequence[str]:
        """Columns of the log."""
        return self.schema.names if self.schema is not None else ()

    def load(self, types: pa.Schema, hashed_by: str | None) -> int:
        """Make `live`; returns the number of keys.

        Args:
            types: has the columns of the key, for a log that is not there yet.
            hashed_by: what the hashes have to be made by; None: the table gets none.
        """
        execute, keys = self.session.execute, ", ".join(map(quote, self.key))
        if self.log is None or any(name not in self.names for name in self.key):
            self.session.connection.register("_no_keys", types.empty_table().select(list(self.key)))
            execute(
                f"CREATE TEMP TABLE live AS SELECT {keys}, 0::BIGINT AS pos, 0::BIGINT AS seq, NULL::BIGINT AS hash "  # noqa: S608
                "FROM _no_keys"
            )
            return 0
        complete = " AND ".join(f"{quote(name)} IS NOT NULL" for name in self.key)
        emptied = execute(f"SELECT max({_ORDER}) FROM {self.log} WHERE _op = {literal(TRUNCATE)}")[0][0]  # noqa: S608
        after = f" AND {_ORDER} > {emptied}" if emptied is not None else ""
        stored = f"arg_max_null({HASH}, {_ORDER})" if HASH in self.names and hashed_by is not None else "NULL::BIGINT"
        hash_ = self._current("e", hashed_by) if hashed_by is not None else "NULL::BIGINT"
        execute(
            f"CREATE TEMP TABLE live AS SELECT {keys}, pos, seq, {hash_} AS hash FROM ("  # noqa: S608
            f"SELECT {keys}, max(_pos) AS pos, arg_max(_seq, {_ORDER}) AS seq, arg_max(_op, {_ORDER}) AS op, "
            f"{stored} AS stored FROM {self.log} WHERE {complete} AND _pos IS NOT NULL{after} GROUP BY {keys}) e "
            f"WHERE op <> {literal(DELETE)}"
        )
        return int(execute("SELECT count(*) FROM live")[0][0])

    def _current(self, event: str, hashed_by: str) -> str:
        """Return SQL: the hash of an event's row as it is made now; null: it is not known."""
        if self.mark.hashed_by != hashed_by:
            return "NULL::BIGINT"
        noted = self._noted(hashed_by)
        older = "NULL::BIGINT"
        if noted is not None:
            older = f"(SELECT h.{HASH} FROM {noted} h WHERE h._pos = {event}.pos AND h._seq = {event}.seq)"  # noqa: S608
        return f"CASE WHEN {event}.pos >= {self.mark.since} THEN {event}.stored ELSE {older} END"

    def _noted(self, hashed_by: str) -> str | None:
        handle = self._notes.open() if self.mark.since else None
        if handle is None:
            return None
        # A correlated look-up must not find two: each event is noted once.
        relation = self.session.lake_relation(handle)
        return f"(SELECT _pos, _seq, {HASH} FROM {relation} WHERE _by = {literal(hashed_by)})"  # noqa: S608

    @property
    def _notes(self) -> LakeTable:
        return self.bronze.lake.table("ops", "hashes", *self.bronze.table.key[1:])

    def note(self, relation: str, hashed_by: str) -> int:
        """Keep the hashes of events in place of those noted before; returns how many.

        Args:
            relation: SQL after FROM with `pos`, `seq` and `_hash`.
        """
        import pyarrow as pa

        from etl_resources.delta.evolution import conform

        schema = pa.schema([("_pos", pa.int64()), ("_seq", pa.int64()), (HASH, pa.int64()), ("_by", pa.string())])
        sql = f"SELECT pos AS _pos, seq AS _seq, {HASH}, {literal(hashed_by)} AS _by FROM {relation}"  # noqa: S608
        table = self._notes
        handle = table.ensure(schema)
        with table.stage(handle, schema) as staged:
            for batch in self.session.stream(sql):
                staged.write(conform(batch, schema, where=table.name))
            staged.finish()
            rows = staged.stored_rows
            table.replace(handle, staged, Commit(table.name, handle.committed(table.name) + 1))
        return rows
