"""Whatever becomes of a log between two reads, each of its lines is read once."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from etl_resources.exceptions import ConfigurationError, UnavailableError
from etl_resources.files.storage import Storage
from etl_resources.logs import known, tail
from etl_resources.logs.looking import Seen
from etl_resources.source import Stream
from etl_resources.sources.log import LogOptions, LogSource
from tests.soaking import some

PATTERN = r"(?P<n>\d+) (?P<text>.*)"


class Reader:
    """Reads a folder again and again, as runs do: the position goes through JSON."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.options = LogOptions(path=str(path), **{"format": "pattern", "pattern": PATTERN, **options})
        self.position: Any = None
        self.unreadable: list[dict[str, Any]] = []

    def read(self, *, stop_after: int | None = None, batch_rows: int = 1000) -> list[str]:
        """Return what is new; after `stop_after` batches the reader is killed, and keeps the last position it had."""
        found: list[str] = []
        batches = LogSource().read(Stream("log", self.options), self.position, batch_rows=batch_rows)
        pending: list[str] = []
        for number, batch in enumerate(batches):
            if number == stop_after:
                break
            pending += batch.data.column(0).to_pylist() if batch.data.num_columns > 1 else []
            self.unreadable += batch.unreadable.to_pylist() if batch.unreadable else []
            if batch.position is not None:
                self.position = json.loads(json.dumps(batch.position))
                found, pending = found + pending, []
        batches.close()  # type: ignore[attr-defined]
        return found


def numbers(first: int, last: int) -> list[str]:
    return [str(n) for n in range(first, last + 1)]


def write(path: Path, first: int, last: int, *, end: str = "\n") -> None:
    with path.open("a") as log:
        log.write("\n".join(f"{n} some text of line {n}" for n in range(first, last + 1)) + end)


def age(path: Path, seconds: float = 1000) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.fixture
def reader(log: Path) -> Reader:
    return Reader(log.parent / "app*.log*")


def test_a_growing_file_is_read_on_where_it_was_left(log: Path, reader: Reader) -> None:
    write(log, 1, 3)
    assert reader.read() == numbers(1, 3)
    assert reader.read() == []
    write(log, 4, 5)
    assert reader.read() == numbers(4, 5)


def test_a_half_written_line_waits_for_its_end(log: Path, reader: Reader) -> None:
    write(log, 1, 2)
    with log.open("a") as file:
        file.write("3 half")
    age(log)
    assert reader.read() == numbers(1, 2), "however long it has been so: nobody says that it was rotated away"
    assert reader.read() == []
    with log.open("a") as file:
        file.write(" and half\n")
    assert reader.read() == ["3"]


def test_a_file_without_a_whole_line_is_read_when_it_has_one(log: Path, reader: Reader) -> None:
    write(log, 1, 1, end="")
    assert reader.read() == []
    log.open("a").write("\n")
    assert reader.read() == ["1"]


@pytest.mark.parametrize("rotated", ["app.log.1", "app.log-20240131", "app-2024-01-31.log", "app.log.2024-01-31_12"])
def test_a_file_that_was_renamed_is_read_on_under_its_new_name(log: Path, reader: Reader, rotated: str) -> None:
    write(log, 1, 3)
    assert reader.read() == numbers(1, 3)
    write(log, 4, 5)
    log.rename(log.with_name(rotated))
    write(log, 6, 7)
    assert sorted(reader.read()) == numbers(4, 7)
    write(log.with_name(rotated), 8, 8)  # the server has it open still
    assert reader.read() == ["8"]


def test_the_last_line_of_a_file_that_was_rotated_away_is_taken_when_nobody_writes_to_it(log: Path) -> None:
    reader = Reader(log.parent / "app*.log*", final_after=60)
    write(log, 1, 2, end="")
    assert reader.read() == ["1"]
    rotated = log.rename(log.with_name("app.log.1"))
    age(rotated)
    assert reader.read() == [], "there is no new file yet"
    write(log, 3, 3)
    os.utime(rotated)
    assert reader.read() == ["3"], "it was written to a moment ago"
    age(rotated)
    assert reader.read() == ["2"]
    assert reader.read() == []


