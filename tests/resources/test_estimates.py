"""Estimates: told without reading, and right about what is new."""

from __future__ import annotations

import gzip
from pathlib import Path

from etl_resources.source import Incremental, Snapshot, Stream
from etl_resources.sources.file import FileOptions, FileSource
from etl_resources.sources.postgres import PostgresSource, PostgresStreamOptions
from tests.servers.postgres import PostgresServer


def test_files_that_were_read_are_not_in_the_estimate_and_new_ones_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name\n" + "".join(f"{i},name {i:04}\n" for i in range(500)))
    stream = Stream("s", FileOptions(path=str(tmp_path / "*.csv")))
    source = FileSource()

    first = source.estimate(stream, None)
    assert first.items == (str(tmp_path / "a.csv"),)
    assert first.size == (tmp_path / "a.csv").stat().st_size
    assert first.rows == 500

    *_, last = source.read(stream, None)
    assert source.estimate(stream, last.position).items == ()
    assert source.estimate(stream, last.position).rows == 0

    (tmp_path / "b.csv").write_text("id,name\n1,x\n")
    assert source.estimate(stream, last.position).items == (str(tmp_path / "b.csv"),)
    again = Stream("s", stream.options, Snapshot())
    assert len(source.estimate(again, last.position).items) == 2, "a snapshot reads all of them again"


def test_a_compressed_file_says_its_size_but_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"id\n1\n2\n"))
    found = FileSource().estimate(Stream("s", FileOptions(path=str(tmp_path / "a.csv.gz"))), None)
    assert found.rows is None
    assert found.size == (tmp_path / "a.csv.gz").stat().st_size


def test_the_planner_of_postgres_tells_the_rows(postgres_server: PostgresServer, postgres_database: str) -> None:
    with postgres_server.connect(postgres_database) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, updated_at timestamptz DEFAULT now())")
        connection.execute("INSERT INTO t SELECT generate_series(1, 10000)")
        connection.execute("ANALYZE t")
    source = PostgresSource(**postgres_server.settings(postgres_database))
    options = PostgresStreamOptions(type="postgres", table="t")

    whole = source.estimate(Stream("t", options, Snapshot()), None)
    assert whole.rows == 10_000
    assert whole.size is not None
    assert whole.size > 10_000

    stream = Stream("t", options, Incremental(cursor="updated_at"))
    *_, last = source.read(stream, None)
    later = source.estimate(stream, last.position)
    assert later.rows is not None
    assert later.rows < 10_000
