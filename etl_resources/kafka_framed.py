"""Messages with a schema in a registry: one table per schema, brought into one growing schema, in their order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import NotFoundError, SchemaConflictError
from etl_resources.files.align import align, common_schema
from etl_resources.kafka_registry import FramingError, Registry, unframed
from etl_resources.messages import RESERVED, Decoded, Decoder

if TYPE_CHECKING:
    import pyarrow as pa

Bad = list[tuple[int, str]]


class FramedDecoder(Decoder):
    """The part that is the same for Avro and Protobuf.

    A later schema may add columns and widen types (int32 to int64, float32 to float64); a column whose type becomes
    another one altogether ends the run with a SchemaConflictError.
    """

    def __init__(self, registry: Registry, landed: Mapping[str, Any], taken: frozenset[str]) -> None:
        self._registry, self._taken = registry, RESERVED | taken
        self._schema = _load(landed.get("arrow"))

    @property
    def schema(self) -> pa.Schema:
        """Return the columns that are known by now."""
        return self._schema

    def dump(self) -> dict[str, Any]:
        """Return what a position keeps: the Arrow schema."""
        import base64

        return {"arrow": base64.b64encode(self._schema.serialize().to_pybytes()).decode()}

    def decode(self, bodies: Sequence[bytes | None]) -> Decoded:
        """Return the columns of the bodies.

        Raises:
            SchemaConflictError: a column got a type that has nothing in common with the one it had.
            UnavailableError, CredentialsRejectedError: as the registry.
        """
        groups, bad = self._grouped(bodies)
        tables: list[pa.Table] = []
        order: list[int] = []
        for (number, group), members in groups.items():
            table, wrong = self._table(number, group, [body for _, body in members])
            wrong_here = {n for n, _ in wrong}
            bad += [(members[n][0], reason) for n, reason in wrong]
            order += [at for n, (at, _) in enumerate(members) if n not in wrong_here]
            tables.append(self._allowed(table))
            self._schema = common_schema(self._schema, tables[-1].schema, f"schema {number} of the registry")
        return self._in_order(tables, order, bodies, sorted(bad))

    def _grouped(self, bodies: Sequence[bytes | None]) -> tuple[dict[tuple[int, bytes], list[tuple[int, bytes]]], Bad]:
        groups: dict[tuple[int, bytes], list[tuple[int, bytes]]] = {}
        bad: Bad = []
        missing: dict[int, str] = {}
        for at, body in enumerate(bodies):
            if body is None:
                continue
            try:
                number, rest = unframed(body)
                if number in missing:
                    raise FramingError(missing[number])  # noqa: TRY301
                group, content = self._group(number, rest)
            except NotFoundError as error:
                missing[number] = error.what
                bad.append((at, error.what))
                continue
            except FramingError as error:
                bad.append((at, str(error)))
                continue
            groups.setdefault((number, group), []).append((at, content))
        return groups, bad

    def _group(self, number: int, rest: bytes) -> tuple[bytes, bytes]:
        """Return what beside its schema decides how a body is read, and the body; raises if the schema is not there."""
        self._registry.schema(number, serialized=self.serialized)
        return b"", rest

    serialized = False

    @abstractmethod
    def _table(self, number: int, group: bytes, bodies: list[bytes]) -> tuple[pa.Table, Bad]:
        """Return the records of bodies that have one schema, and those that do not keep to it."""

    def _allowed(self, table: pa.Table) -> pa.Table:
        if found := [name for name in table.column_names if name.casefold() in self._taken]:
            raise SchemaConflictError(
                f"the schema has a field {', '.join(found)}, a name that is kept for columns of the platform",
                fix="leave the column out of `metadata`, or have the field renamed",
            )
        return table

    def _in_order(self, tables: list[pa.Table], order: list[int], bodies: Sequence[bytes | None], bad: Bad) -> Decoded:
        import numpy as np
        import pyarrow as pa

        wrong = {n for n, _ in bad}
        table = pa.concat_tables([align(t, self._schema) for t in tables]) if tables else self._schema.empty_table()
        if not table.num_columns:
            return Decoded(table, len(bodies) - len(bad), bad)
        place = np.full(len(bodies), -1, np.int64)
        place[np.array(order, np.int64)] = np.arange(len(order))
        keep = np.array([n not in wrong for n in range(len(bodies))], np.bool_)
        place = place[keep]
        if not np.array_equal(place, np.arange(len(order))):
            table = table.take(pa.array(place, mask=place < 0))
        return Decoded(table, len(place), bad)


def columns_of(rows: list[tuple[int, dict[str, Any]]], kind: pa.DataType) -> tuple[pa.Array, Bad]:
    """Return numbered values as an array, and those that its type cannot hold."""
    import pyarrow as pa

    try:
        return pa.array([value for _, value in rows], kind), []
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        pass
    good, bad = [], []
    for n, value in rows:
        try:
            pa.array([value], kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            bad.append((n, str(error)))
        else:
            good.append(value)
    return pa.array(good, kind), bad


def _load(dumped: str | None) -> pa.Schema:
    import base64

    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(dumped))) if dumped else pa.schema([])
