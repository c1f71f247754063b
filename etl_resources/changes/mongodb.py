"""MongoDB's change streams as a change log: one stream on the database for all collections that are captured."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import Boundary, ChangeLog, Changes, Finding, LogState, LogTable
from etl_resources.changes.mongodb_settings import MongoLogCapture
from etl_resources.exceptions import ConfigurationError, LogLostError
from etl_resources.source import LogCapture, Position

if TYPE_CHECKING:
    import pyarrow as pa
    import pymongo

    from etl_resources.changes.mongodb_feed import Feed, Watched
    from etl_resources.changes.mongodb_follow import Followed
    from etl_resources.changes.mongodb_position import Cursor, Token
    from etl_resources.sources.mongodb import MongoSource, MongoStreamOptions


class MongodbLog(ChangeLog):
    """Nothing is set up at the far end, and nothing is kept there: the oplog forgets when it is full."""

    def __init__(self, source: MongoSource, tables: Sequence[LogTable], capture: LogCapture) -> None:
        if not isinstance(capture, MongoLogCapture):
            capture = MongoLogCapture(**capture.model_dump())
        self.source, self.tables, self.capture = source, tuple(tables), capture
        self.resilience, self.lasts = source.resilience, capture.time
        self.where = f"change streams of {source.address}"
        for table in self.tables:
            _check(table, self.capture.id_column)

    def read(self, since: Mapping[str, Position | None]) -> Generator[Changes | Boundary, None, None]:
        """As `ChangeLog.read`."""
        from etl_resources.changes import mongodb_health as health
        from etl_resources.changes.mongodb_feed import Watched
        from etl_resources.changes.mongodb_follow import Follower, now

        tables = [t for t in self.tables if t.name in since]
        names = tuple(sorted({_options(t).collection for t in tables}))
        with self.source.client() as client, client.start_session() as session:
            server, problem = health.server_of(client, self.where)
            if problem is not None:
                raise ConfigurationError(problem.what, where=self.where, fix=problem.fix)
            began = now(client, self.where)
            cursors = {t.name: self._cursor(since[t.name], server, began) for t in tables}
            watched = Watched(
                client, session, self.source.database, names, self.capture, self.source.resilience, self.where
            )
            feed = _opened(watched, cursors, began)
            try:
                streams = [self._followed(client, t, cursors[t.name]) for t in tables]
                yield from Follower(
                    client, feed, streams, self.capture, self.where, feed.at - 1, self.source.resilience.silence
                ).run()
            finally:
                feed.close()

    def acknowledge(self, positions: Mapping[str, Position]) -> None:
        """Do nothing: the oplog keeps nothing for anybody."""

    def renewed(self, position: Position | None) -> Position | None:
        """As `ChangeLog.renewed`; what the oplog still has comes nonetheless, so that no change is missing."""
        if position is None:
            return None
        return {**position, "snapshot": {"began": None, "after": None, "rows": 0}, "renewed": True}

    def preflight(self) -> list[Finding]:
        """As `ChangeLog.preflight`."""
        from etl_resources.changes import mongodb_health as health

        with self.source.client() as client:
            collections = {t.name: _options(t).collection for t in self.tables}
            return health.findings(client, self.source, collections, self.capture, self.where)

    def state(self, since: Mapping[str, Position | None]) -> LogState:
        """As `ChangeLog.state`."""
        from etl_resources.changes import mongodb_health as health

        with self.source.client() as client:
            names = sorted({_options(t).collection for t in self.tables})
            return health.state(client, self.source, [_load(p) for p in since.values()], names, self.where)

    def remove(self) -> None:
        """Do nothing: nothing was set up."""

    def _cursor(self, position: Position | None, server: Any, began: int) -> Cursor:
        from etl_resources.changes.mongodb_position import seconds_of

        cursor = _load(position)
        stranger = cursor.server is not None and not cursor.server.same(server)
        behind = cursor.pos is not None and cursor.pos > began
        if (stranger or behind) and not cursor.renewed:
            what = "it is another deployment than the one that was read until now"
            if not stranger and cursor.pos is not None:
                ahead = seconds_of(cursor.pos) - seconds_of(began)
                what = f"its last write is {ahead:.0f} s before what was read from it: it was restored from a backup"
            raise LogLostError(what, where=self.where, fix="read the streams anew: etl capture resnapshot")
        if stranger or behind:
            cursor.token = None
        cursor.server = server
        return cursor

    def _followed(self, client: pymongo.MongoClient[Any], table: LogTable, cursor: Cursor) -> Followed:
        from etl_resources.changes.mongodb_follow import Followed
        from etl_resources.changes.mongodb_rows import Rows
        from etl_resources.changes.mongodb_snapshot import Chunks

        options = _options(table)
        wanted = frozenset({*options.fields, "_id"}) if options.fields is not None else None
        where = f"stream {table.name}, {self.source.database}.{options.collection}"
        lookup = self.capture.full_document == "updateLookup"
        rows = Rows(self._schema(table, cursor), options.collection, wanted, lookup, where, self.capture.id_column)
        return Followed(table.name, cursor, rows, Chunks(self.source, client, rows, self.capture.chunk))

    def _schema(self, table: LogTable, cursor: Cursor) -> pa.Schema:
        import pyarrow as pa

        from etl_resources.files import json_types

        if not cursor.schema:
            return self.source.read_schema(replace(table.stream, capture=None))
        declared = json_types.load_schema(_options(table).columns)
        known = json_types.load_schema(cursor.schema)
        return pa.schema(list({f.name: f for f in [*known, *declared]}.values()))


def _opened(watched: Watched, cursors: Mapping[str, Cursor], began: int) -> Feed:
    """Return the feed behind the oldest token; of streams that are read anew, only if the server still has it."""
    from etl_resources.changes.mongodb_feed import Feed

    while True:
        feed = Feed(watched, token=_oldest(cursors), start=began)
        try:
            feed.open()
        except LogLostError:
            lost = [c for c in cursors.values() if c.renewed and c.token is not None]
            if not lost:
                raise
            for cursor in lost:
                cursor.token = None
            continue
        return feed


def _oldest(cursors: Mapping[str, Cursor]) -> Token | None:
    """Return the first of the tokens, which are text that sorts as the log does: MongoDB documents that."""
    return min((c.token for c in cursors.values() if c.token), key=lambda t: str(t["_data"]), default=None)


def _load(position: Position | None) -> Cursor:
    from etl_resources.changes.mongodb_position import Cursor

    return Cursor.load(position)


def _options(table: LogTable) -> MongoStreamOptions:
    options: Any = table.stream.options
    found: MongoStreamOptions = options
    return found


def _check(table: LogTable, id_column: str) -> None:
    """Refuse what a log cannot follow truly.

    Raises:
        ConfigurationError: says what.
    """
    options = _options(table)
    where = f"stream {table.name}"
    if table.key != (id_column,):
        raise ConfigurationError(
            f"the key is {', '.join(table.key) or 'not given'}, and not {id_column}, which is _id", where=where,
            fix=f"key: [{id_column}], or capture: {{log: {{id_column: …}}}}",
        )  # fmt: skip
    if options.filter:
        raise ConfigurationError(
            "`filter` cannot be followed: a document that no longer matches would stay for ever", where=where,
            fix="leave it out, and filter behind bronze",
        )  # fmt: skip
    if not options.with_id or any("." in name for name in options.fields or ()):
        raise ConfigurationError(
            "a log needs `_id`, and whole fields", where=where, fix="leave `with_id` out, and name top-level `fields`"
        )
