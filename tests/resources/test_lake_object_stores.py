"""The lake on object stores: the promises that it keeps on a disk, in S3, GCS and Azure Blob Storage."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.delta.rewriting import Changes
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import ConcurrentCommitError
from etl_resources.lake import Commit, Handle, Lake, LakeTable
from tests.resources.merges import merged
from tests.servers import azure, gcs, s3
from tests.servers.azure import shared_azure
from tests.servers.gcs import shared_gcs
from tests.servers.s3 import shared_s3
from tests.soaking import some

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])


@pytest.fixture(params=["s3", "gs", "az"])
def lake(request: pytest.FixtureRequest) -> Lake:
    """A lake in a bucket of its own; its credentials come from the environment."""
    uri, options, secrets = {"s3": _s3, "gs": _gcs, "az": _azure}[request.param]()
    return Lake(uri=uri, storage_options=options, secrets=secrets)


def _s3() -> tuple[str, dict[str, str], Any]:
    server = shared_s3()
    options = {"AWS_ENDPOINT_URL": server.options["endpoint"], "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    return f"s3://{s3.BUCKET}/lake", options, {f"AWS_{n.upper()}": secret for n, secret in server.secrets.items()}


def _gcs() -> tuple[str, dict[str, str], Any]:
    """Over its XML API and its preconditions."""
    return f"gs://{gcs.BUCKET}/lake", {"ALLOW_HTTP": "true", "TIMEOUT": "20s"}, shared_gcs().secrets


def _azure() -> tuple[str, dict[str, str], Any]:
    server = shared_azure()
    options = {**server.options, "AZURE_ALLOW_HTTP": "true", "timeout": "20s"}
    return f"az://{azure.CONTAINER}/lake", options, server.secrets


def append(table: LakeTable, handle: Handle, number: int, *ids: int) -> Handle:
    with table.stage(handle, SCHEMA) as staged:
        rows = [{"id": key, "name": f"n{key}"} for key in ids]
        staged.write(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
        return table.append(handle, staged, Commit("app", number, {"run_id": "r"}))


def ids(table: LakeTable) -> list[int]:
    handle = table.open()
    assert handle is not None
    with DuckDB(threads=1).session() as session:
        return [row[0] for row in session.execute(f"SELECT id FROM {session.lake_relation(handle)} ORDER BY 1")]


def test_rows_are_appended_merged_replaced_and_read(lake: Lake) -> None:
    table = lake.table("silver", "people")
    assert table.open() is None
    handle = append(table, table.ensure(SCHEMA), 1, 1, 2)
    changes = pa.table({"id": [2, 3], "name": [None, "c"], "_action": ["delete", "insert"]})
    handle = merged(table, handle, changes.to_reader, ["id"], Commit("app", 2), Changes(1, 0, 1))
    assert ids(table) == [1, 3]
    assert (handle.record("app") or {})["version"] == 2
    new = pa.table({"id": [9], "name": ["i"]})
    handle = table.replace_where(handle, new.to_reader, "`id` >= 3", Commit("app", 3), Changes(1, 0, 1))
    assert ids(table) == [1, 9]
    with table.stage(handle, SCHEMA) as staged:
        staged.write(pa.RecordBatch.from_pylist([{"id": 5}], schema=SCHEMA))
        table.replace(handle, staged, Commit("app", 4))
    assert ids(table) == [5]
    with pytest.raises(ConcurrentCommitError):
        append(table, handle, 4, 6)
    assert ids(table) == [5]


def test_of_writers_at_once_one_wins(lake: Lake) -> None:
    """A store takes a log entry only if it is not there yet (`If-None-Match`, or the generation 0)."""
    table = lake.table("silver", "race")
    table.ensure(SCHEMA)
    handles = [table.open() for _ in range(3)]
    outcomes: list[str] = []

    def write(handle: Handle) -> None:
        try:
            append(table, handle, 1, 1)
        except ConcurrentCommitError:
            outcomes.append("lost")
        else:
            outcomes.append("won")

    threads = [threading.Thread(target=write, args=(handle,)) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost", "lost", "won"]
    assert ids(table) == [1]


@pytest.mark.parametrize("lake", some(["s3", "gs", "az"], 1), indirect=True)
def test_writers_under_other_names_all_get_in(lake: Lake) -> None:
    table = lake.table("ops", "shared")
    handle = table.ensure(SCHEMA)

    def write(number: int) -> None:
        with table.stage(handle, SCHEMA) as staged:
            staged.write(pa.RecordBatch.from_pylist([{"id": number}], schema=SCHEMA))
            table.append(handle, staged, Commit(f"app-{number}", 1))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids(table) == [0, 1, 2]


@pytest.mark.parametrize("lake", some(["s3", "gs", "az"], 1), indirect=True)
def test_small_files_are_compacted_and_old_ones_deleted(lake: Lake) -> None:
    table = lake.table("bronze", "events")
    handle = table.ensure(SCHEMA)
    for number in (1, 2):
        handle = append(table, handle, number, number)
    assert (table.optimize().before, len((table.open() or handle).data_files())) == (2, 1)
    assert len(table.vacuum(timedelta(0))) == 2
    assert ids(table) == [1, 2]


@pytest.mark.parametrize("lake", some(["s3", "gs", "az"], 1), indirect=True)
def test_what_is_discarded_is_gone_from_the_store(lake: Lake) -> None:
    table = lake.table("bronze", "thrown")
    handle = table.ensure(SCHEMA)
    staged = table.stage(handle, SCHEMA)
    staged.write(pa.RecordBatch.from_pylist([{"id": 1}], schema=SCHEMA))
    staged.finish()
    assert staged.stored_rows == 1
    assert staged.read().num_rows == 1
    staged.discard()
    assert table.vacuum(timedelta(0)) == []
    assert ids(table) == []
