"""A captured table at one known moment, with checksums of its rows that another engine can compute as well.

Each column has a text that both sides can write (`Form`), a row is its texts with their lengths before them (`-` where
there is none), and the hash is the first 60 bits of the MD5 of that, which every engine has. Rows are spread over
segments by the hash of their key: order and collation of keys, on which engines differ, do not matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from etl_resources.source import Position

if TYPE_CHECKING:
    import pyarrow as pa

Form = Literal["text", "padded", "number", "day", "instant", "bits", "hex"]
"""How a value is written, in UTF-8.

- text: as the lake has it: text, integers in digits, `true` and `false`
- padded: text without the spaces at its end
- number: a decimal, without zeros at the end
- day, instant: days, or microseconds in UTC, since 1970
- bits: the eight bytes of a float as a signed integer, of any NaN `NAN`
- hex: bytes, in lower case
"""


NAN = 0x7FF8000000000000


@dataclass(frozen=True, slots=True)
class ComparedColumn:
    """A column that is compared."""

    name: str
    form: Form


class ComparedTable(ABC):
    """One snapshot of a table, as long as its context is open (`ChangeLog.compared`)."""

    columns: Sequence[ComparedColumn]
    """Those of the key among them."""
    left_out: Mapping[str, str]
    """Columns that cannot be compared -> why."""

    @abstractmethod
    def segments(self, number: int, columns: Sequence[ComparedColumn]) -> pa.Table:
        """Return `segment` (int64, below `number`), `rows` (int64) and `total` of the hashes (string) of each segment
        that has rows, of these columns."""

    @abstractmethod
    def rows(self, number: int, segments: Sequence[int], columns: Sequence[ComparedColumn]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some segments: the texts of the key as `k0`, `k1` …, and the row's hash as `hash`."""

    @abstractmethod
    def unfinished(self, position: Position | None) -> str | None:
        """Return why the lake cannot be compared at this position; None: it can."""

    @abstractmethod
    def seen(self, position: Position) -> str:
        """Return SQL over the events of the lake, for DuckDB: the snapshot contains the event; never NULL.

        Args:
            position: the one that the lake has, of after the snapshot.

        Raises:
            ConfigurationError: the lake has not come to the snapshot.
        """
