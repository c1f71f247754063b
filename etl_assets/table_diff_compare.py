"""What has become of the rows of a table since its last state: the one comparison, in the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from etl_assets.table_diff_columns import before_sql, differs
from etl_assets.table_diff_staged import ORIGIN
from etl_resources.change_log import DELETE, INSERT, READ, UPDATE, event_fields
from etl_resources.engines.duckdb import literal, quote
from etl_resources.hashed import HASH
from etl_resources.source import unreadable_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.table_diff_staged import Staged
    from etl_assets.table_diff_state import State
    from etl_resources.engines.duckdb import Session

CHANGED = ("insert", "update", "unknown")
"""What may have changed: a key that is new, another hash, a row whose hash is not known."""
KEYLESS, DOUBLED, SAME = "keyless", "doubled", "same"
_REASONS = {KEYLESS: "a column of the key is null", DOUBLED: "its key comes more than once"}


class Comparison:
    """The rows in `seen` against `live`, see `State`.

    `judged` has every row of `seen`: key, `_hash`, `what` became of it, and the place of its key's newest event.
    """

    def __init__(self, session: Session, state: State, seen: Staged, key: Sequence[str]) -> None:
        self.session, self.state, self.seen, self.key = session, state, seen, tuple(key)
        self.counts: dict[str, int] = {}
        self.gone = 0

    def judge(self, hash_sql: str) -> None:
        """Decide about every row, and find the keys that are gone."""
        execute, keys = self.session.execute, ", ".join(map(quote, self.key))
        complete = self.seen.complete("s")
        execute(
            f"CREATE TEMP TABLE twice AS SELECT {keys} FROM seen s WHERE {complete} "  # noqa: S608
            f"GROUP BY {keys} HAVING count(*) > 1"
        )
        execute(
            f"CREATE TEMP TABLE judged AS SELECT {self._keys('s')}, s.{HASH}, l.pos, l.seq, "  # noqa: S608
            f"CASE WHEN NOT ({complete}) THEN {literal(KEYLESS)} WHEN d.__twice THEN {literal(DOUBLED)} "
            f"WHEN l.pos IS NULL THEN 'insert' WHEN l.hash IS NULL THEN 'unknown' WHEN l.hash = s.{HASH} "
            f"THEN {literal(SAME)} ELSE 'update' END AS what FROM (SELECT {keys}, {hash_sql} AS {HASH} FROM seen) s "
            f"LEFT JOIN live l ON {self._same('s', 'l')} "
            f"LEFT JOIN (SELECT *, true AS __twice FROM twice) d ON {self._same('s', 'd')}"
        )
        self.counts = dict(execute("SELECT what, count(*) FROM judged GROUP BY 1"))

    def find_gone(self) -> None:
        """Make `gone`, the keys that have left the table: not those in `withheld`, of which no more is known."""
        self.session.execute(
            f"CREATE TEMP TABLE gone AS SELECT l.* FROM live l ANTI JOIN seen s ON {self._same('s', 'l')} "  # noqa: S608
            f"ANTI JOIN withheld w ON {self._same('w', 'l')}"
        )
        self.gone = int(self.session.execute("SELECT count(*) FROM gone")[0][0])

    def changed(self) -> int:
        """Return how many rows may have changed."""
        return sum(self.counts.get(what, 0) for what in CHANGED)

    def wanted(self) -> pa.Table:
        """Return the keys of the rows that may have changed."""
        return self.session.table(f"SELECT {self._keys('j')} FROM judged j WHERE what IN {CHANGED}")  # noqa: S608

    def bad(self) -> Iterator[pa.RecordBatch]:
        """Yield, in `unreadable_schema()`, the rows that have no identity."""
        from etl_resources.delta.evolution import conform

        conditions = {KEYLESS: f"NOT ({self.seen.complete('s')})", DOUBLED: f"({self.seen.complete('s')})"}
        for what, condition in conditions.items():
            if not self.counts.get(what):
                continue
            only = f"SEMI JOIN twice d ON {self._same('s', 'd')}" if what == DOUBLED else ""
            own = ", ".join(f"{quote(name)} := s.{quote(name)}" for name in self.seen.row.names)
            sql = (
                f"SELECT {literal(_REASONS[what] + ': ' + ', '.join(self.key))} AS reason, "  # noqa: S608
                f"encode(to_json(struct_pack({own}))::VARCHAR) AS raw FROM seen s {only} WHERE {condition}"
            )
            for batch in self.session.stream(sql):
                yield conform(batch, unreadable_schema(), where=self.seen.where)

    def remember(self) -> None:
        """Make `old`: the newest events of keys that may have changed, or are gone."""
        if self.state.log is None or not (self.gone or self.counts.get("update") or self.counts.get("unknown")):
            self.session.execute("CREATE TEMP TABLE old AS SELECT 0::BIGINT AS _pos, 0::BIGINT AS _seq WHERE false")
            return
        self.session.execute(
            f"CREATE TEMP TABLE old AS SELECT b.* FROM {self.state.log} b JOIN (SELECT pos, seq FROM judged "  # noqa: S608
            f"WHERE what IN ('update', 'unknown') UNION ALL SELECT pos, seq FROM gone) p "
            "ON b._pos = p.pos AND b._seq = p.seq"
        )

    def events(self, rows: Staged, *, first: bool) -> Iterator[pa.RecordBatch]:
        """Yield the changes as rows of a log, without `_pos` and `_seq`.

        Args:
            rows: the rows that may have changed, with all their columns.
            first: there was nothing before; the rows were not inserted, but found.
        """
        own = ", ".join(f"r.{quote(name)}" for name in [*rows.row.names, *self._origin(rows)])
        joined = f"FROM {rows.name} r JOIN judged j ON {self._same('r', 'j')}"
        if self.counts.get("insert"):
            yield from self._events(
                rows,
                f"SELECT {own}, {literal(READ if first else INSERT)} AS _op, j.{HASH} {joined} WHERE what = 'insert'",
            )
        if self.state.schema is None:
            return
        before = before_sql("o", rows.row, self.state.schema, self.session.types(rows.name))
        if self.counts.get("update") or self.counts.get("unknown"):
            sql = f"SELECT {own}, {literal(UPDATE)} AS _op, j.{HASH}, {before} AS _before {joined} {_PLACE} "
            yield from self._events(
                rows, f"{sql} WHERE what = 'update' OR (what = 'unknown' AND {self._differs(rows)})"
            )
        if self.gone:
            sql = f"SELECT {self._keys('j')}, {literal(DELETE)} AS _op, {before} AS _before FROM gone j {_PLACE}"  # noqa: S608
            yield from self._events(rows, sql)

    def keep(self, rows: Staged, since: int) -> str:
        """Make and return the table of those events whose hash has become known: rows that were compared by value.

        Further it has what was known only from such a table: events before `since`.
        """
        joined = f"FROM {rows.name} r JOIN judged j ON {self._same('r', 'j')} {_PLACE}"
        self.session.execute("CREATE TEMP TABLE kept (pos BIGINT, seq BIGINT, _hash BIGINT)")
        if self.counts.get("unknown"):
            self.session.execute(
                f"INSERT INTO kept SELECT j.pos, j.seq, j.{HASH} {joined} "
                f"WHERE what = 'unknown' AND NOT {self._differs(rows)}"
            )
        self.counts[SAME] = self.counts.get(SAME, 0) + int(self.session.execute("SELECT count(*) FROM kept")[0][0])
        self.session.execute(
            f"INSERT INTO kept SELECT pos, seq, {HASH} FROM judged WHERE what = {literal(SAME)} AND pos < {since}"  # noqa: S608
        )
        return "kept"

    def nothing(self, rows: Staged) -> pa.RecordBatch:
        """Return no event, with all columns."""
        import pyarrow as pa

        return pa.RecordBatch.from_pylist([], schema=self._schema(rows))

    def _schema(self, rows: Staged) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([*rows.row, *event_fields(rows.row), pa.field(HASH, pa.int64())])

    def _events(self, rows: Staged, sql: str) -> Iterator[pa.RecordBatch]:
        from etl_resources.delta.evolution import conform

        schema = self._schema(rows)
        for batch in self.session.stream(sql):
            yield conform(batch, schema, where=self.seen.where)

    def _differs(self, rows: Staged) -> str:
        assert self.state.schema is not None  # noqa: S101 - else no row has an event
        return differs("r", "o", rows.row, self.state.schema)

    def _origin(self, rows: Staged) -> list[str]:
        return [ORIGIN] if rows.schema is not None and ORIGIN in rows.schema.names else []

    def _keys(self, alias: str) -> str:
        return ", ".join(f"{alias}.{quote(name)}" for name in self.key)

    def _same(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.{quote(name)} = {right}.{quote(name)}" for name in self.key)


_PLACE = "JOIN old o ON o._pos = j.pos AND o._seq = j.seq"
