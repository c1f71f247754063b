"""Files are loaded once, whole, and only when they are whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.files import chunks
from etl_resources.files.known import KnownFiles
from etl_resources.files.storage import FileInfo, Storage, glob_pattern
from etl_resources.source import Batch, Incremental, Position, Snapshot, Stream, Window
from etl_resources.sources.file import FileOptions, FileSource
from tests.soaking import some


def stream(path: Path | str, **options: Any) -> Stream:
    return Stream("test", FileOptions(path=str(path), **options))


def read(given: Stream, since: Position | None = None, batch_rows: int = 1000) -> list[Batch]:
    """Read as a consumer does that keeps positions as JSON."""
    kept = json.loads(json.dumps(since)) if since is not None else None
    return list(FileSource().read(given, kept, batch_rows=batch_rows))


def values(batches: list[Batch]) -> list[str]:
    return [r["a"] for b in batches for r in b.data.to_pylist()]


def write(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a\n" + "".join(f"{r}\n" for r in rows))
    return path


# --- once


def test_a_file_is_loaded_again_if_its_content_changes_and_only_then(tmp_path: Path) -> None:
    given = stream(tmp_path / "*.csv")
    one, two = write(tmp_path / "1.csv", "x"), write(tmp_path / "2.csv", "y")
    first = read(given)
    assert values(first) == ["x", "y"]
    assert read(given, first[-1].position) == []
    os.utime(one, (1, 1))
    assert read(given, first[-1].position) == [], "touched, not changed"
    write(two, "z")  # the same size
    second = read(given, first[-1].position)
    assert values(second) == ["z"]
    assert second[-1].data.column("_origin").to_pylist() == [str(two)]
    assert read(given, second[-1].position) == []


def test_a_position_of_an_older_version_knows_its_files_by_sha256(tmp_path: Path) -> None:
    given, path = stream(tmp_path / "1.csv"), write(tmp_path / "1.csv", "x")
    position = read(given)[-1].position
    assert position is not None
    [(_, entry)] = position["files"].items()
    assert entry[2].startswith("x")
    entry[2] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    os.utime(path, (1, 1))
    assert read(given, position) == [], "touched, not changed"
    write(path, "y")
    assert values(read(given, position)) == ["y"]


def test_same_size_and_time_but_for_the_clock_of_the_disk(tmp_path: Path) -> None:
    """A file written again in the same moment is told by nothing but its content; a new time makes it be looked at."""
    given, path = stream(tmp_path / "1.csv"), write(tmp_path / "1.csv", "x")
    position = read(given)[-1].position
    write(path, "y")
    assert path.stat().st_mtime_ns != json.loads(json.dumps(position))["files"]["1.csv"][1]
    assert values(read(given, position)) == ["y"]


def test_after_a_kill_between_files_reading_goes_on_with_the_next_one(tmp_path: Path) -> None:
    """Every batch that ends with a file has a position, no other has one, and none is lost or read twice."""
    for n in range(4):
        write(tmp_path / f"{n}.csv", *(f"{n}-{row}" for row in range(25)))
    given = stream(tmp_path / "*.csv")
    everything = [f"{n}-{row}" for n in range(4) for row in range(25)]
    batches = read(given, batch_rows=10)
    assert [b.position is not None for b in batches] == [False, False, True] * 4
    for n, batch in enumerate(batches):
        if batch.position is not None:
            assert values(batches[: n + 1]) + values(read(given, batch.position)) == everything


def test_small_files_share_a_batch(tmp_path: Path) -> None:
    for n in range(50):
        write(tmp_path / f"{n:02}.csv", str(n))
    batches = read(stream(tmp_path / "*.csv"), batch_rows=20)
    assert [b.data.num_rows for b in batches] == [20, 20, 10]
    assert [b.position is not None for b in batches] == [True] * 3
    assert len(set(batches[0].data.column("_origin").to_pylist())) == 20


def test_the_position_of_20_000_files_is_small_and_quick() -> None:
    known = KnownFiles()
    for n in range(20_000):
        known.add(
            FileInfo(f"/data/landing/2024/part-{n:06}.csv", 123_456, 1_700_000_000_000_000_000 + n), "0123456789abcdef"
        )
    start = time.process_time()
    text = json.dumps(known.dump(), separators=(",", ":"))
    assert KnownFiles.load(json.loads(text)).files == known.files
    assert time.process_time() - start < 1
    assert len(text) < 75 * 20_000


def test_a_glob_that_grows_does_not_load_again(tmp_path: Path) -> None:
    """Paths are remembered whole, not as the glob of the day cuts them."""
    write(tmp_path / "in" / "1.csv", "x")
    position = read(stream(tmp_path / "in" / "*.csv"))[-1].position
    write(tmp_path / "later" / "2.csv", "y")
    assert values(read(stream(tmp_path / "**" / "*.csv"), position)) == ["y"]


def test_a_snapshot_reads_everything_every_time(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", "x")
    given = Stream("test", FileOptions(path=str(tmp_path / "1.csv")), Snapshot())
    assert values(read(given, read(given)[-1].position)) == ["x"]


def test_files_have_no_cursor(tmp_path: Path) -> None:
    given = Stream("test", FileOptions(path=str(write(tmp_path / "1.csv", "x"))), Incremental(cursor="a"))
    with pytest.raises(ConfigurationError, match="leave `capture` out"):
        read(given)


def test_latest_changes_with_the_files(tmp_path: Path) -> None:
    given, source = stream(tmp_path / "*.csv", missing="ok"), FileSource()
    seen = [source.latest(given)]
    for name in ("1.csv", "2.csv"):
        write(tmp_path / name, "x")
        seen.append(source.latest(given))
    assert len({json.dumps(p) for p in seen}) == 3
    assert source.latest(given) == seen[-1]


# --- whole


@pytest.mark.parametrize("change", ["grow", "remove", "rewrite"])
def test_a_file_that_is_written_to_while_it_is_read_is_an_error(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No batch of it carries a position, so nothing of it is committed, and the whole of it is read the next time."""
    monkeypatch.setattr(chunks, "BLOCK_BYTES", 4096)
    path = write(tmp_path / "1.csv", *map(str, range(20_000)))
    given = stream(path)
    batches = FileSource().read(given, None, batch_rows=100)
    seen = [next(batches)]
    if change == "grow":
        with path.open("a") as file:
            file.write("late\n")
    elif change == "remove":
        path.unlink()
    else:
        path.with_suffix(".new").write_text("a\n1\n")
        path.with_suffix(".new").rename(path)
    with pytest.raises(UnavailableError, match="while it was read"):
        seen.extend(batches)
    assert all(b.position is None for b in seen)


