"""What an implementation gives to take part in the conformance suite: one small class each.

A module in `implementations/` lists its classes in `SOURCES` and `TARGETS`; nothing else has to be touched. Cases that
an implementation cannot pass are named, with the reason, in `capabilities.gaps` of the source or `gaps` of the target
(`types.binary`, `bounded_memory` …) and become strict expected failures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from etl_resources.source import Source, Stream
from etl_resources.target import Mode, Target, TargetOptions

from .cases import TypeCase

Opened = tuple[Source, Stream]


class SourceHarness(ABC):
    """One source over a real far end. Started once per test session; every test uses stream names of its own."""

    name: ClassVar[str]
    source_type: ClassVar[type[Source]]
    gaps: ClassVar[dict[str, str]] = {}
    """Gaps of this variant (a file format, say), beside those that the source itself declares."""
    soak: ClassVar[frozenset[str]] = frozenset()
    """Cases that take too long for `make test` here, `*` for all; `make soak` runs them."""
    types_in_one: ClassVar[bool] = False
    """Whether the type cases can be columns of one stream, so that it is filled and read once for all of them."""
    memory_rows: ClassVar[tuple[int, int]] = (150_000, 600_000)
    """Sizes whose peak memory is compared; a variant of what is already compared at full size may use less."""
    memory_text: ClassVar[int] = 0
    """How many letters each of these rows has besides: few rows that are long take as much, and less time. Not where
    blocks are read ahead, as of files: only what is much larger than all of them tells a leak from them."""
    away_rows: ClassVar[int] = 60_000
    """How many rows there are when the far end goes away: more than are on the way at any time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self) -> None:  # noqa: B027 - a far end that needs no server
        """Bring the far end up."""

    def stop(self) -> None:  # noqa: B027
        """Take it down."""

    @abstractmethod
    def fill(self, name: str, data: pa.Table) -> Opened:
        """Make a stream that holds exactly `data`, and open it as a user would."""

    @abstractmethod
    def extend(self, name: str, data: pa.Table) -> None:
        """Let `data` arrive in the stream `name` after it has been filled."""

    @classmethod
    def declared_gaps(cls) -> dict[str, str]:
        """Return the cases that the source, or this variant of it, says that it cannot pass, and why."""
        return {**cls.source_type.capabilities.gaps, **cls.gaps}

    def received(self, case: TypeCase) -> pa.Array:
        """Return what bronze must get for the case: by default the same values in the same type."""
        return case.array()

    @abstractmethod
    def missing(self) -> Opened:
        """Return a stream over a table or file that is not there."""

    @abstractmethod
    def missing_column(self, name: str, data: pa.Table) -> Opened:
        """Return a stream over `data` whose options, capture or window name a column that is not there."""

    @abstractmethod
    def wrong_credentials(self) -> Opened:
        """Return a stream whose far end answers and refuses the credentials."""

    @abstractmethod
    def goes_away(self, name: str, data: pa.Table) -> AbstractContextManager[Opened]:
        """Open a stream of `data` whose far end goes away before the last row has been sent."""


class TargetHarness(ABC):
    """One target over a real far end. Started once per test session; every test uses table names of its own."""

    name: ClassVar[str]
    target_type: ClassVar[type[Target]]
    gaps: ClassVar[dict[str, str]] = {}
    """Gaps of this variant, beside those that the target itself declares."""
    types_in_one: ClassVar[bool] = False
    """Whether the type cases can be columns of one table, so that it is written and read once for all of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self) -> None:  # noqa: B027
        """Bring the far end up."""

    def stop(self) -> None:  # noqa: B027
        """Take it down."""

    @abstractmethod
    def open(self, name: str) -> tuple[Target, TargetOptions]:
        """Return the target, and the options that write into the table (folder, topic) `name`."""

    @abstractmethod
    def visible(self, name: str, schema: pa.Schema) -> pa.Table:
        """Return what an ordinary reader of `name` sees now, read without this project's code, in `schema`'s column
        order; an empty table of `schema` where nothing is visible."""

    @classmethod
    def declared_gaps(cls) -> dict[str, str]:
        """Return the cases that the target, or this variant of it, says that it cannot pass, and why."""
        return {**cls.target_type.gaps, **cls.gaps}

    def stored(self, case: TypeCase) -> pa.Array:
        """Return what an ordinary reader gets back for the case: by default the same values in the same type."""
        return case.array()

    def leftovers(self, name: str) -> list[str]:
        """Return what an interrupted load has left behind: temporary files, staging tables."""
        return []

    @abstractmethod
    def wrong_credentials(self) -> tuple[Target, TargetOptions]:
        """Return a target whose far end refuses the credentials."""

    @abstractmethod
    def missing(self) -> tuple[Target, TargetOptions]:
        """Return a target whose container (schema, bucket) is not there."""

    def constrain(self, name: str, schema: pa.Schema, mode: Mode) -> None:
        """Make the table `name` of `schema` refuse rows whose `id` is negative (a check constraint, a length …).

        Left alone by targets that refuse nothing; they name the gap `refused_rows`.
        """
        raise NotImplementedError
