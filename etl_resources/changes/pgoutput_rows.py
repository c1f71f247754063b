"""From the messages of one version of one table to its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import event_fields
from etl_resources.changes.pgoutput_tuples import Values, misread, walk
from etl_resources.changes.pgoutput_values import converter
from etl_resources.changes.pgoutput_wire import DELETE, KEY, NEW, OLD, TRUNCATE, UPDATE, Relation, Wire
from etl_resources.exceptions import NotFoundError
from etl_resources.hints import nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.pgoutput_wire import Places
    from etl_resources.sources.postgres_columns import Column

_TUPLE = 6  # tag, oid, and the letter that says which tuple it is


class Version:
    """One version of a captured table: which of its columns are wanted, and how each of them is read."""

    def __init__(self, relation: Relation, stream: str, key: tuple[str, ...], columns: Sequence[Column]) -> None:
        self.relation, self.stream, self.key, self.columns = relation, stream, key, tuple(columns)
        self.width = len(relation.columns)
        places = {column.name: place for place, column in enumerate(relation.columns)}
        for name in (*key, *(column.name for column in columns)):
            if name not in places:
                raise NotFoundError(
                    f"there is no column {name} in the log of {self.table}", where=f"stream {stream}",
                    fix=nearest(name, places) or "publish the column",
                )  # fmt: skip
        self.places = [places[column.name] for column in columns]
        self.key_places = [places[name] for name in key]

    @property
    def table(self) -> str:
        """Schema and name of the table."""
        return f"{self.relation.schema}.{self.relation.name}"

    @cached_property
    def converters(self) -> list[Any]:
        """Return a function from texts to values for each column."""
        return [converter(column.type) for column in self.columns if column.type is not None]

    @cached_property
    def schema(self) -> pa.Schema:
        """Return the columns of the row, and those of the event."""
        import pyarrow as pa

        row = pa.schema([(column.name, column.arrow) for column in self.columns])
        return pa.schema([*row, *event_fields(row)])

    def is_identity(self, place: int) -> bool:
        """Tell whether the log gives this column of a deleted row."""
        return self.relation.columns[place].identity


@dataclass(slots=True)
class Entries:
    """Messages of one version: index of the message, its tag, and the place of its last event in the transaction."""

    index: Places
    tags: Any
    seq: Places

    def __getitem__(self, chosen: Any) -> Entries:
        return Entries(self.index[chosen], self.tags[chosen], self.seq[chosen])


class Rows:
    """The rows of some messages of one version, new and old, still as places in the buffer.

    `old_of[j]` is the entry that the old tuple j belongs to, `split` tells for it whether its key was changed.
    """

    def __init__(self, wire: Wire, version: Version, entries: Entries) -> None:
        import numpy as np

        self.wire, self.version, self.entries = wire, version, entries
        at: Places = wire.starts[entries.index]
        letter = wire.octets[at + _TUPLE - 1]
        is_update, is_delete = entries.tags == UPDATE, entries.tags == DELETE
        self.rows = np.flatnonzero(entries.tags != TRUNCATE)
        self.old_of = np.flatnonzero(is_delete | (is_update & (letter != NEW)))
        self.old = walk(wire, at[self.old_of] + _TUPLE, version.width)
        self.updated = is_update[self.old_of]
        self.deleted = is_delete[self.rows]
        begin = at + _TUPLE
        behind = self.old.after[self.updated]
        begin[self.old_of[self.updated]] = behind + 1
        old_letters = letter[self.old_of]
        if not ((old_letters == KEY) | (old_letters == OLD)).all() or (wire.octets[behind] != NEW).any():
            raise misread("a row is neither new, nor old, nor a key")
        self.new = walk(wire, begin[self.rows], version.width)
        if (self.new.after != wire.ends[entries.index[self.rows]]).any():
            raise misread("a row ends elsewhere than its message")
        self._fill_unchanged()
        self.split = self._changes_of_key()

    @property
    def count(self) -> int:
        """Return how many events the messages are."""
        return len(self.entries.index) + int(self.split.sum())

    def _fill_unchanged(self) -> None:
        """Take what the new row leaves out, because it did not change, from the old row, where that is in the log."""
        import numpy as np

        # Rows are all entries but the truncates, so this is where an old tuple's row is among them.
        row_of_old = np.searchsorted(self.rows, self.old_of)
        for new, old in zip(self.new.columns, self.old.columns, strict=True):
            if new.unchanged is None:
                continue
            fill = new.unchanged[row_of_old] & old.given
            to = row_of_old[fill]
            new.starts[to], new.ends[to], new.given[to] = old.starts[fill], old.ends[fill], True
            new.unchanged[to] = False
            if not new.unchanged.any():
                new.unchanged = None

    def _changes_of_key(self) -> Any:
        """Return for each old tuple whether it is that of an update which changed the key of the stream."""
        import numpy as np
        import pyarrow.compute as pc

        split = np.zeros(len(self.old_of), np.bool_)
        row_of_old = np.searchsorted(self.rows, self.old_of)
        for place in self.version.key_places:
            old, new = self.old.columns[place], self.new.columns[place]
            known = self.updated & (old.given | self.version.is_identity(place))
            if new.unchanged is not None:
                known &= ~new.unchanged[row_of_old]
            both = known & old.given & new.given[row_of_old]
            split |= known & (old.given != new.given[row_of_old])
            index = np.flatnonzero(both)
            if len(index):
                differs = pc.not_equal(
                    chosen(old, index).texts(self.wire), chosen(new, row_of_old[index]).texts(self.wire)
                )
                split[index] |= differs.to_numpy(zero_copy_only=False)
        return split


def chosen(values: Values, index: Any) -> Values:
    """Return some of the values."""
    unchanged = None if values.unchanged is None else values.unchanged[index]
    return Values(values.starts[index], values.ends[index], values.given[index], unchanged)