def test_files_that_have_not_settled_are_left_for_the_next_run(tmp_path: Path) -> None:
    os.utime(write(tmp_path / "1.csv", "old"), (1000, 1000))
    write(tmp_path / "2.csv", "new")
    batches = read(stream(tmp_path / "*.csv", settle_seconds=3600))
    assert values(batches) == ["old"]
    assert values(read(stream(tmp_path / "*.csv"), batches[-1].position)) == ["new"]


def test_hidden_files_are_none(tmp_path: Path) -> None:
    """A file that is written under a hidden name and then renamed is never seen before it is whole."""
    write(tmp_path / ".1.csv", "half")
    write(tmp_path / "1.csv", "whole")
    assert values(read(stream(tmp_path / "*.csv"))) == ["whole"]


# --- compressed


def packed(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content, 6)
    return zstandard.ZstdCompressor().compress(content) if name.endswith(".zst") else content


@pytest.mark.parametrize("name", ["1.csv.gz", "1.csv.zst"])
def test_compressed(name: str, tmp_path: Path) -> None:
    """Also in several frames or members, one behind the other."""
    (tmp_path / name).write_bytes(packed(name, b"a\nx\n") + packed(name, b"y\n"))
    assert values(read(stream(tmp_path / name))) == ["x", "y"]


