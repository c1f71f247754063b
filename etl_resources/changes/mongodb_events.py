"""Replies of a change stream in columns: what was done, when, to which collection, and the documents, still as BSON."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from etl_resources.changes.mongodb_position import _EPOCH, Token, dumped_token
from etl_resources.exceptions import EngineError
from etl_resources.sources import mongodb_bson as b
from etl_resources.sources.mongodb_bson import Buffer, Field, Values, fields_of

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.sources.mongodb_bson import Index


@dataclass(frozen=True)
class Events:
    """Events in the order of the stream; `pos` never falls."""

    buffer: Buffer
    starts: Index
    where: str

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, chosen: Any) -> Events:
        """Return some of the events: a slice, a mask, or numbers that grow."""
        return Events(self.buffer, self.starts[chosen], self.where)

    @cached_property
    def fields(self) -> dict[str, Field]:
        """The fields of the events, not yet those of the documents in them."""
        return fields_of(self.buffer, self.starts)

    @cached_property
    def pos(self) -> NDArray[np.int64]:
        """`_pos` of each event."""
        import numpy as np

        found = self.fields.get("clusterTime", {}).get(b.TIMESTAMP)
        if found is None or len(found.at) != len(self):
            raise EngineError("an event without a clusterTime", where=self.where, fix="MongoDB 4.2 or later is needed")
        raw = self.buffer.numbers(found.at, "<u8")
        return (raw - np.uint64(_EPOCH << 32)).astype(np.int64)

    @cached_property
    def operations(self) -> pa.Array:
        """`operationType` of each event."""
        return self.text("operationType")

    def token(self, number: int) -> Token:
        """Return the resume token of one event."""
        values = self.fields["_id"][b.DOCUMENT]
        at, size = int(values.at[number]), int(values.size[number])
        return dumped_token(self.buffer.data[at : at + size])

    def of(self, collection: str) -> NDArray[np.bool_]:
        """Tell which events are of a collection, or make another one become it."""
        return self._is(collection, "ns", "coll") | self.became(collection)

    def became(self, collection: str) -> NDArray[np.bool_]:
        """Tell which events make another collection become this one."""
        return self._is(collection, "to", "coll")

    def _is(self, value: str, *path: str) -> NDArray[np.bool_]:
        import pyarrow as pa
        import pyarrow.compute as pc

        same = pc.fill_null(pc.equal(self.text(*path), value), pa.scalar(value=False))
        found: NDArray[np.bool_] = same.to_numpy(zero_copy_only=False)
        return found

    def text(self, *path: str) -> pa.Array:
        """Return a field as text, null where it is missing."""
        import pyarrow as pa

        return self.column(pa.string(), *path)

    def column(self, kind: pa.DataType, *path: str) -> pa.Array:
        """Return a field as an array of a type, null where it is missing, or no such thing."""
        import numpy as np
        import pyarrow as pa

        from etl_resources.sources.mongodb_arrow import Converter

        fields, name = self.fields, path[0]
        found = fields.get(name, {})
        for inner in path[1:]:
            found = _inner(found, inner)
        (array,) = Converter().struct({"v": found}, [pa.field("v", kind)], np.arange(len(self)))
        return array

    def documents(self, name: str) -> Values | None:
        """Return the documents in a field; None: no event has one."""
        return self.fields.get(name, {}).get(b.DOCUMENT)

    def transactions(self) -> pa.Array:
        """Return `_xid`: session and number of the transaction; null outside of one."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if "txnNumber" not in self.fields:
            return pa.nulls(len(self), pa.string())
        return pc.binary_join_element_wise(self.text("lsid", "id"), self.text("txnNumber"), ":")

    def committed(self) -> pa.Array:
        """Return `_commit_ts`: the server's clock, of servers before 6.0 the cluster's, in seconds."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        wall = self.column(pa.timestamp("us", "UTC"), "wallTime")
        clock = pa.array(((self.pos >> 32) + _EPOCH) * np.int64(1_000_000)).cast(wall.type)
        return pc.coalesce(wall, clock)


def _inner(field: Field, name: str) -> Field:
    outer = field.get(b.DOCUMENT)
    if outer is None:
        return {}
    found = outer.fields().get(name, {})
    return {kind: Values(v.buffer, outer.rows[v.rows], v.at, v.size) for kind, v in found.items()}
