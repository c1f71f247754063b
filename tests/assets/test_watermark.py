"""Watermark capture: what a cursor finds and what it cannot, over a list and over a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from pydantic import PrivateAttr

from etl_assets import watermark, watermark_keys
from etl_assets.bronze import Bronze
from etl_assets.watermark import WatermarkLog
from etl_resources.exceptions import ConcurrentCommitError, RowsNotConservedError, SchemaConflictError
from etl_resources.source import (
    Batch,
    Capabilities,
    Incremental,
    Position,
    Snapshot,
    Source,
    Stream,
    StreamOptions,
)
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.assets.diff_table import DiffTable
from tests.assets.doubles import new_run
from tests.forks import KILLED, Forks, forking
from tests.servers.postgres import shared_postgres
from tests.soaking import some

__all__ = ["forking"]
SCHEMA = pa.schema([("id", pa.int64()), ("v", pa.string()), ("at", pa.int64())])


class TickingSource(Source):
    """Rows with a cursor that grows with every change; resumes behind any batch."""

    options_type: ClassVar[type[StreamOptions]] = StreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(captures=frozenset({"snapshot", "incremental"}))
    _rows: dict[Any, dict[str, Any]] = PrivateAttr(default_factory=dict)
    _clock: int = PrivateAttr(default=0)
    _asked: list[str] = PrivateAttr(default_factory=list)
    _half: bool = PrivateAttr(default=False)
    _between: Any = PrivateAttr(default=None)

    def put(self, *ids: Any, v: str = "") -> TickingSource:
        """Insert or update rows."""
        for id_ in ids:
            self._clock += 1
            self._rows[id_] = {"id": id_, "v": v, "at": self._clock}
        return self

    def read_schema(self, stream: Stream) -> pa.Schema:
        return SCHEMA

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 2) -> Iterator[Batch]:
        whole = isinstance(stream.capture, Snapshot)
        self._asked.append("all" if whole else "new")
        if whole and self._between is not None:
            self._between()
        after = 0 if whole or since is None else since["at"]
        found = sorted((row for row in self._rows.values() if row["at"] > after), key=lambda row: row["at"])
        batches = [found[start : start + 2] for start in range(0, len(found), 2)] or ([[]] if whole else [])
        for number, rows in enumerate(batches):
            last = number == len(batches) - 1
            if whole and self._half and last:
                return
            data = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
            position = {"at": rows[-1]["at"] if rows else after} if last or not whole else None
            yield Batch(data, sum(map(len, batches[: number + 1])), position)


class Followed(DiffTable):
    """A table that is followed by its cursor."""

    def __init__(self, folder: Path | str) -> None:
        super().__init__(folder)
        self.ticking = TickingSource()

    def follow(self, hours: float = 24.0, cursor: str = "at", *, fresh: bool = False, commit_rows: int = 1000) -> str:
        stream = Stream(self.name, StreamOptions(type="list"), Incremental(cursor=cursor))
        bronze = Bronze(self.lake, "test", stream)
        log = WatermarkLog(bronze, self.key, self.engine, reconcile_hours=hours, commit_rows=commit_rows)
        return str(log.land(self.ticking, new_run(), fresh=fresh).account)

    def right(self) -> None:
        """Fail unless silver is what the source has."""
        self.agree(list(self.ticking._rows.values()))


@pytest.fixture
def table(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def test_new_rows_come_as_reads_and_deletes_when_it_is_time(table: Followed) -> None:
    table.ticking.put(1, 2, 3)
    assert table.follow() == "inserted 3"
    table.ticking.put(2, 4, v="x")
    del table.ticking._rows[1]
    assert table.follow() == "inserted 2"
    assert len(table.state()) == 4, "nobody has looked for deletes yet"
    assert table.ticking._asked == ["new", "new"]
    assert table.follow(hours=0) == "inserted 1 + unchanged 3"
    table.right()
    assert table.events("_pos, id, _op, _origin") == [
        (1, 1, "read", None), (1, 2, "read", None), (1, 3, "read", None), (2, 2, "read", None), (2, 4, "read", None),
        (3, 1, "delete", "reconcile"),
    ]  # fmt: skip
    assert table.follow(hours=0) == "unchanged 3"
    assert table.follow() == "0", "the next look at all keys is a day off"
    table.ticking.put(1)
    table.follow()
    table.right()


def test_rows_that_come_between_cursor_and_keys_are_not_mistaken(table: Followed) -> None:
    table.ticking.put(1, 2)
    table.follow()
    del table.ticking._rows[2]

    def meanwhile() -> None:
        table.ticking.put(1, 3, v="late")

    table.ticking._between = meanwhile
    assert table.follow(hours=0) == "inserted 1 + unchanged 2"
    table.ticking._between = None
    assert table.follow() == "inserted 2"
    table.right()


def test_a_key_that_is_deleted_and_comes_back_lives(table: Followed) -> None:
    table.ticking.put(1, 2)
    table.follow()
    gone = table.ticking._rows.pop(2)
    table.ticking._between = lambda: None
    table.follow(hours=0)
    assert len(table.state()) == 1
    table.ticking.put(gone["id"], v="back")
    table.follow(hours=0)
    table.right()


def test_half_of_the_keys_deletes_nothing(table: Followed) -> None:
    table.ticking.put(1, 2, 3, 4)
    table.follow()
    table.ticking._half = True
    with pytest.raises(RowsNotConservedError, match="without the position"):
        table.follow(hours=0)
    table.right()


def test_a_row_without_a_key_is_an_error(table: Followed) -> None:
    table.ticking.put(1, None)
    assert table.follow() == "inserted 1 + rejected:unreadable 1"
    assert table.errors() == {"bronze/test/things": 1}


def test_a_source_that_resumes_is_committed_in_between(table: Followed) -> None:
    table.ticking.put(*range(6))
    table.follow(commit_rows=2)
    assert table.events("_pos, id") == [(1, 0), (1, 1), (2, 2), (2, 3), (3, 4), (3, 5)]


def test_another_cursor_reads_everything_once_more_and_looks_for_deletes(table: Followed) -> None:
    table.ticking.put(1, 2)
    table.follow()
    del table.ticking._rows[1]
    assert table.follow(cursor="other") == "inserted 2 + unchanged 1"
    table.right()


def test_a_full_refresh_finds_differences_and_rewrites_nothing(table: Followed) -> None:
    table.ticking.put(1, 2, 3)
    table.follow()
    del table.ticking._rows[1]
    table.ticking._rows[2]["v"] = "changed behind the cursor's back"
    assert table.follow(fresh=True) == "inserted 2 + unchanged 1"
    table.right()
    assert len(table.events()) == 5
    table.ticking.put(9)
    assert table.follow() == "inserted 1", "the cursor is where it was"
    table.right()


def test_after_comparing_a_table_it_may_be_followed_and_the_other_way_round(table: Followed) -> None:
    rows = pa.Table.from_pylist([{"id": 1, "v": "a", "at": 0}, {"id": 2, "v": "b", "at": 0}], schema=SCHEMA)
    table.look(rows)
    table.ticking.put(1, v="a")
    table.follow()
    table.right()
    found = pa.Table.from_pylist(list(table.ticking._rows.values()), schema=SCHEMA)
    assert str(table.look(found)) == "unchanged 1"
    assert [event[2] for event in table.events()] == sorted(event[2] for event in table.events())


def test_a_column_with_a_name_of_the_events_own_is_refused(table: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.assets.test_watermark.SCHEMA", pa.schema([*SCHEMA, ("_pos", pa.int64())]))
    table.ticking.put(1)
    with pytest.raises(SchemaConflictError, match="_pos"):
        table.follow()


def test_a_run_that_was_overtaken_is_refused(table: Followed) -> None:
    table.ticking.put(1, 2)
    table.follow()
    del table.ticking._rows[1]

    def other() -> None:
        table.ticking._between = None
        table.follow(hours=0)

    table.ticking._between = other
    with pytest.raises(ConcurrentCommitError):
        table.follow(hours=0)
    assert [event[1] for event in table.events()].count("delete") == 1


def followed(folder: str, ids: list[int], gone: list[int]) -> None:
    table = Followed(folder)
    table.ticking.put(*ids)
    for id_ in gone:
        del table.ticking._rows[id_]
    table.follow(hours=0, commit_rows=2)


POINTS = ["watermark:after_commit", "watermark:before_reconcile", "bronze:before_commit", "bronze:after_commit"]


@pytest.mark.parametrize("point", some(POINTS, 2))
def test_a_kill_is_made_good_by_the_next_run(tmp_path: Path, forks: Forks, point: str) -> None:
    followed(str(tmp_path), [1, 2, 3], [])
    killed = forks.start(
        followed, env={"ETL_KILL_AT": point}, folder=str(tmp_path), ids=[1, 2, 3, 4, 5, 6, 7], gone=[2]
    )
    assert killed.wait() == KILLED
    followed(str(tmp_path), [1, 2, 3, 4, 5, 6, 7], [2])
    table = Followed(tmp_path)
    assert sorted(event[:2] for event in table.events()) == sorted(
        [*((id_, "read") for id_ in range(1, 8)), (2, "delete")]
    )
    assert {row["id"] for row in table.state()} == {1, 3, 4, 5, 6, 7}


def test_deletes_placed_before_what_the_cursor_found_would_come_back(
    table: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutant: without a greater `_pos` the delete loses against the row that it deletes."""
    table.ticking.put(1, 2)
    table.follow()
    del table.ticking._rows[1]
    of = watermark_keys.replace
    monkeypatch.setattr(watermark, "Reconcile", _early)
    monkeypatch.setattr(watermark_keys, "replace", of)
    table.follow(hours=0)
    with pytest.raises(AssertionError):
        table.right()