def test_numbered_files_move_on_and_none_is_read_twice(log: Path, reader: Reader) -> None:
    got: list[str] = []
    for n in range(6):
        write(log, n * 10, n * 10 + 9)
        got += reader.read() if n % 2 else []
        for old in sorted(log.parent.glob("app.log.*"), reverse=True):
            old.rename(old.with_name(f"app.log.{int(old.suffix[1:]) + 1}"))
        log.rename(log.with_name("app.log.1"))
    assert sorted(got + reader.read(), key=int) == numbers(0, 59)


def test_a_log_that_was_copied_and_truncated_is_read_on_in_the_copy(log: Path, reader: Reader) -> None:
    write(log, 1, 300)
    assert reader.read() == numbers(1, 300)
    write(log, 301, 310)
    shutil.copy(log, log.with_name("app.log.1"))
    os.truncate(log, 0)
    write(log, 311, 312)
    assert sorted(reader.read(), key=int) == numbers(301, 312)
    assert reader.read() == []


def test_a_truncated_log_that_has_grown_beyond_its_mark_is_not_taken_for_the_old_one(log: Path, reader: Reader) -> None:
    write(log, 1, 3)
    reader.read()
    os.truncate(log, 0)
    write(log, 101, 200)
    assert reader.read() == numbers(101, 200)


def test_a_log_with_the_same_beginning_is_told_by_what_stands_before_the_mark(log: Path, reader: Reader) -> None:
    banner = "0 " + "=" * 2000 + "\n"
    log.write_text(banner)
    write(log, 1, 20)
    assert len(reader.read()) == 21
    log.write_text(banner)
    write(log, 101, 200)
    assert reader.read() == ["0", *numbers(101, 200)]


def test_a_copy_that_is_being_made_is_not_read_as_well(log: Path, reader: Reader) -> None:
    """Neither a part of it, nor all of it while the log is not truncated yet, nor what was written meanwhile."""
    write(log, 1, 100)
    reader.read()
    write(log, 101, 200)
    copy = log.with_name("app.log.1")
    copy.write_bytes(log.read_bytes()[:1000])
    assert reader.read() == numbers(101, 200)
    shutil.copy(log, copy)
    write(log, 201, 210)
    assert reader.read() == numbers(201, 210)
    shutil.copy(log, copy)
    write(copy, 211, 212)  # came in between
    os.truncate(log, 0)
    write(log, 213, 213)
    assert sorted(reader.read(), key=int) == numbers(211, 213)
    assert reader.read() == []


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_file_that_was_compressed_is_not_read_again(log: Path, reader: Reader, suffix: str, keep: bool) -> None:
    write(log, 1, 3000)
    reader.read()
    write(log, 3001, 3010)
    rotated = log.rename(log.with_name("app.log.1"))
    write(log, 3011, 3011)
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    rotated.with_name(f"app.log.1{suffix}").write_bytes(pack(rotated.read_bytes()))
    if not keep:
        rotated.unlink()
    assert sorted(reader.read(), key=int) == numbers(3001, 3011)
    assert reader.read() == []
    rotated.with_name(f"app.log.1{suffix}").rename(log.with_name(f"app.log.2{suffix}"))
    write(log, 3012, 3012)
    assert reader.read() == ["3012"]


