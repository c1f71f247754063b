"""A load into files is seen as a whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl_resources.exceptions import (
    ConcurrentCommitError,
    ConfigurationError,
    SchemaConflictError,
    UnavailableError,
)
from etl_resources.files import folder as folder_module
from etl_resources.files.folder import Folder
from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource
from etl_resources.target import Counts, Mode
from etl_resources.targets.file import FileTarget
from tests.resources.crashing import full_disk, in_a_process, killed_load, load, rows


def write(path: Path, version: int, data: pa.Table, mode: Mode = "append", **options: Any) -> Counts:
    return FileTarget().write(load(path, version, mode, data.schema, **options), data.to_batches(max_chunksize=100))


def seen(path: Path) -> list[int]:
    files = sorted(path.glob("*.parquet"))
    return sorted(i for f in files for i in pq.read_table(pa.BufferReader(f.read_bytes())).column("id").to_pylist())


def beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p != path and not p.name.endswith(".lock"))


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize(
    ("point", "shown"),
    [
        ("while the rows come", False),
        ("before the files are synced", False),
        ("before the exchange", False),
        ("behind the exchange", True),
        ("between two renames", False),
    ],
)
def test_a_killed_load_is_there_or_not_and_can_be_repeated(mode: Mode, point: str, shown: bool, tmp_path: Path) -> None:
    """Readers see the old rows or the new ones; the next load clears up and ends as if nothing had happened."""
    path = tmp_path / "sales"
    write(path, 1, rows(0, 5))
    assert in_a_process(killed_load, path, mode=mode, point=point) == -signal.SIGKILL
    new = list(range(100, 600)) if mode == "replace" else [*range(5), *range(100, 600)]
    if point != "between two renames":  # the one moment without a folder, where the kernel has no exchange
        assert seen(path) == (new if shown else list(range(5)))
    assert FileTarget().committed_version(load(path, 2).options, "gold/sales") == (2 if shown else 1)
    counts = write(path, 2, rows(100, 500), mode)
    assert counts.already_committed is shown
    assert seen(path) == new
    assert beside(path) == []


def test_readers_never_see_an_empty_or_mixed_folder(tmp_path: Path) -> None:
    """While a folder is replaced again and again, every listing is one load, whole."""
    path = tmp_path / "sales"
    write(path, 1, rows(0, 300), "replace")
    stop, wrong, looks = threading.Event(), [], [0]

    def look() -> None:
        while not stop.is_set():
            handle = os.open(path, os.O_RDONLY)  # as a reader that lists a folder and then opens its files
            try:
                names = [n for n in os.listdir(handle) if n.endswith(".parquet")]  # noqa: PTH208 - of a handle
                commits = json.loads(_content(handle, "_etl_commits.json"))
                found = [pq.read_table(pa.BufferReader(_content(handle, n))).num_rows for n in names]
            except FileNotFoundError:
                continue  # replaced and removed while it was listed: told, not silent
            finally:
                os.close(handle)
            looks[0] += 1
            if found != [300] or names != list(commits["files"]):
                wrong.append((names, found, commits))

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(2, 40):
        write(path, version, rows(version * 1000, 300), "replace")
        assert path.is_dir()
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert looks[0] > 20


def test_a_folder_that_is_replaced_loses_first_what_names_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who has it open finds an error then, and not the files that happen to be left."""
    rmtree, removed = shutil.rmtree, []

    def watched(folder: Path, **more: Any) -> None:
        if folder.exists():
            removed.append(sorted(file.name.partition("-")[0] for file in folder.iterdir()))
        rmtree(folder, **more)

    monkeypatch.setattr("etl_resources.files.folder.shutil.rmtree", watched)
    path = tmp_path / "sales"
    write(path, 1, rows(0, 3), "replace")
    write(path, 2, rows(0, 3), "replace")
    assert removed == [["gold"]]


