"""Capture: the streams of one change log land in their bronze tables, whole transactions at a time.

Delta has no commit over several tables, so every table has its own position in the log, committed with its rows. A kill
between the commits of two tables leaves them at different positions; the log is then read from the older, and what the
other has already is dropped. The far end is told only what all of them hold.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from etl_assets.capture_gaps import sweep
from etl_assets.capture_healing import Healing
from etl_assets.capture_types import settled
from etl_assets.error_writer import ErrorWriter
from etl_assets.landing import Landed, Landing
from etl_assets.run import Run
from etl_resources.change_log import Boundary, Changes
from etl_resources.exceptions import LogLostError, RowsNotConservedError, UnavailableError

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.bronze import Bronze
    from etl_resources.change_log import ChangeLog
    from etl_resources.engines.duckdb import DuckDB
    from etl_resources.source import Position

_log = logging.getLogger(__name__)
IDLE_SECONDS = 30.0
"""How long a table without changes may keep its position behind the others, while a run goes on."""
SWEEP = "sweep"
"""Entry of a commit's record: keys without an event since this `_pos` are still to be recorded as deleted."""
RENEWED_MARK, SWEPT_MARK = "renewed", "swept"
"""Delta `txn`s: the commits with which a table began to be read anew, and with which that was finished."""

Tick = Callable[[Boundary, Mapping[str, int]], None]
"""Called after the commits of a boundary, with the streams that got rows, and how many."""


class Capture:
    """The bronze tables of one change log, by name of their stream."""

    def __init__(self, bronzes: Mapping[str, Bronze], log: ChangeLog, engine: DuckDB) -> None:
        self.bronzes, self.log, self.engine = bronzes, log, engine
        self.keys = {table.name: table.key for table in log.tables}

    def positions(self) -> dict[str, Position]:
        """Return how far each table has come; a table that was never read is left out."""
        found = {name: bronze.position() for name, bronze in self.bronzes.items()}
        return {name: position for name, position in found.items() if position is not None}

    def follow(
        self,
        run: Run,
        schemas: Mapping[str, Callable[[], pa.Schema]],
        *,
        resnapshot_lost: bool = False,
        fresh: bool = False,
        after: Tick | None = None,
    ) -> dict[str, Landed]:
        """Land what the log has for some of the streams.

        Args:
            schemas: the streams to read -> how to find out their columns, for tables that are not there yet.
            resnapshot_lost: where the log no longer has what comes next, read those tables anew, once.
            fresh: read all tables anew, beside the log.
            after: called after every tick.

        Raises:
            LogLostError: the log no longer has what comes next, and `resnapshot_lost` is not set, or did not help.
            UnavailableError: the log has broken off again and again; what was committed stays, and nothing else.
            RowsNotConservedError, ErrorBudgetExceededError: nothing of the tick was committed.
            ConcurrentCommitError: another run was faster.
        """
        following = _Following(self, run, list(schemas), after)
        following.heal(schemas)
        if fresh:
            following.renew("the run was asked to read it anew")
        try:
            following.read_on()
        except LogLostError as lost:
            names = [name for name in following.landings if name in lost.streams or not lost.streams]
            if not resnapshot_lost or fresh or not names or not following.may_renew(names):
                raise
            following.renew(lost.what, names)
            following.read_on()
        return {name: landing.landed() for name, landing in following.landings.items()}

    def renew(self, names: Collection[str], run: Run) -> list[str]:
        """Let the next run read tables anew; returns those that it would not read whole anyway."""
        following = _Following(self, run, names, None)
        return following.renew("a person asked for it")