@pytest.mark.parametrize("name", ["1.csv.gz", "1.csv.zst"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_file_is_an_error_and_never_an_end(name: str, damage: str, tmp_path: Path) -> None:
    content = packed(name, b"a\n" + os.urandom(60_000).hex().encode() + b"\n")
    middle = len(content) // 2
    broken = content[:-3] if damage == "cut" else content[:middle] + bytes(64) + content[middle + 64 :]
    (tmp_path / name).write_bytes(broken)
    with pytest.raises(UnavailableError, match="damaged or not complete"):
        read(stream(tmp_path / name))


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_zip_members(tmp_path: Path) -> None:
    """Each has its own origin; what is chosen by the glob is read, in any format and compressed again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": ["p"]}), sink)
    path = archive(
        tmp_path / "1.zip",
        {"x/1.csv": b"a\nx\n", "__MACOSX/x/._1.csv": b"junk", "x/.hidden": b"", "2.csv.gz": gzip.compress(b"a\ny\n"),
         "3.parquet": sink.getvalue().to_pybytes()},
    )  # fmt: skip
    batches = read(stream(path))
    assert values(batches) == ["x", "y", "p"]
    origins = batches[0].data.column("_origin").to_pylist()
    assert origins == [f"{path}!x/1.csv", f"{path}!2.csv.gz", f"{path}!3.parquet"]
    assert values(read(stream(path, members="*.csv.gz"))) == ["y"]
    assert values(read(stream(path, members="**/1.csv"))) == ["x"]
    assert read(stream(path), batches[-1].position) == []
    with pytest.raises(NotFoundError, match=r"it holds x/1\.csv"):
        read(stream(path, members="*.tsv"))


@pytest.mark.parametrize("name", ["../1.csv", "/1.csv", "x/../../1.csv", "C:\\1.csv", "..\\1.csv"])
def test_a_name_that_leads_out_of_the_archive_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="leads out of the archive"):
        read(stream(archive(tmp_path / "1.zip", {name: b"a\nx\n"})))


def test_an_archive_that_is_damaged_encrypted_or_nested_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "1.zip", {"1.csv": b"a\n" + b"x\n" * 5000})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnavailableError, match="damaged"):
        read(stream(path))
    encrypted = bytearray(whole)
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[whole.index(signature) + flags] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(ConfigurationError, match="encrypted"):
        read(stream(path))
    with pytest.raises(ConfigurationError, match="archive in an archive"):
        read(stream(archive(tmp_path / "2.zip", {"inner.zip": whole})))


@pytest.mark.parametrize("suffix", some([".csv.zst", ".zip", ".csv.gz"], 2))
def test_a_decompression_bomb_is_refused(suffix: str, tmp_path: Path) -> None:
    content = b"a\n" + (b"x" * 4095 + b"\n") * (17 << 10)
    path = tmp_path / f"1{suffix}"
    if suffix == ".zip":
        archive(path, {"1.csv": content})
    else:
        path.write_bytes(packed(path.name, content))
    with pytest.raises(ConfigurationError, match="decompression bomb"):
        read(stream(path))


def test_an_archive_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    """The size that an archive states for a member is not believed."""
    path = archive(tmp_path / "1.zip", {"1.csv": b"a\n" + b"x\n" * 1000})
    content = bytearray(path.read_bytes())
    for signature, size in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(signature) + size
        content[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="damaged"):
        read(stream(path))


# --- partitions


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("text", ["2024-01-01T23:59:59.999999Z", "2024-01-02", "2024-01-02 12:00:00+02:00", "2024-01-03T00:00:00", ""]),
        ("typed", [datetime(2024, 1, 1, 23, 59, 59, 999999, UTC), datetime(2024, 1, 2, tzinfo=UTC),
                   datetime(2024, 1, 2, 10, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC), None]),
    ],
)  # fmt: skip
def test_a_window_reads_its_rows_and_moves_nothing(name: str, rows: list[Any], tmp_path: Path) -> None:
    """Half open; what has no event time is told with every window, not dropped."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"a": list("vwxyz"), "at": rows})
    pq.write_table(table, tmp_path / "1.parquet")
    window = Window("at", datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))
    given = Stream("test", FileOptions(path=str(tmp_path / "1.parquet")), window=window)
    since = {"root": str(tmp_path) + "/", "files": {"1.parquet": [1, 2, "3"]}}
    batches = read(given, since)
    assert values(batches) == ["w", "x"]
    assert batches[-1].position == since
    assert batches[-1].rows_read == 3
    (told,) = batches[-1].unreadable.to_pylist() if batches[-1].unreadable else []
    assert "belongs to no partition" in told["reason"]
    assert json.loads(told["raw"])["a"] == "z"


# --- what is not there


def test_a_missing_file_is_named_with_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "customers.csv", "x")
    with pytest.raises(NotFoundError, match=r"customers\.csv"):
        read(stream(tmp_path / "customer.csv"))
    with pytest.raises(NotFoundError, match="no file"):
        read(stream(tmp_path / "nowhere" / "*.csv"))
    with pytest.raises(ConfigurationError, match="is a folder"):
        read(stream(tmp_path))
    assert read(stream(tmp_path / "customer*.tsv", missing="ok")) == []


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "1.csv", "x")

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CredentialsRejectedError, match="Permission denied"):
        read(stream(path))


