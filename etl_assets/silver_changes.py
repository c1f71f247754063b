"""Events of a change log made whole: columns that an event does not give, because they did not change, are filled.

A log may leave out large values that an update did not touch. Their value is the one that the newest earlier event of
the same key gave, and where the key itself was changed, of the old key. It is taken from bronze, where values stand as
the source gave them: those of silver have been through the steps already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from etl_assets.silver_query import Verdict
from etl_resources.change_log import DELETE, TRUNCATE, UPDATE
from etl_resources.engines.duckdb import literal, quote

if TYPE_CHECKING:
    from etl_assets.silver_work import Work
    from etl_resources.engines.duckdb import Session

INCOMPLETE = "incomplete"
"""Temporary table with `_batch` and `_row` of the events for which no earlier event has the value."""


def completed(session: Session, relation: str, log: Callable[[], str], key: Sequence[str]) -> str:
    """Return SQL after FROM: the events of `relation` with all their columns; creates the table `INCOMPLETE`.

    Their `_unchanged` names only what is still missing.

    Args:
        relation: SQL after FROM that gives the events to fill.
        log: returns the same for all events of the table up to them, and at least as many; asked only if it is needed.
        key: columns that identify a row.
    """
    session.execute(f"CREATE OR REPLACE TEMP TABLE {INCOMPLETE} (_batch BIGINT, _row BIGINT)")
    found = session.execute(f"SELECT DISTINCT unnest(_unchanged) FROM {relation} WHERE _unchanged IS NOT NULL")  # noqa: S608
    names = sorted(row[0] for row in found)
    if not names:
        return relation
    _Filling(session, relation, log(), list(key), names).run()
    given = ", ".join(
        f"CASE WHEN list_contains(r._unchanged, {literal(name)}) THEN f.{_given(at)}.v ELSE r.{quote(name)} END "
        f"AS {quote(name)}"
        for at, name in enumerate(names)
    )
    gaps = " OR ".join(
        f"(list_contains(r._unchanged, {literal(name)}) AND f.{_given(at)} IS NULL)" for at, name in enumerate(names)
    )
    missing = ", ".join(
        f"CASE WHEN list_contains(r._unchanged, {literal(name)}) AND f.{_given(at)} IS NULL THEN {literal(name)} END"
        for at, name in enumerate(names)
    )
    left = f"list_filter([{missing}], lambda name: name IS NOT NULL)"
    given += f", CASE WHEN len({left}) > 0 THEN {left} END AS _unchanged"
    joined = f"FROM {relation} r LEFT JOIN filled f ON f._batch = r._batch AND f._row = r._row"
    session.execute(
        f"INSERT INTO {INCOMPLETE} SELECT r._batch, r._row {joined} WHERE r._unchanged IS NOT NULL AND ({gaps})"
    )
    return f"(SELECT r.* REPLACE ({given}) {joined})"


def prepared(session: Session, work: Work, log: Callable[[], str], key: Sequence[str]) -> Work:
    """Return the work with its events made whole."""
    history = work.history
    if work.replay and history is not None:
        # What is replayed is held against the whole log, of which nothing else is looked at.
        history = completed(session, history, log, key)
        session.execute(f"CREATE OR REPLACE TEMP TABLE whole AS SELECT * FROM {history}")  # noqa: S608
        history = "whole"
    return replace(work, relation=completed(session, work.relation, log, key), history=history)


def incomplete(session: Session) -> list[Verdict]:
    """Return the verdict on events that could not be made whole; none if all could."""
    if not session.execute(f"SELECT 1 FROM {INCOMPLETE} LIMIT 1"):  # noqa: S608
        return []
    reason = "the log left out a column that no earlier event has: `etl capture resnapshot` brings it"
    sql = f"EXISTS (SELECT 1 FROM {INCOMPLETE} i WHERE i._batch = t._batch AND i._row = t._row)"  # noqa: S608
    return [Verdict("rejected", "capture.incomplete", reason, sql)]


def truncated_at(session: Session, relation: str) -> tuple[int, int] | None:
    """Return `_pos` and `_seq` of the last event of `relation` that emptied the table; None: there is none."""
    rows = session.execute(
        f"SELECT _pos, _seq FROM {relation} WHERE _op = {literal(TRUNCATE)} ORDER BY 1 DESC, 2 DESC LIMIT 1"  # noqa: S608
    )
    return rows[0] if rows else None


def _given(at: int) -> str:
    """Return the name of the column that holds what an event, or one before it, gives for a name: `{v: value}`."""
    return f"__given_{at}"


class _Filling:
    """One way from `relation` to `filled(_batch, _row, __given_0, …)`."""

    def __init__(self, session: Session, relation: str, log: str, key: list[str], names: list[str]) -> None:
        self.session, self.relation, self.log, self.key, self.names = session, relation, log, key, names
        self.keys = ", ".join(map(quote, key))

    def run(self) -> None:
        """Create `filled`."""
        self._find_moves()
        self._find_keys()
        self._find_versions()
        for at in range(len(self.names)):
            while self._follow_moves(at):
                pass
        self._fill()

    def _same(self, left: str, right: str, prefix: str = "") -> str:
        return " AND ".join(f"{left}.{quote(prefix + name)} = {right}.{quote(name)}" for name in self.key)

    def _find_moves(self) -> None:
        """Create `moves`: the events that changed a key, with the old one as `__old_…`."""
        olds = [f"_before.{quote(name)}" for name in self.key]
        differs = " OR ".join(f"{old} IS DISTINCT FROM {quote(name)}" for old, name in zip(olds, self.key, strict=True))
        known = " AND ".join(f"{old} IS NOT NULL" for old in olds)
        old = ", ".join(f"{old} AS {quote('__old_' + name)}" for old, name in zip(olds, self.key, strict=True))
        self.session.execute(
            f"CREATE OR REPLACE TEMP TABLE moves AS SELECT _batch, _row, {self.keys}, {old} FROM {self.log} "  # noqa: S608
            f"WHERE _op = {literal(UPDATE)} AND {known} AND ({differs})"
        )

    def _find_keys(self) -> None:
        """Create `wanted`: the keys whose history is needed, those that they had before included."""
        execute = self.session.execute
        execute(
            f"CREATE OR REPLACE TEMP TABLE wanted AS SELECT DISTINCT {self.keys} FROM {self.relation} "  # noqa: S608
            "WHERE _unchanged IS NOT NULL"
        )
        olds = ", ".join(f"m.{quote('__old_' + name)} AS {quote(name)}" for name in self.key)
        while True:
            new = f"SELECT DISTINCT {olds} FROM moves m SEMI JOIN wanted w ON {self._same('m', 'w')}"  # noqa: S608
            fresh = f"SELECT n.* FROM ({new}) n ANTI JOIN wanted w ON {self._same('n', 'w')}"  # noqa: S608
            if not execute(f"INSERT INTO wanted {fresh} RETURNING 1"):
                return

    def _find_versions(self) -> None:
        """Create `versions`: every event of these keys in the order of the log, and what it gives itself."""
        olds = ", ".join(f"m.{quote('__old_' + name)}" for name in self.key)
        deletes = literal(DELETE)
        gives = ", ".join(
            f"CASE WHEN l._op <> {deletes} AND NOT coalesce(list_contains(l._unchanged, {literal(name)}), false) "
            f"THEN struct_pack(v := l.{quote(name)}) END AS {_given(at)}"
            for at, name in enumerate(self.names)
        )
        self.session.execute(
            "CREATE OR REPLACE TEMP TABLE versions AS SELECT "  # noqa: S608
            "row_number() OVER (ORDER BY l._pos, l._seq, l._batch, l._row) AS ord, "
            f"l._batch, l._row, {', '.join(f'l.{quote(name)}' for name in self.key)}, m._batch IS NOT NULL AS moved, "
            f"{olds}, {gives} FROM {self.log} l SEMI JOIN wanted w ON {self._same('l', 'w')} "
            "LEFT JOIN moves m ON m._batch = l._batch AND m._row = l._row"
        )

    def _follow_moves(self, at: int) -> bool:
        """Give moved rows what their old key had; False when nothing is left that could be given.

        A move whose old key was moved to, and that one is not filled yet, waits for the next turn.
        """
        given = _given(at)
        updated = self.session.execute(
            f"UPDATE versions SET {given} = s.{given} FROM ("  # noqa: S608
            f"SELECT m.ord, arg_max(c.{given}, c.ord) AS {given}, "
            f"arg_max(c.{given} IS NULL, c.ord) AS waits FROM versions m JOIN versions c "
            f"ON {self._same('m', 'c', '__old_')} AND c.ord < m.ord AND (c.moved OR c.{given} IS NOT NULL) "
            f"WHERE m.moved AND m.{given} IS NULL GROUP BY m.ord) s "
            f"WHERE versions.ord = s.ord AND NOT s.waits AND s.{given} IS NOT NULL RETURNING 1"
        )
        return bool(updated)

    def _fill(self) -> None:
        """Create `filled`: the newest value given at or before an event, not looking beyond a change of key."""
        lives = f"sum(moved::INT) OVER (PARTITION BY {self.keys} ORDER BY ord)"
        filled = ", ".join(
            f"last_value({_given(at)} IGNORE NULLS) OVER (PARTITION BY {self.keys}, life ORDER BY ord) AS {_given(at)}"
            for at in range(len(self.names))
        )
        self.session.execute(
            f"CREATE OR REPLACE TEMP TABLE filled AS SELECT _batch, _row, {filled} "  # noqa: S608
            f"FROM (SELECT *, {lives} AS life FROM versions)"
        )
