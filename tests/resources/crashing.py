"""What may end a process, each in one of its own: loads that are cut off, files that crash a parser."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from etl_resources.exceptions import UnavailableError
from etl_resources.files import folder
from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource
from etl_resources.target import CommitToken, Load, Mode
from etl_resources.targets.file import FileTarget, FileTargetOptions
from tests.forks import shared_forks

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])


def rows(first: int, count: int, more: str = "") -> pa.Table:
    return pa.table([list(range(first, first + count)), [f"row {n}{more}" for n in range(count)]], schema=SCHEMA)


def load(path: Path, version: int, mode: Mode = "append", schema: pa.Schema = SCHEMA, **options: Any) -> Load:
    token = CommitToken("gold/sales", version, f"run-{version}")
    return Load(FileTargetOptions(path=str(path), **options), schema, mode, token)


def in_a_process(function: Callable[..., None], path: Path, **arguments: str) -> int:
    """Run a function of this module in a process of its own; return the exit code."""
    return shared_forks().start(function, path=str(path), **arguments).wait(100)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_load(path: str, mode: Mode, point: str) -> None:
    exchange = folder._exchange

    def batches() -> Iterator[pa.RecordBatch]:
        yield from rows(100, 500).to_batches(max_chunksize=100)
        if point == "while the rows come":
            die()

    def exchange_and_die(new: Path, current: Path, old: Path) -> None:
        exchange(new, current, old)
        die()

    def rename_and_die(_: Path, current: Path, old: Path) -> None:
        current.rename(old)
        die()

    if point == "before the exchange":
        folder._exchange = die
    elif point == "behind the exchange":
        folder._exchange = exchange_and_die
    elif point == "between two renames":
        folder._exchange = rename_and_die
    elif point == "before the files are synced":
        folder._sync = die
    FileTarget().write(load(Path(path), 2, mode), batches())


def full_disk(path: str, kind: str) -> None:
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        FileTarget().write(load(Path(path), 2, format=kind, compression="none"), rows(100, 50_000).to_batches())
    except UnavailableError as error:
        os._exit(42 if "could not be written" in error.what else 43)


def read_two_records(path: str) -> None:
    """Read a file that has one good record and a bad one."""
    batches = list(FileSource().read(Stream("x", FileOptions(path=path)), None))
    assert batches[-1].rows_read == 2
    assert sum(b.data.num_rows for b in batches) == 1
