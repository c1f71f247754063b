"""Runs that follow PostgreSQL's log over a wire that breaks: they go on, and bronze has every change once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_assets.bronze import Bronze
from etl_assets.capture import Capture
from etl_resources.change_log import LogTable, event_fields
from etl_resources.changes import postgres_reading
from etl_resources.changes.postgres_peek import peek
from etl_resources.changes.postgres_settings import PostgresLogCapture
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import UnavailableError
from etl_resources.lake import Lake
from etl_resources.resilience import Policy
from etl_resources.source import Stream
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.assets.doubles import new_run
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import Wire, wire_to

ROWS = 1000


class Case:
    """A table, and a capture of it over a wire; the wire breaks in the middle of looks, so many times."""

    def __init__(self, folder: Path, server: PostgresServer, wire: Wire, policy: Policy) -> None:
        self.wire = wire
        self.database = server.database()
        self.client = server.connect(self.database)
        self.client.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        self.source = PostgresSource(**server.settings(self.database, port=wire.port), resilience=policy)
        self.lake, self.engine = Lake(uri=str(folder)), DuckDB(threads=1)
        self.breaks = 0

    def follow(self, **settings: Any) -> None:
        """Run once."""
        capture = PostgresLogCapture(slot=f"breaks_{self.database}", **settings)
        table = LogTable(Stream("t", PostgresStreamOptions(type="postgres", table="t"), capture), ("id",))
        log = self.source.change_log("breaks", [table], capture)
        row = pa.schema([("id", pa.int32()), ("v", pa.string())])
        bronzes = {"t": Bronze(self.lake, "breaks", table.stream)}
        Capture(bronzes, log, self.engine).follow(new_run(), {"t": lambda: pa.schema([*row, *event_fields(row)])})

    def peek(self, *args: Any, **more: Any) -> Iterator[pa.Array]:
        """Peek in small pieces, and break the wire behind the first of a look that has many."""
        for number, piece in enumerate(peek(*args, **more, batch_bytes=1 << 12)):
            if number == 3 and self.breaks:
                self.breaks -= 1
                self.wire.break_now()
            yield piece

    def bronze(self) -> list[Any]:
        handle = self.lake.table("bronze", "breaks", "t").open()
        assert handle is not None
        with self.engine.session() as session:
            return session.execute(f"SELECT id, _pos, _seq FROM {session.lake_relation(handle)} ORDER BY id")


@pytest.fixture
def case(tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    with wire_to(postgres_server.port) as wire:
        made = Case(tmp_path, postgres_server, wire, Policy(attempts=3, first_wait=0.02))
        monkeypatch.setattr(postgres_reading, "peek", made.peek)
        yield made
        made.client.execute(
            "SELECT pg_terminate_backend(active_pid, 5000), pg_drop_replication_slot(slot_name)"
            " FROM pg_replication_slots WHERE database = current_database()"
        )
        made.client.close()


def test_a_continuous_run_survives_a_wire_that_breaks_in_the_middle_of_a_look(case: Case) -> None:
    """What was staged of that look is given up, and comes again: nothing is lost, nothing is there twice."""
    case.follow()
    case.client.execute(f"INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, {ROWS}) n")
    case.breaks = 2
    case.wire.bytes_per_second = 2_000_000.0  # else all is on its way before the wire breaks
    began = time.monotonic()
    case.follow(mode="continuous", lasts=1.0, every=0.1)
    assert case.breaks == 0
    assert time.monotonic() - began < 30
    assert [row[0] for row in case.bronze()] == list(range(1, ROWS + 1))
    assert len({row[1:] for row in case.bronze()}) == ROWS


def test_a_wire_that_breaks_in_the_middle_of_every_look_ends_the_run(case: Case) -> None:
    case.follow()
    case.client.execute(f"INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, {ROWS}) n")
    case.breaks = 100
    case.wire.bytes_per_second = 2_000_000.0
    with pytest.raises(UnavailableError) as caught:
        case.follow(mode="continuous", lasts=1.0)
    assert 100 - case.breaks == 3
    assert str(case.wire.port) in caught.value.where
    assert case.bronze() == []
    case.breaks = 0
    case.follow()
    assert [row[0] for row in case.bronze()] == list(range(1, ROWS + 1))