def test_secrets_are_in_no_text() -> None:
    os.environ["TEST_FILE_SECRET"] = "do not show"
    secrets = {name: {"env": "TEST_FILE_SECRET"} for name in ("access_key_id", "secret_access_key")}
    source = FileSource(secrets=secrets)  # type: ignore[arg-type]
    storage = Storage(source.options, source.secrets, source.client_options)
    storage.store("s3://bucket/x")
    assert "do not show" not in repr(source) + repr(storage) + str(source.model_dump())
    with pytest.raises(EtlError) as caught:
        Storage({"nonsense": "x"}, source.secrets).store("s3://bucket/x")
    assert "do not show" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("s3://b/x/*.csv", "s3://b/x/1.csv", True),
        ("s3://b/x/*.csv", "s3://b/x/y/1.csv", False),
        ("s3://b/**/*.csv", "s3://b/1.csv", True),
        ("s3://b/**/*.csv", "s3://b/x/y/1.csv", True),
        ("s3://b/[!a-c]?.csv", "s3://b/d1.csv", True),
        ("s3://b/[!a-c]?.csv", "s3://b/a1.csv", False),
        ("s3://b/x.csv", "s3://b/xxcsv", False),
    ],
)
def test_globs_of_objects(pattern: str, path: str, matches: bool) -> None:
    import re

    assert (re.fullmatch(glob_pattern(pattern), path) is not None) is matches


def test_options_refuse_what_they_cannot_mean() -> None:
    for wrong in ({"delimiter": ";;"}, {"quote": "é"}, {"encoding": "utf-9"}, {"skip_rows": -1}, {"pathh": "x"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FileOptions(path="x", **wrong)


def test_a_file_of_nothing_but_bad_lines_is_still_read_in_good_time(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(b"a\n" + b"x,y\n" * 60_000)
    start = time.process_time()
    batches = read(stream(tmp_path / "1.csv"), batch_rows=50_000)
    assert sum(b.unreadable.num_rows for b in batches if b.unreadable) == batches[-1].rows_read == 60_000
    assert time.process_time() - start < 5


def test_reading_is_streaming(tmp_path: Path) -> None:
    """The first batch comes before the file has been read to its end."""
    path = tmp_path / "1.csv"
    with path.open("wb") as file:
        file.write(b"a\n")
        for _ in range(50):
            file.write(b"x\n" * (1 << 20))
    seen: list[int] = []

    class Watched(io.FileIO):
        def read(self, size: int = -1) -> bytes:  # type: ignore[override]
            seen.append(self.tell())
            return super().read(size) or b""

    original = Storage.open
    try:
        Storage.open = lambda _, name: Watched(name)  # type: ignore[method-assign, assignment, return-value]
        batches = FileSource().read(stream(path), None)
        next(batches)
        assert max(seen) < path.stat().st_size / 2
        batches.close()  # type: ignore[attr-defined]
    finally:
        Storage.open = original  # type: ignore[method-assign]