def _early(log: Any, landing: Any, mark: Any, position: Any) -> Any:
    return watermark_keys.Reconcile(log, landing, watermark_keys.replace(mark, epoch=mark.epoch - 2), position)


def test_over_postgres_late_commits_and_deletes_are_found(tmp_path: Path) -> None:
    server = shared_postgres()
    database = server.database()
    client, other = server.connect(database), server.connect(database)
    client.execute("CREATE TABLE t (id int PRIMARY KEY, v text, at timestamptz DEFAULT now())")
    client.execute("INSERT INTO t SELECT n, 'x' FROM generate_series(1, 10) n")
    table = DiffTable(tmp_path, name="t")
    stream = Stream("t", PostgresStreamOptions(type="postgres", table="t"), Incremental(cursor="at"))
    source = PostgresSource(**server.settings(database))

    def follow(hours: float) -> str:
        bronze = Bronze(table.lake, "test", stream)
        return str(WatermarkLog(bronze, ("id",), table.engine, reconcile_hours=hours).land(source, new_run()).account)

    with other.transaction():
        other.execute("INSERT INTO t VALUES (11, 'late')")
        assert follow(24) == "inserted 10"
        client.execute("INSERT INTO t VALUES (12, 'soon')")
        client.execute("DELETE FROM t WHERE id = 1")
        assert follow(0) == "inserted 2 + unchanged 10"
    client.execute("UPDATE t SET v = 'y' WHERE id = 2")
    assert follow(0) == "inserted 2 + unchanged 11"
    rows = client.execute("SELECT id, v FROM t").fetchall()
    assert sorted((row["id"], row["v"]) for row in table.state()) == sorted(rows)
