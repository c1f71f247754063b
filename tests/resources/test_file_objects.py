"""Files in an object store: what differs from a disk."""

from __future__ import annotations

import json
from typing import Any

import obstore
import pytest

from etl_resources.exceptions import ConfigurationError, NotFoundError, UnavailableError
from etl_resources.files.storage import Storage
from etl_resources.source import Batch, Position, Stream
from etl_resources.sources.file import FileOptions, FileSource
from etl_resources.target import CommitToken, Counts, Load, Mode
from etl_resources.targets.file import FileTarget, FileTargetOptions
from tests.resources.crashing import SCHEMA, rows
from tests.servers.proxy import wire_to
from tests.servers.s3 import BUCKET, S3, shared_s3


@pytest.fixture
def s3() -> S3:
    return shared_s3()


def uri(key: str) -> str:
    return f"s3://{BUCKET}/objects/{key}"


def source(s3: S3) -> FileSource:
    return FileSource(options=s3.options, secrets=s3.secrets, client_options=s3.client_options)  # type: ignore[arg-type]


def target(s3: S3) -> FileTarget:
    return FileTarget(options=s3.options, secrets=s3.secrets, client_options=s3.client_options)  # type: ignore[arg-type]


def storage(s3: S3) -> Storage:
    return Storage(s3.options, source(s3).secrets, s3.client_options)


def put(s3: S3, key: str, content: bytes) -> None:
    store, path = storage(s3).store(uri(key))
    obstore.put(store, path, content)


def read(s3: S3, pattern: str, since: Position | None = None) -> list[Batch]:
    return list(source(s3).read(Stream("test", FileOptions(path=uri(pattern))), since))


def write(
    s3: S3,
    prefix: str,
    version: int,
    mode: Mode,
    *,
    app: str = "gold/sales",
    count: int = 3,
    more: str = "",
    **options: Any,
) -> Counts:
    data = rows(version * 100, count, more)
    given = FileTargetOptions(path=uri(prefix), **options)
    return target(s3).write(
        Load(given, SCHEMA, mode, CommitToken(app, version, "run")), data.to_batches(max_chunksize=10_000)
    )


def names(s3: S3, prefix: str) -> list[str]:
    return [f.path.removeprefix(uri(prefix) + "/") for f in storage(s3).find(uri(prefix) + "/**")]


def test_the_entity_tag_tells_a_change(s3: S3) -> None:
    """An object that is put again with the same content is not loaded again, one with another is."""
    put(s3, "once/x/1.csv", b"a\n1\n")
    put(s3, "once/y/z/2.csv", b"a\n2\n")
    first = read(s3, "once/**/*.csv")
    assert sorted(r["_origin"] for b in first for r in b.data.to_pylist()) == [
        uri("once/x/1.csv"),
        uri("once/y/z/2.csv"),
    ]
    put(s3, "once/x/1.csv", b"a\n1\n")
    assert read(s3, "once/**/*.csv", first[-1].position) == []
    put(s3, "once/x/1.csv", b"a\n3\n")
    again = read(s3, "once/**/*.csv", first[-1].position)
    assert [r["a"] for b in again for r in b.data.to_pylist()] == ["3"]


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(s3: S3) -> None:
    put(s3, "changes/1.csv", b"a\n" + b"1234567\n" * 1_000_000)
    batches = source(s3).read(Stream("test", FileOptions(path=uri("changes/1.csv"))), None, batch_rows=1000)
    seen = [next(batches)]
    put(s3, "changes/1.csv", b"a\n" + b"7654321\n" * 1_000_000)
    with pytest.raises(UnavailableError):
        seen.extend(batches)
    assert all(b.position is None for b in seen)


