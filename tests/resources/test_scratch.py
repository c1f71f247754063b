"""What a process leaves behind that was killed is removed by the next one; what is in use is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etl_resources.engines.duckdb import DuckDB
from etl_resources.scratch import PREFIX, Scratch, sweep

HOLD = """
import sys, time
from etl_resources.scratch import Scratch
held = Scratch(sys.argv[1])
open(held.name + "/spilled", "w").write("x" * 1000)
print(held.name, flush=True)
time.sleep(600)
"""


def held_by_another(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def aged(path: Path) -> Path:
    """Make it look an hour old."""
    os.utime(path, (time.time() - 3600,) * 2, follow_symlinks=False)
    return path


def test_what_a_killed_process_left_behind_is_removed(tmp_path: Path) -> None:
    process, folder = held_by_another(tmp_path)
    try:
        aged(folder)
        assert sweep(str(tmp_path)) == []
        assert (folder / "spilled").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert folder.exists()
    assert sweep(str(tmp_path)) == [folder.name]
    assert list(tmp_path.iterdir()) == []


def test_the_first_folder_that_a_process_makes_sweeps(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    aged(left)
    with Scratch(str(tmp_path)) as own:
        assert not left.exists()
        assert [str(path) for path in tmp_path.iterdir()] == [own]
        left.mkdir()
        aged(left)
        with Scratch(str(tmp_path)):
            assert left.exists()
    assert list(tmp_path.iterdir()) == [left]


def test_what_is_young_or_no_folder_of_ours_stays(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}young").mkdir()  # made, and not locked yet
    (tmp_path / "other").mkdir()
    (tmp_path / f"{PREFIX}file").write_text("")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "other")
    for name in ("other", f"{PREFIX}file", f"{PREFIX}link"):
        aged(tmp_path / name)
    assert sweep(str(tmp_path)) == []
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_belongs_to_another_user_stays(tmp_path: Path) -> None:
    theirs = tmp_path / f"{PREFIX}theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    aged(theirs)
    assert sweep(str(tmp_path)) == []


def test_it_is_for_its_user_only_and_goes_with_everything_in_it(tmp_path: Path) -> None:
    with Scratch(str(tmp_path)) as name:
        assert Path(name).stat().st_mode & 0o777 == 0o700
        (Path(name) / "deep" / "er").mkdir(parents=True)
        (Path(name) / "deep" / "er" / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_the_engine_spills_into_such_a_folder(tmp_path: Path) -> None:
    engine = DuckDB(temp_directory=str(tmp_path))
    with engine.session() as session:
        assert session is not None
        (folder,) = tmp_path.iterdir()
        assert folder.name.startswith(PREFIX)
