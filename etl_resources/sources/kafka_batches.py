"""Messages of Kafka as batches: decoded, with their columns beside them, and the position behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from etl_resources.exceptions import NotFoundError
from etl_resources.messages import Decoded, Decoder
from etl_resources.source import Batch
from etl_resources.sources import kafka_columns

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import Message

    from etl_resources.sources.kafka import KafkaStreamOptions
    from etl_resources.sources.kafka_partitions import Offsets
    from etl_resources.sources.kafka_reader import Reader


class Batches:
    """Makes one batch of some messages, in the order they came; `make` is called with each message once."""

    def __init__(self, options: KafkaStreamOptions, decoder: Decoder, reader: Reader, offsets: Offsets) -> None:
        self._options, self._decoder, self._reader, self.offsets = options, decoder, reader, offsets
        self._repeated = 0

    def make(self, messages: Sequence[Message], commit: bool) -> Batch:  # noqa: FBT001 - as `take` gives it
        """Return the batch behind which the source stands now."""
        good, refused = self._with_good_keys(messages)
        bodies = [m.value() for m in good]
        decoded = self._with_deletes(self._decoder.decode(bodies), good)
        others = kafka_columns.columns(good, self._options.metadata, self._options.key_format)
        origins = others["_origin"]
        data, unreadable = decoded.beside(others, bodies, origins, kafka_columns.offsets(good))
        repeated, self._repeated = self._reader.repeated - self._repeated, self._reader.repeated
        return Batch(
            data,
            self._reader.read,
            {**self.offsets.dump(), "payload": self._decoder.dump()},
            _together(unreadable, refused),
            repeated,
            commit,
        )

    def _with_good_keys(self, messages: Sequence[Message]) -> tuple[Sequence[Message], pa.RecordBatch | None]:
        """Return the messages whose key can be text, if it has to be; and the others, as unreadable."""
        text = self._options.key_format == "text"
        wanted = "key" in self._options.metadata or self._options.key_column is not None
        bad = kafka_columns.bad_keys(messages) if text and wanted else set()
        if not bad:
            return messages, None
        refused = [m for n, m in enumerate(messages) if n in bad]
        reason = "its key is not UTF-8; `key_format: bytes` would keep it"
        whole = Decoded(self._decoder.schema.empty_table(), 0, [(n, reason) for n in range(len(refused))])
        origins, offsets = kafka_columns.origins(refused), kafka_columns.offsets(refused)
        _, unreadable = whole.beside({}, [m.value() for m in refused], origins, offsets)
        return [m for n, m in enumerate(messages) if n not in bad], unreadable

    def _with_deletes(self, decoded: Decoded, messages: Sequence[Message]) -> Decoded:
        """Fill the column `key_column` of tombstones with their key."""
        import pyarrow as pa
        import pyarrow.compute as pc

        name = self._options.key_column
        if name is None or all(m.value() is not None for m in messages):
            return decoded
        if name not in decoded.data.column_names:
            raise NotFoundError(
                f"the messages have no column {name}", where=f"topic {self._options.topic}", fix="check `key_column`"
            )
        wrong = {n for n, _ in decoded.bad}
        kept = [m for n, m in enumerate(messages) if n not in wrong]
        deleted = pa.array([m.value() is None for m in kept], pa.bool_())
        keys = pa.array([m.key() if m.value() is None else None for m in kept], pa.binary()).cast(pa.string())
        index = decoded.data.schema.get_field_index(name)
        column = decoded.data.column(index)
        filled = pc.if_else(deleted, keys.cast(column.type), column.combine_chunks())
        return Decoded(decoded.data.set_column(index, decoded.data.field(index), filled), decoded.rows, decoded.bad)


def _together(a: pa.RecordBatch | None, b: pa.RecordBatch | None) -> pa.RecordBatch | None:
    import pyarrow as pa

    return pa.concat_batches([a, b]) if a is not None and b is not None else a if b is None else b