def test_archives_and_parquet_are_read_by_range(s3: S3, tmp_path: Any) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "1.zip", "w") as archive:
        archive.writestr("in/1.csv", "a\nx\n")
    put(s3, "ranges/1.zip", (tmp_path / "1.zip").read_bytes())
    (batch,) = read(s3, "ranges/1.zip")
    assert batch.data.to_pylist() == [{"a": "x", "_origin": uri("ranges/1.zip!in/1.csv")}]
    write(s3, "ranges/out", 1, "append")
    assert sum(b.data.num_rows for b in read(s3, "ranges/out/*.parquet")) == 3


def test_a_missing_object_is_named_with_its_neighbours(s3: S3) -> None:
    put(s3, "near/customers.csv", b"a\n")
    with pytest.raises(NotFoundError, match=r"near it there are customers\.csv"):
        read(s3, "near/customer.csv")


def test_a_replaced_prefix_is_one_object_that_carries_its_record(s3: S3) -> None:
    write(s3, "replaced", 1, "replace", count=5)
    assert write(s3, "replaced", 2, "replace", count=2).deleted == 5
    assert names(s3, "replaced") == ["data.parquet"]
    store, key = storage(s3).store(uri("replaced/data.parquet"))
    record = json.loads(dict(obstore.get(store, key).attributes)["etlcommits"])
    assert record["commits"]["gold/sales"]["version"] == 2
    assert record["files"] == {"data.parquet": 2}


def test_an_appended_prefix_has_one_object_per_load(s3: S3) -> None:
    """However many there are, the record of each stays within the 2 kB that S3 allows."""
    for version in range(1, 4):
        write(s3, "appended", version, "append", format="csv")
    write(s3, "appended", 9, "append", app="gold/others", format="csv")
    assert len(names(s3, "appended")) == 4
    options = FileTargetOptions(path=uri("appended"), format="csv")
    assert target(s3).committed_version(options, "gold/sales") == 3
    assert target(s3).committed_version(options, "gold/others") == 9
    assert target(s3).committed_version(options, "gold/sale") is None


def test_a_prefix_has_one_mode_and_one_who_replaces_it(s3: S3) -> None:
    """Nothing changes several objects in one step, so what would need it is refused."""
    write(s3, "mode/appended", 1, "append")
    write(s3, "mode/replaced", 1, "replace")
    for prefix, mode in (("mode/appended", "replace"), ("mode/replaced", "append")):
        with pytest.raises(ConfigurationError, match="loads of the other mode"):
            write(s3, prefix, 2, mode)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="published by gold/sales"):
        write(s3, "mode/replaced", 1, "replace", app="gold/others")
    assert len(names(s3, "mode/appended")) == len(names(s3, "mode/replaced")) == 1


def test_an_upload_that_breaks_off_leaves_what_was_there(s3: S3) -> None:
    """Large enough to be sent in several parts; a reader sees the old object, and the load can be repeated."""
    big = {"count": 80_000, "more": "x" * 160, "format": "csv"}
    write(s3, "broken-csv", 1, "replace", format="csv")
    with wire_to(s3.port, cut_after_sent=8 << 20) as wire, pytest.raises(UnavailableError):
        write(S3(wire.port), "broken-csv", 2, "replace", **big)  # type: ignore[arg-type]
    options = FileTargetOptions(path=uri("broken-csv"), format="csv")
    assert target(s3).committed_version(options, "gold/sales") == 1
    assert names(s3, "broken-csv") == ["data.csv"]
    assert sum(b.data.num_rows for b in read(s3, "broken-csv/data.csv")) == 3
    assert write(s3, "broken-csv", 2, "replace", **big).inserted == 80_000  # type: ignore[arg-type]
    assert sum(b.data.num_rows for b in read(s3, "broken-csv/data.csv")) == 80_000


def test_a_prefix_of_someone_else_is_not_overwritten(s3: S3) -> None:
    put(s3, "foreign/data.parquet", b"precious")
    with pytest.raises(NotFoundError, match="has no record of its load"):
        write(s3, "foreign", 1, "replace")
