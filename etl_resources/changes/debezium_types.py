"""Kafka Connect's types as Debezium uses them: as JSON writes them, and as the columns they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_CONNECT, _DEBEZIUM = "org.apache.kafka.connect.data.", "io.debezium."
_WHOLE = frozenset({"int8", "int16", "int32", "int64"})
_PER_SECOND = {"Timestamp": 1_000, "MicroTimestamp": 1_000_000, "NanoTimestamp": 1_000_000_000}
_OF_DAY = {"Time": 1_000, "MicroTime": 1_000_000, "NanoTime": 1_000_000_000}


@dataclass(frozen=True)
class Kind:
    """What a field is: its type on the wire (int64, string, bytes, array …), and the name of its meaning."""

    wire: str
    name: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    item: Kind | None = None

    @property
    def meaning(self) -> str:
        """The last part of the name, of both families, where they mean the same."""
        return self.name.rpartition(".")[2] if self.name.startswith((_CONNECT, _DEBEZIUM)) else ""


def kind_of(schema: Mapping[str, Any]) -> Kind:
    """Return the kind of a field of a Connect schema in JSON."""
    item = kind_of(schema["items"]) if schema.get("type") == "array" else None
    return Kind(schema["type"], schema.get("name") or "", schema.get("parameters") or {}, item)


def kinds_of_avro(schema: Any) -> Kind:
    """Return the kind of a field of an Avro schema, which names its meaning in `connect.name`."""
    if isinstance(schema, list):
        others = [s for s in schema if s != "null"]
        return kinds_of_avro(others[0]) if len(others) == 1 else Kind("string")
    if isinstance(schema, str):
        return Kind({"long": "int64", "int": "int32", "double": "float64", "float": "float32"}.get(schema, schema))
    inner = schema["type"]
    if isinstance(inner, dict | list):
        return kinds_of_avro(inner)
    item = kinds_of_avro(schema["items"]) if inner == "array" else None
    return Kind(kinds_of_avro(inner).wire, schema.get("connect.name") or "", {}, item)


def json_type(kind: Kind) -> Any:
    """Return the type to read a field with, as `json_types.dump_schema` writes types."""
    if kind.wire in _WHOLE:
        return "int64"
    if kind.wire in {"float32", "float64", "double"}:
        return "float64"
    if kind.wire == "boolean":
        return "bool"
    if kind.wire == "array" and kind.item is not None:
        return [json_type(kind.item)]
    return "string"  # text; bytes in base64; structs and maps as their JSON


def converted(array: pa.Array, kind: Kind) -> pa.Array:
    """Return the values of a field in the type that its meaning has; those of integers are int64, of floats float64.

    Raises:
        ValueError: a value is not what its kind says.
    """
    import pyarrow as pa
    from pyarrow import types

    if array.type == pa.null():
        array = array.cast(pa.string())
    if types.is_integer(array.type):
        return _from_integers(array.cast(pa.int64()), kind.meaning)
    if types.is_floating(array.type):
        return array.cast(pa.float64())
    if types.is_list(array.type) and kind.item is not None:
        values = converted(array.values, kind.item)
        offsets = array.offsets
        return pa.ListArray.from_arrays(offsets, values, mask=array.is_null() if array.null_count else None)
    if types.is_string(array.type):
        return _from_text(array, kind)
    return array


def _from_integers(array: pa.Array, meaning: str) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if meaning == "Date":
        return array.cast(pa.int32()).cast(pa.date32())
    if meaning in _PER_SECOND:
        return _micros(array, _PER_SECOND[meaning]).cast(pa.timestamp("us"))
    if meaning in _OF_DAY:
        # As text, as every source here gives times of day: without a fraction that is zero.
        moments = _micros(array, _OF_DAY[meaning]).cast(pa.time64("us"))
        return pc.replace_substring(moments.cast(pa.string()), ".000000", "")
    return array


def _micros(array: pa.Array, per_second: int) -> pa.Array:
    import pyarrow.compute as pc

    if per_second <= 1_000_000:
        return pc.multiply(array, 1_000_000 // per_second)
    down = per_second // 1_000_000
    below = pc.negate(pc.divide(pc.add(pc.negate(array), down - 1), down))  # a division cuts towards zero
    return pc.if_else(pc.less(array, 0), below, pc.divide(array, down))


def _from_text(array: pa.Array, kind: Kind) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind.meaning == "ZonedTimestamp":
        utc = pc.replace_substring_regex(array, r"Z$", "+00:00")
        return pc.cast(utc, pa.timestamp("us", "UTC"))
    if kind.wire != "bytes":
        return array
    octets = _unbase64(array)
    if kind.meaning != "Decimal":
        return octets
    scale = int(kind.parameters.get("scale", 0))
    return decimals(octets, scale, int(kind.parameters.get("connect.decimal.precision", 38)))


def _unbase64(array: pa.Array) -> pa.Array:
    """Return base64 as bytes; one by one, which binascii does as quickly as Arrow would hand them over."""
    import binascii

    import pyarrow as pa

    try:
        return pa.array([None if t is None else binascii.a2b_base64(t, strict_mode=True) for t in array.to_pylist()],
                        pa.binary())  # fmt: skip
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from None


def decimals(octets: pa.Array, scale: int, precision: int) -> pa.Array:
    """Return unscaled big-endian integers as decimals; of more than 16 bytes, as text.

    Raises:
        ValueError: a number has more digits than the type.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.binary_length(octets), 0).to_numpy(zero_copy_only=False)
    if precision > 38 or scale > 38 or scale < 0 or (len(lengths) and int(lengths.max()) > 16):
        return _as_text(octets, scale)
    data = np.frombuffer(b"".join(v or b"" for v in octets.to_pylist()), np.uint8)
    starts = np.cumsum(lengths) - lengths
    words = _widened(data, starts, lengths)
    buffers = [octets.is_valid().buffers()[1] if octets.null_count else None, pa.py_buffer(words.tobytes())]
    found = pa.Array.from_buffers(pa.decimal128(38, scale), len(octets), buffers)
    return found.cast(pa.decimal128(max(precision, scale, 1), scale))


def _widened(data: NDArray[np.uint8], starts: Any, lengths: Any) -> NDArray[np.uint8]:
    """Return numbers of several lengths as 16 bytes, least first, with their sign."""
    import numpy as np

    wide = np.zeros((len(starts), 16), np.uint8)
    for length in np.unique(lengths[lengths > 0]).tolist():
        rows = np.flatnonzero(lengths == length)
        taken = data[starts[rows][:, None] + np.arange(length)]
        wide[rows] = np.where(taken[:, :1] >= 128, 255, 0)
        wide[rows[:, None], np.arange(length)] = taken[:, ::-1]
    return wide


def _as_text(octets: pa.Array, scale: int) -> pa.Array:
    from decimal import Context, Decimal

    import pyarrow as pa

    exact = Context(prec=10_000)
    return pa.array(
        [None if v is None else format(Decimal(int.from_bytes(v, "big", signed=True)).scaleb(-scale, exact), "f")
         for v in octets.to_pylist()], pa.string(),
    )  # fmt: skip


def dumped_schema(schema: pa.Schema) -> str:
    """Return a schema as text, for a position."""
    import base64

    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def loaded_schema(dumped: str | None) -> pa.Schema:
    """Return what `dumped_schema` wrote."""
    import base64

    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(dumped))) if dumped else pa.schema([])