class _Following:
    """One run of `Capture.follow`."""

    def __init__(self, capture: Capture, run: Run, names: Collection[str], after: Tick | None) -> None:
        self.capture, self.run, self.after = capture, run, after
        bronzes = {name: capture.bronzes[name] for name in names}
        self.landings = {
            name: Landing(bronze, run, bronze.table.open(), narrow=True) for name, bronze in bronzes.items()
        }
        self.committed: dict[str, Position] = capture.positions()
        self.idle: dict[str, Position] = {}
        self.idle_since = time.monotonic()
        self.broken: UnavailableError | None = None
        """The newest error of the log itself, and not of the lake."""
        self.ends = time.monotonic() + capture.log.lasts
        self.healing = {name: Healing(landing, capture.keys[name]) for name, landing in self.landings.items()}

    def heal(self, schemas: Mapping[str, Callable[[], pa.Schema]]) -> None:
        """Finish what a killed run left undone behind its commits, and create tables that are not there."""
        for name, landing in self.landings.items():
            bronze = landing.bronze
            if landing.handle is None:
                landing.prepare(schemas[name]())
                continue
            bronze.ledger.copy(landing.handle, bronze.app_id)
            ErrorWriter(bronze.lake, bronze.app_id, self.run).settle(landing.handle)
            began = bronze.record_at(landing.handle).get(SWEEP)
            if began is not None:
                self._sweep(name, began)

    def read_on(self) -> None:
        """Read; where the log breaks off, begin again from what is committed, a limited number of times.

        What was staged since the last boundary is given up by then, and nobody has seen it. Where something has been
        committed the waits of the policy begin anew.
        """
        policy = self.capture.log.resilience
        for left in reversed(range(policy.attempts)):
            error = policy.call(self._read_once)
            if error is None:
                return
            if error is not self.broken or not left:
                raise error
            _log.warning("the log broke off, and is read on from what is committed: %s", error.what)

    def _read_once(self) -> UnavailableError | None:
        """Read; return an error that does not call for another attempt at once.

        Raises:
            UnavailableError: of the log, before anything was committed.
        """
        before = dict(self.committed)
        try:
            self.read()
        except UnavailableError as error:
            if error is self.broken and self.committed == before:
                raise
            return error
        return None

    def read(self) -> None:
        """Read to the end of the log, or of the time, committing at every boundary."""
        since = {name: self.committed.get(name) for name in self.landings}
        items = self.capture.log.read(since)
        try:
            for item in self._heard(items):
                if isinstance(item, Changes):
                    self._stage(item)
                else:
                    self._reach(item)
            self._check_end()
            self._settle_idle()
            self._acknowledge()
        except BaseException:
            for name, landing in self.landings.items():
                landing.discard()
                self.healing[name].forget()
            raise
        finally:
            items.close()
            # The next read counts from nothing again.
            for landing in self.landings.values():
                landing.read_before = 0

    def _heard(self, items: Iterator[Changes | Boundary]) -> Iterator[Changes | Boundary]:
        """Yield what the log gives, until the time of the run is up; an error that is the log's own is kept."""
        try:
            for item in items:
                yield item
                if isinstance(item, Boundary) and time.monotonic() > self.ends:
                    return
        except UnavailableError as error:
            self.broken = error
            raise

    def _acknowledge(self) -> None:
        try:
            self.capture.log.acknowledge(self.committed)
        except UnavailableError as error:
            self.broken = error
            raise

    def _stage(self, changes: Changes) -> None:
        landing = self.landings[changes.stream]
        batch = settled(changes.batch, landing)
        landing.stage(batch)
        self.healing[changes.stream].seen(batch)

    def _reach(self, boundary: Boundary) -> None:
        """Commit every stream that has rows; the others follow after a while, without rows."""
        busy: dict[str, int] = {}
        for name, landing in self.landings.items():
            position, began = boundary.positions[name], boundary.swept.get(name)
            if landing.piece is None and began is None:
                self.idle[name] = position
                continue
            self.idle.pop(name, None)
            busy[name] = landing.piece.rows if landing.piece is not None else 0
            self._commit(name, position, began)
            self.run.point(f"capture:after_{name}")
        if time.monotonic() - self.idle_since > IDLE_SECONDS:
            self._settle_idle()
        self.run.point("capture:before_acknowledge")
        self._acknowledge()
        if self.after is not None:
            self.after(boundary, busy)

    def _commit(self, name: str, position: Position, began: int | None = None) -> None:
        landing = self.landings[name]
        landing.commit(position, record={} if began is None else {SWEEP: began})
        self.committed[name] = position
        if began is not None:
            self.run.point("capture:before_sweep")
            self._sweep(name, began)
        self.healing[name].close()
        assert landing.handle is not None  # noqa: S101 - it was committed with
        landing.bronze.table.tidy(landing.handle)

    def _settle_idle(self) -> None:
        """Move the positions of tables without changes: without it they would hold the log back for ever."""
        self.idle_since = time.monotonic()
        for name, position in self.idle.items():
            if position != self.committed.get(name):
                self._commit(name, position)
        self.idle = {}

    def _sweep(self, name: str, began: int) -> None:
        """Record keys as deleted that have no event since a snapshot of the whole table began."""
        landing = self.landings[name]
        assert landing.handle is not None  # noqa: S101 - opened or committed before
        position = landing.bronze.position_at(landing.handle)
        with self.capture.engine.session() as session:
            for batch in sweep(session, landing.handle, self.capture.keys[name], began, landing.read_before):
                landing.stage(batch)
        before = landing.read_before
        landing.commit(position, marks={SWEPT_MARK: landing.number})
        # What was swept did not come from the log, which counts its own.
        landing.read_before = before
        if position is not None:
            self.committed[name] = position

    def _check_end(self) -> None:
        for name, landing in self.landings.items():
            if landing.piece is not None:
                raise RowsNotConservedError(
                    f"the log ended after {landing.piece.read} events of {name} without a boundary behind them",
                    where=landing.bronze.table.name,
                    fix="they were not committed; run again, and report it if it comes again: a defect of the log",
                )

    def may_renew(self, names: Collection[str]) -> bool:
        """Tell whether reading anew may help: not if a snapshot that was begun has never come to its end."""
        found = [self.landings[name].handle for name in names]
        handles = [handle for handle in found if handle is not None]
        return all(handle.committed(SWEPT_MARK) >= handle.committed(RENEWED_MARK) for handle in handles)

    def renew(self, why: str, names: Collection[str] | None = None) -> list[str]:
        """Commit positions that let the next read of tables (None: of all) begin with a snapshot; returns those that
        had any."""
        renewed = []
        for name in self.landings if names is None else names:
            landing = self.landings[name]
            landing.read_before = 0
            position = self.capture.log.renewed(self.committed.get(name))
            if position is None:
                continue
            landing.commit(position, marks={RENEWED_MARK: landing.number}, record={"renewed": why})
            self.committed[name] = position
            renewed.append(name)
        return renewed
