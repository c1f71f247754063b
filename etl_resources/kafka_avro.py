"""Avro messages: read with the schema they were written with, as columns with the types of that schema."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import SchemaConflictError
from etl_resources.extras import client
from etl_resources.kafka_avro_types import arrow_type, converter
from etl_resources.kafka_framed import Bad, FramedDecoder, columns_of
from etl_resources.kafka_registry import Schema

if TYPE_CHECKING:
    import pyarrow as pa


class AvroDecoder(FramedDecoder):
    """Records as columns; a schema that is no record becomes one column `payload`."""

    def _table(self, number: int, group: bytes, bodies: list[bytes]) -> tuple[pa.Table, Bad]:  # noqa: ARG002
        import pyarrow as pa

        read = client("fastavro", extra="kafka").schemaless_reader
        schema, named = self._parsed(number)
        kind = arrow_type(schema, named)
        record = pa.types.is_struct(kind)
        convert = converter(schema, named)
        rows, bad = [], []
        for n, body in enumerate(bodies):
            stream = io.BytesIO(body)
            try:
                value = read(stream, schema, None)
                if stream.tell() != len(body):
                    raise ValueError(f"{len(body) - stream.tell()} bytes behind the record")  # noqa: TRY301
                rows.append((n, value if convert is None else convert(value)))
            # The reader raises whatever the broken bytes make its code run into.
            except Exception as error:  # noqa: BLE001
                bad.append((n, f"not Avro of schema {number}: {type(error).__name__}: {error}"))
        array, misfits = columns_of(rows, kind)
        bad += misfits
        if record:
            return pa.Table.from_arrays(array.flatten(), schema=pa.schema(list(kind))), bad
        return pa.table({"payload": array}), bad

    def _parsed(self, number: int) -> tuple[Any, dict[str, Any]]:
        parse = client("fastavro.schema", extra="kafka").parse_schema
        found = self._registry.schema(number)
        if found.kind != "AVRO":
            raise SchemaConflictError(
                f"schema {number} of the registry is {found.kind} and not Avro", fix="give the stream this `format`"
            )
        named: dict[str, Any] = {}
        schema: Any = None
        for one in _imports_first(found):
            schema = parse(json.loads(one.text), named_schemas=named)
        return schema, named


def _imports_first(schema: Schema) -> Iterator[Schema]:
    for _, reference in schema.references:
        yield from _imports_first(reference)
    yield schema