def _content(folder: int, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:  # noqa: PTH123 - relative to a handle
        return file.read()


def test_without_an_exchange_in_the_kernel_two_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    class Libc:
        renameat2 = staticmethod(refuses)

    monkeypatch.setattr(folder_module.ctypes, "CDLL", lambda *_, **__: Libc)
    path = tmp_path / "sales"
    write(path, 1, rows(0, 5), "replace")
    assert write(path, 2, rows(5, 3), "replace").deleted == 5
    assert seen(path) == [5, 6, 7]
    assert beside(path) == []


def test_links_are_copied_where_the_disk_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write(tmp_path / "sales", 1, rows(0, 5))
    write(tmp_path / "sales", 2, rows(5, 5))
    assert seen(tmp_path / "sales") == list(range(10))


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_full_disk_leaves_nothing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "sales"
    write(path, 1, rows(0, 5), format=kind, compression="none")
    before = sorted(p.name for p in path.iterdir())
    assert in_a_process(full_disk, path, kind=kind) == 42
    assert sorted(p.name for p in path.iterdir()) == before
    assert beside(path) == []
    assert write(path, 2, rows(100, 5), format=kind, compression="none").inserted == 5


def test_two_loads_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "sales"

    def batches() -> Iterator[pa.RecordBatch]:
        yield from rows(0, 5).to_batches()
        with pytest.raises(ConcurrentCommitError, match="another load is writing"):
            write(path, 8, rows(50, 5))

    FileTarget().write(load(path, 7), batches())
    assert seen(path) == list(range(5))


def test_what_it_has_not_written_it_does_not_touch(tmp_path: Path) -> None:
    path = tmp_path / "sales"
    path.mkdir()
    (path / "by hand.parquet").write_bytes(b"precious")
    with pytest.raises(ConfigurationError, match=r"by hand\.parquet"):
        write(path, 1, rows(0, 5), "replace")
    assert (path / "by hand.parquet").read_bytes() == b"precious"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "_etl_commits.json").write_text("not ours")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        write(tmp_path / "other", 1, rows(0, 5))


def test_the_record_of_commits_tells_every_load(tmp_path: Path) -> None:
    path = tmp_path / "sales"
    write(path, 1, rows(0, 5))
    write(path, 2, rows(5, 3))
    record = json.loads((path / "_etl_commits.json").read_text())
    entry = record["commits"]["gold/sales"]
    assert (entry["version"], entry["run_id"], entry["mode"]) == (2, "run-2", "append")
    assert entry["counts"] == {"read": 3, "inserted": 3, "deleted": 0}
    assert sorted(record["files"].values()) == [3, 5]
    assert write(path, 3, rows(0, 1), "replace").deleted == 8


def test_an_upsert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no mode upsert"):
        write(tmp_path / "sales", 1, rows(0, 1), "upsert")


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_file_source_reads_back_what_was_written(kind: str, compression: str, tmp_path: Path) -> None:
    texts = ["plain", "", None, 'say "hi"', "a,b", "one\ntwo", "x\r\ny", " spaces ", "NULL", "é\u2028Ω", "'", "\\"]
    data = pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": texts, "tags": [[t] for t in texts]})
    write(tmp_path / "out", 1, data, format=kind, compression=compression)
    batches = FileSource().read(Stream("back", FileOptions(path=str(tmp_path / "out" / f"*.{kind}*"))), None)
    back = [r for b in batches for r in b.data.to_pylist()]
    assert [r["text"] for r in back] == texts
    tags = [json.loads(r["tags"]) if kind == "csv" else r["tags"] for r in back]
    assert tags == [[t] for t in texts]


@pytest.mark.parametrize(
    ("kind", "column", "says"),
    [
        ("jsonl", pa.array([1.5, float("nan")]), "NaN or infinity"),
        ("jsonl", pa.array([{"x": b"\x00"}]), "binary values within"),
        ("csv", pa.array([[b"\x00"]]), "binary values within"),
    ],
)
def test_what_a_format_has_no_form_for_is_refused(kind: str, column: pa.Array, says: str, tmp_path: Path) -> None:
    path = tmp_path / "sales"
    with pytest.raises(SchemaConflictError, match=says):
        write(path, 1, pa.table({"v": column}), format=kind)
    assert not path.exists()
    assert beside(path) == []


def test_decimals_without_whole_digits_are_json(tmp_path: Path) -> None:
    from decimal import Decimal

    small = pa.array([Decimal("0.25")], pa.decimal128(2, 2))
    data = pa.table({"d": small, "s": pa.StructArray.from_arrays([small], ["d"])})
    write(tmp_path / "out", 1, data, format="jsonl")
    (file,) = (tmp_path / "out").glob("*.jsonl")
    assert json.loads(file.read_text()) == {"d": 0.25, "s": {"d": 0.25}}


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="File exists"):
        write(tmp_path / "file" / "sales", 1, rows(0, 1))


def test_what_a_crash_has_left_is_cleared_by_the_next_load(tmp_path: Path) -> None:
    path = tmp_path / "sales"
    write(path, 1, rows(0, 5))
    for leftover in (".sales.next", ".sales.old"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "x.parquet").write_bytes(b"half")
    write(path, 2, rows(5, 5))
    assert beside(path) == []
    assert Folder(path).commits().version("gold/sales") == 2
