"""Envelopes as rows of an event log."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import DELETE, INSERT, READ, TRUNCATE, UPDATE, event_fields
from etl_resources.changes.debezium_types import Kind, converted
from etl_resources.exceptions import SchemaConflictError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.changes.debezium_envelopes import Run

OPS = {"c": INSERT, "u": UPDATE, "d": DELETE, "r": READ, "t": TRUNCATE}
_PLACES: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("lsn", "txId"), "mysql": ("file", "pos", "row"), "mariadb": ("file", "pos", "row"),
    "sqlserver": ("commit_lsn", "change_lsn", "event_serial_no"), "oracle": ("scn", "commit_scn", "rs_id", "ssn"),
    "mongodb": ("ts_ms", "ord", "lsid", "txnNumber"),
}  # fmt: skip
"""Fields of `source` that name the place of a change in the log of its database, by connector."""
_BYTES = 8


@dataclass
class Memory:
    """Hashes of the newest events, to recognise those that come again."""

    most: int
    _seen: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    @classmethod
    def load(cls, dumped: str, most: int) -> Memory:
        """Return what `dump` wrote."""
        import base64

        raw = base64.b64decode(dumped)
        return cls(most, OrderedDict.fromkeys(raw[n : n + _BYTES] for n in range(0, len(raw), _BYTES)))

    def dump(self) -> str:
        """Return it for a position, oldest first."""
        import base64

        return base64.b64encode(b"".join(self._seen)).decode()

    def again(self, place: str) -> bool:
        """Tell whether an event was seen before, and remember it."""
        digest = hashlib.blake2b(place.encode(), digest_size=_BYTES).digest()
        known = digest in self._seen
        self._seen[digest] = None
        self._seen.move_to_end(digest)
        while len(self._seen) > self.most:
            self._seen.popitem(last=False)
        return known


@dataclass
class Rows:
    """`schema`: of the row, which grows; `key`: the columns of the key; `unavailable`: the placeholder."""

    schema: pa.Schema
    key: tuple[str, ...]
    unavailable: str
    where: str

    def of(self, run: Run, chosen: list[int], pos: Sequence[int]) -> pa.RecordBatch:
        """Return some of the envelopes of a run (by their row in it) as rows; `pos`: of each of them.

        Raises:
            ValueError: a value is not what its schema says.
            SchemaConflictError: a column has a name that is kept for the log.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        from etl_resources.changes.debezium_documents import bare

        table = run.table.take(pa.array(chosen, pa.int64()))
        op = pa.array([OPS[o] for o in table.column("op").to_pylist()], pa.string())
        after, before = (self._side(table, name, run.kinds) for name in ("after", "before"))
        self._grow(after, before)
        deleted = pc.equal(op, DELETE)
        rows, unchanged = [], [[] for _ in range(len(op))]  # type: ignore[var-annotated]
        for name in self.schema.names:
            kind = self.schema.field(name).type
            new = _cast(after.arrays.get(name), kind, len(op))
            if name in self.key:
                new = pc.if_else(deleted, _cast(before.arrays.get(name), kind, len(op)), new)
            rows.append(new)
            for n in after.missing.get(name, ()):
                unchanged[n].append(name)
        for n in bare(table):
            unchanged[n] = [name for name in self.schema.names if name not in self.key]
        image = pa.StructArray.from_arrays(
            [_cast(before.arrays.get(n), self.schema.field(n).type, len(op)) for n in self.schema.names],
            fields=list(self.schema), mask=pc.invert(before.there),
        )  # fmt: skip
        read = pc.equal(op, READ)
        events = [
            op, pa.array(pos, pa.int64()), pc.if_else(read, pa.scalar(-1, pa.int64()), pa.scalar(0, pa.int64())),
            _transaction(table), _committed(table), _field(table, "source", "origin"),
            pa.array([u or None for u in unchanged], pa.list_(pa.string())), image,
        ]  # fmt: skip
        named = self._named(rows) if self.key else pc.is_valid(op)
        if not pc.all(pc.or_(named, pc.equal(op, TRUNCATE))).as_py():
            raise ValueError("it does not give its key")
        return pa.RecordBatch.from_arrays([*rows, *events], schema=self._shape())

    def _named(self, rows: list[Any]) -> Any:
        """Tell which rows have a key."""
        import functools

        import pyarrow.compute as pc

        names = self.schema.names
        if missing := [k for k in self.key if k not in names]:
            raise ValueError(f"it has no column {', '.join(missing)}, which is of the key")
        return functools.reduce(pc.and_, (pc.is_valid(rows[names.index(k)]) for k in self.key))

    def _shape(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema([*self.schema, *event_fields(self.schema)])

    def empty(self) -> pa.RecordBatch:
        """Return no rows."""
        import pyarrow as pa

        return pa.RecordBatch.from_pylist([], self._shape())

    def _side(self, table: pa.Table, name: str, kinds: Mapping[str, Kind]) -> _Side:
        import pyarrow as pa
        from pyarrow import types

        count = table.num_rows
        array = table.column(name).combine_chunks() if name in table.column_names else None
        if array is None or not types.is_struct(array.type):
            return _Side({}, {}, pa.array([False] * count))
        arrays, missing = {}, {}
        for field_ in array.type:
            values = pa.compute.struct_field(array, field_.name)
            kind = kinds.get(field_.name, Kind(""))
            values, gone = _without(values, self.unavailable, kind)
            if gone is not None:
                missing[field_.name] = gone.nonzero()[0].tolist()
            arrays[field_.name] = converted(values, kind)
        return _Side(arrays, missing, array.is_valid())

    def _grow(self, *sides: _Side) -> None:
        import pyarrow as pa

        from etl_resources.files.align import common_schema

        taken = {f.name for f in event_fields(pa.schema([]))}
        for side in sides:
            found = pa.schema([(n, a.type) for n, a in side.arrays.items() if not pa.types.is_null(a.type)])
            if wrong := sorted(taken.intersection(found.names)):
                raise SchemaConflictError(
                    f"the table has a column {', '.join(wrong)}, a name that is kept for the log", where=self.where,
                    fix="leave it out in the connector (column.exclude.list)",
                )  # fmt: skip
            for column in found:
                try:
                    self.schema = common_schema(self.schema, pa.schema([column]), self.where)
                except SchemaConflictError:
                    # Another type altogether, from here on: the lake keeps the old column, and opens another.
                    at = self.schema.get_field_index(column.name)
                    self.schema = self.schema.set(at, column)


@dataclass(frozen=True)
class _Side:
    arrays: dict[str, Any]
    missing: dict[str, list[int]]
    there: Any


def _without(values: pa.Array, placeholder: str, kind: Kind) -> tuple[pa.Array, NDArray[np.bool_] | None]:
    """Return values with null for the placeholder of what is not known, and where it stood."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if types.is_list(values.type):
        inner = values.type.value_type
        if not (types.is_string(inner) or types.is_binary(inner)):
            return values, None
        one = pc.equal(pc.list_value_length(values), 1)
        firsts = pc.list_element(pc.if_else(one, values, pa.scalar([None], values.type)), 0)
        gone = pc.is_in(firsts, pa.array(_forms(placeholder, kind.item or kind, firsts.type), firsts.type))
    elif types.is_string(values.type) or types.is_binary(values.type):
        gone = pc.is_in(values, pa.array(_forms(placeholder, kind, values.type), values.type))
    else:
        return values, None
    if not pc.any(gone).as_py():
        return values, None
    return pc.if_else(gone, pa.scalar(None, values.type), values), gone.to_numpy(zero_copy_only=False)


def _forms(placeholder: str, kind: Kind, type_: pa.DataType) -> list[Any]:
    """Return how the placeholder is written: as text, and as bytes, in base64 or hexadecimal, in JSON."""
    import base64

    from pyarrow import types

    octets = placeholder.encode()
    if types.is_binary(type_):
        return [octets]
    in_bytes = [base64.b64encode(octets).decode(), octets.hex()] if kind.wire in {"bytes", ""} else []
    return [placeholder, *in_bytes]


def _cast(array: Any, kind: pa.DataType, count: int) -> pa.Array:
    import pyarrow as pa

    from etl_resources.files.align import align

    if array is None or pa.types.is_null(array.type):
        return pa.nulls(count, kind)
    if array.type == kind:
        return array
    return align(pa.table({"v": array}), pa.schema([("v", kind)])).column("v").combine_chunks()


def _field(table: pa.Table, *path: str) -> pa.Array:
    """Return a field as text, null where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = table.column(path[0]).combine_chunks() if path[0] in table.column_names else None
    for name in path[1:]:
        known = found is not None and pa.types.is_struct(found.type) and found.type.get_field_index(name) >= 0
        found = pc.struct_field(found, name) if known else None
    return pa.nulls(table.num_rows, pa.string()) if found is None else found.cast(pa.string())


def _transaction(table: pa.Table) -> pa.Array:
    import pyarrow.compute as pc

    names = ("txId", "gtid", "transaction_id", "txnNumber")
    return pc.coalesce(_field(table, "transaction", "id"), *(_field(table, "source", n) for n in names))


def _committed(table: pa.Table) -> pa.Array:
    """Return `_commit_ts`, from `source.ts_us` or, of Debezium before 2.7, `source.ts_ms`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    micros = _field(table, "source", "ts_us").cast(pa.int64())
    millis = _field(table, "source", "ts_ms").cast(pa.int64())
    return pc.coalesce(micros, pc.multiply(millis, 1000)).cast(pa.timestamp("us", "UTC"))


def places(table: pa.Table, keys: Sequence[bytes | None]) -> list[str | None]:
    """Return what names each envelope: key, operation and place in the log of its database; None: nothing does."""
    from etl_resources.files.json_types import json_text

    if "source" not in table.column_names:
        return [None] * table.num_rows
    found: list[str | None] = []
    for key, op, source in zip(keys, table.column("op").to_pylist(), table.column("source").to_pylist(), strict=True):
        names = _PLACES.get((source or {}).get("connector") or "", ())
        place = [source.get(name) for name in names] if source else []
        # A snapshot that is begun again reads a row again, as it is then.
        told = op != "r" and key is not None and place and place[0] is not None
        found.append(json_text([key.hex(), op, source.get("name"), *map(str, place)]) if key and told else None)
    return found


def told(body: bytes, key: bytes | None, pos: int, why: str) -> dict[str, Any]:
    """Return a message for the errors: the reason, and what came, as JSON."""
    from etl_resources.changes.debezium_envelopes import key_values

    try:
        envelope = json.loads(body)
        envelope = envelope.get("payload", envelope)
        op, values = OPS.get(envelope.get("op")), envelope.get("after")
    except (ValueError, AttributeError):
        op, values = None, {"bytes": body.hex()}
    raw = {"key": key_values(key), "pos": pos, "seq": 0, "op": op, "values": values}
    return {"reason": why, "raw": json.dumps(raw, default=str).encode()}