def test_a_file_that_is_being_compressed_waits_and_one_that_is_damaged_is_an_error(log: Path, reader: Reader) -> None:
    write(log, 1, 3000)
    reader.read()
    rotated = log.rename(log.with_name("app.log.1"))
    whole = gzip.compress(rotated.read_bytes())
    packed = log.with_name("app.log.1.gz")
    packed.write_bytes(whole[: len(whole) // 2])
    assert reader.read() == []
    packed.write_bytes(whole)
    rotated.unlink()
    assert reader.read() == []
    write(log, 3001, 3001)
    assert reader.read() == ["3001"]
    log.with_name("app.log.3.gz").write_bytes(gzip.compress(b"5000 x\n" * 9000)[:-30])
    with pytest.raises(UnavailableError, match=r"app.log.3.gz is damaged or not complete"):
        reader.read()


def test_compressed_files_that_were_never_seen_are_read_and_their_last_line_without_an_end(log: Path) -> None:
    write(log, 1, 5, end="")
    log.with_name("app.log.2.gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()
    reader = Reader(log.parent / "app*.log*")
    assert reader.read() == numbers(1, 5)


def test_two_logs_that_begin_alike_are_two_logs(tmp_path: Path) -> None:
    """The same first lines in two folders, or in a new file of the same name, are read for each."""
    reader = Reader(tmp_path / "**" / "app.log*")
    for host in ("a", "b"):
        (tmp_path / host).mkdir()
    write(tmp_path / "a" / "app.log", 1, 2)
    assert reader.read() == ["1", "2"]
    write(tmp_path / "b" / "app.log", 1, 2)
    assert reader.read() == ["1", "2"]
    (tmp_path / "a" / "app.log").rename(tmp_path / "a" / "app.log.1")
    write(tmp_path / "a" / "app.log", 1, 2)
    assert reader.read() == ["1", "2"]


def test_one_file_under_two_names_is_one_file(log: Path, reader: Reader) -> None:
    write(log, 1, 2)
    log.with_name("app.log.1").hardlink_to(log)
    assert reader.read() == ["1", "2"]


def test_a_kind_of_compression_that_is_not_known_is_refused(log: Path, reader: Reader) -> None:
    log.with_name("app.log.1.bz2").write_bytes(b"BZh9")
    with pytest.raises(ConfigurationError, match=r"app\.log\.1\.bz2"):
        reader.read()


def test_the_end_of_a_stack_trace_waits_for_the_next_entry_or_for_silence(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    reader = Reader(log, format="python", pattern=None, final_after=60)
    log.write_text("INFO:a:one\nERROR:a:two\nTraceback:\n  first\n")
    assert reader.read() == ["INFO"]
    with log.open("a") as file:
        file.write("  second\n")
    assert reader.read() == []
    with log.open("a") as file:
        file.write("INFO:a:three\n")
    (batch,) = LogSource().read(Stream("log", reader.options), reader.position)
    assert batch.data.column("message").to_pylist() == ["two\nTraceback:\n  first\n  second"]
    reader.read()
    age(log)
    assert reader.read() == ["INFO"]
    assert reader.read() == []


def test_a_log_that_is_truncated_while_it_is_read_gives_what_was_read_before(
    log: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in the file after that is another text, though it may be longer."""
    monkeypatch.setattr(tail, "BLOCK_BYTES", 4096)
    write(log, 1, 1000)
    batches = LogSource().read(Stream("log", reader.options), None, batch_rows=50)
    first = next(batches)
    shutil.copy(log, log.with_name("app.log.1"))
    os.truncate(log, 0)
    write(log, 5000, 9000)
    got = [first, *batches]
    seen = [n for b in got for n in b.data.column("n").to_pylist()]
    reader.position = json.loads(json.dumps(got[-1].position))
    assert max(map(int, seen)) < 5000
    assert sorted(seen + reader.read(), key=int) == numbers(1, 1000) + numbers(5000, 9000)


def test_a_file_that_is_renamed_between_looking_and_opening_is_read_by_the_next_run(
    log: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, 1, 3)
    opened = Storage.open

    def rotate_first(self: Storage, path: str) -> Any:
        if log.exists() and not log.with_name("app.log.1").exists():
            log.rename(log.with_name("app.log.1"))
            write(log, 4, 5)
        return opened(self, path)

    monkeypatch.setattr(Storage, "open", rotate_first)
    got = reader.read()
    assert sorted(got + reader.read()) == numbers(1, 5)


def test_a_file_that_nobody_has_seen_for_a_month_is_forgotten(
    log: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, 1, 3)
    reader.read()
    other = log.rename(log.with_name("gone"))
    write(log, 4, 4)
    assert reader.read() == ["4"]
    assert len(reader.position["files"]) == 2
    now = time.time()
    monkeypatch.setattr(known.time, "time", lambda: now + 31 * 86_400)
    write(log, 5, 5)
    assert reader.read() == ["5"]
    assert len(reader.position["files"]) == 1
    assert other.exists()


def _operations(folder: Path, chance: random.Random) -> Iterator[int]:
    """Do to a log what servers and logrotate do, for ever; yield how many lines have been written whole."""
    log, written, half = folder / "app.log", 0, ""
    while True:
        kind = chance.choices(["write", "half", "rename", "copytruncate", "compress", "nothing"], [8, 2, 2, 1, 2, 1])[0]
        if kind == "write":
            count = chance.choice([1, 1, 5, 400])
            lines = [f"{n} {'x' * chance.choice([3, 30, 300])}\n" for n in range(written + 1, written + count + 1)]
            if half:
                lines[0], half = lines[0][len(half) :], ""
            with log.open("a") as file:
                file.write("".join(lines))
            written += count
        elif kind == "half" and not half:
            half = f"{written + 1} "
            with log.open("a") as file:
                file.write(half)
        elif kind in {"rename", "copytruncate"} and not half and log.exists():
            for old in sorted(folder.glob("app.log.*"), key=lambda p: -int(p.name.split(".")[2])):
                _, _, number, *rest = old.name.split(".")
                old.rename(folder / ".".join(["app.log", str(int(number) + 1), *rest]))
            if kind == "rename":
                log.rename(folder / "app.log.1")
            else:
                shutil.copy(log, folder / "app.log.1")
                os.truncate(log, 0)
        elif kind == "compress":
            for old in [p for p in folder.glob("app.log.*") if not p.name.endswith((".gz", ".zst"))][:1]:
                suffix, pack = chance.choice([("gz", gzip.compress), ("zst", zstandard.ZstdCompressor().compress)])
                (folder / f"{old.name}.{suffix}").write_bytes(pack(old.read_bytes()))
                old.unlink()
        yield written


@pytest.mark.parametrize("seed", some(range(12), 5))
def test_any_order_of_writes_rotations_and_kills_gives_each_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(tail, "BLOCK_BYTES", 8192)
    chance = random.Random(seed)
    reader, got, written = Reader(tmp_path / "app.log*"), [], 0
    operations = _operations(tmp_path, chance)
    for _ in range(60):
        written = next(operations)
        if chance.random() < 0.4:
            got += reader.read(stop_after=chance.choice([None, None, 1, 2]), batch_rows=chance.choice([10, 200]))
    got += reader.read()
    assert sorted(map(int, got)) == list(range(1, written + 1))
    assert reader.unreadable == []


def test_what_is_new_is_told_without_reading_it(log: Path, reader: Reader) -> None:
    write(log, 1, 3)
    stream, source = Stream("log", reader.options), LogSource()
    before = source.latest(stream)
    assert source.estimate(stream, None).size == log.stat().st_size
    reader.read()
    assert source.estimate(stream, reader.position).items == ()
    write(log, 4, 4)
    told = source.estimate(stream, reader.position)
    assert (told.size, told.items) == (len("4 some text of line 4\n"), (str(log),))
    assert source.latest(stream) != before


def test_of_a_thousand_unchanged_files_none_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(50):
        write(tmp_path / f"app-{n}.log", n, n)
    reader = Reader(tmp_path / "app-*.log")
    assert len(reader.read()) == 50
    monkeypatch.setattr(Storage, "open", lambda self, path: pytest.fail(f"{path} was opened"))
    assert reader.read() == []


def test_the_log_of_a_rotated_file_is_known_by_its_name() -> None:
    live = "/var/log/app.log"
    for name in (
        "app.log",
        "app.log.1",
        "app.log.12.gz",
        "app.log-20240131.zst",
        "app-2024-01-31.log",
        "app.log.2024-01-31",
    ):
        assert Seen(f"/var/log/{name}", "1:1", 0, 0).log == live, name
    for name in ("app-1.log", "app2.log", "v1.2-app.log"):
        assert Seen(f"/var/log/{name}", "1:1", 0, 0).log != live
