"""Debezium's messages as columns of envelopes: JSON with and without its schema, and Avro, in runs of one schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etl_resources.changes.debezium_types import Kind, json_type, kind_of, kinds_of_avro
from etl_resources.files import json_types
from etl_resources.kafka_registry import FramingError, unframed

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.kafka_registry import Registry
    from etl_resources.messages import Decoder

_NONE: frozenset[str] = frozenset()
_SIDES, _SAMPLE = ("before", "after"), 500


@dataclass(frozen=True)
class Run:
    """Envelopes of one schema that came one after the other. `at`: their numbers among the messages; `table` has a row
    for each; `kinds`: of the columns of the row, as far as a schema tells."""

    at: list[int]
    table: pa.Table
    kinds: Mapping[str, Kind]
    bad: list[tuple[int, str]]


@dataclass
class JsonEnvelopes:
    """`landed`: what `dump` gave; types that JSON does not tell stay what they were."""

    landed: Mapping[str, Any]
    _plain: Decoder | None = field(default=None, init=False)
    _known: dict[bytes, tuple[Decoder, Mapping[str, Kind]]] = field(default_factory=dict, init=False)

    def runs(self, bodies: Sequence[bytes]) -> Iterator[Run]:
        """Yield the envelopes of the bodies, in their order."""
        start = 0
        heads = [self._head(body) for body in bodies]
        while start < len(bodies):
            end = start
            while end < len(bodies) and heads[end] == heads[start]:
                end += 1
            head = heads[start]
            cut = [body[len(head) : -1].rstrip() if head else body for body in bodies[start:end]]
            decoder, kinds = self._known[head] if head else (self._schemaless(cut), {})
            found = decoder.decode(cut)
            wrong = {n for n, _ in found.bad}
            at = [n for n in range(start, end) if n - start not in wrong]
            yield Run(at, found.data, kinds, [(start + n, why) for n, why in found.bad])
            start = end

    def dump(self) -> dict[str, Any]:
        """Return what a position keeps."""
        return self._plain.dump() if self._plain is not None else dict(self.landed)

    def _schemaless(self, bodies: Sequence[bytes]) -> Decoder:
        """Return the decoder of envelopes without a schema; both images of a row have the same types."""
        from etl_resources.messages_json import JsonDecoder

        if self._plain is None:
            self._plain = JsonDecoder({}, self.landed, _NONE)
        known = self._plain.dump()["schema"]
        if not any(isinstance(known.get(side), dict) for side in _SIDES) and (row := _sampled(bodies)):
            self._plain = JsonDecoder({}, {"schema": {**known, **dict.fromkeys(_SIDES, row)}}, _NONE)
        return self._plain

    def _head(self, body: bytes) -> bytes:
        """Return what stands before the payload, schema and all; it is the same for all messages of one schema."""
        for head in self._known:
            if body.startswith(head):
                return head
        if not body.lstrip().startswith(b'{"schema"'):
            return b""
        try:
            schema = json.loads(body)["schema"]
            text = body.decode()
            end = json.JSONDecoder().raw_decode(text, text.index(":") + 1 + _space(text, text.index(":") + 1))[1]
        except (ValueError, KeyError, TypeError):
            return b""
        rest = text[end:]
        head = text[: end + rest.index(":") + 1].encode()
        if schema is None:
            return b""
        self._known[head] = self._decoder(schema)
        return head

    def _decoder(self, schema: Mapping[str, Any]) -> tuple[Decoder, Mapping[str, Kind]]:
        from etl_resources.messages_json import JsonDecoder

        fields = {f["field"]: f for f in schema["fields"]}
        row = fields.get("after") or fields.get("before") or {}
        kinds = {f["field"]: kind_of(f) for f in row.get("fields", ())}
        types: dict[str, Any] = {"op": "string", "ts_ms": "int64"}
        if kinds:
            types |= {side: {n: json_type(k) for n, k in kinds.items()} for side in _SIDES}
        else:
            types |= {"before": "string", "after": "string"}  # MongoDB's documents are JSON in a text
        source = fields.get("source", {}).get("fields", ())
        types["source"] = {f["field"]: json_type(kind_of(f)) for f in source}
        return JsonDecoder({}, {"schema": types}, _NONE), kinds


@dataclass
class AvroEnvelopes:
    """Envelopes whose schema is in a registry."""

    registry: Registry

    def runs(self, bodies: Sequence[bytes]) -> Iterator[Run]:
        """Yield the envelopes of the bodies, in their order."""
        from etl_resources.kafka_avro import AvroDecoder

        start = 0
        numbers = [_number(body) for body in bodies]
        while start < len(bodies):
            end = start
            while end < len(bodies) and numbers[end] == numbers[start]:
                end += 1
            found = AvroDecoder(self.registry, {}, _NONE).decode(bodies[start:end])
            wrong = {n for n, _ in found.bad}
            at = [n for n in range(start, end) if n - start not in wrong]
            kinds = self._kinds(numbers[start]) if at else {}
            yield Run(at, found.data, kinds, [(start + n, why) for n, why in found.bad])
            start = end

    def dump(self) -> dict[str, Any]:
        """Return nothing: the registry keeps the types."""
        return {}

    def _kinds(self, number: int) -> dict[str, Kind]:
        schema = json.loads(self.registry.schema(number).text)
        value = next((f["type"] for f in schema.get("fields", ()) if f["name"] == "before"), None)
        records = [s for s in (value if isinstance(value, list) else [value]) if isinstance(s, dict)]
        return {f["name"]: kinds_of_avro(f["type"]) for r in records for f in r.get("fields", ())}


def _sampled(bodies: Sequence[bytes]) -> Any:
    """Return the type of the rows in the first envelopes, as `json_types.dump_schema` writes it; None: no rows."""
    import io

    from etl_resources.files.json_parse import JsonSettings
    from etl_resources.files.json_sample import sample_schema

    lines, text = [], False
    for body in bodies[:_SAMPLE]:
        try:
            envelope = json.loads(body)
            found = [envelope.get(side) for side in _SIDES]
        except (ValueError, AttributeError):
            continue
        lines += [json.dumps(row).encode() for row in found if isinstance(row, dict)]
        text = text or any(isinstance(row, str) for row in found)
    if not lines:
        return "string" if text else None
    found_schema, _ = sample_schema(io.BytesIO(b"\n".join(lines)), "messages", JsonSettings(lines=True), 8 << 20)
    return json_types.dump_schema(json_types.settle_schema(found_schema)) or None


def _number(body: bytes) -> int:
    try:
        return unframed(body)[0]
    except FramingError:
        return -1


def _space(text: str, at: int) -> int:
    return len(text[at:]) - len(text[at:].lstrip())


def key_values(key: bytes | None) -> dict[str, Any] | None:
    """Return the fields of a message's key in JSON; None: there is none, or it is no JSON."""
    try:
        found = json_types.loads(key) if key else None
    except (ValueError, UnicodeDecodeError):
        return None
    if isinstance(found, dict) and set(found) == {"schema", "payload"}:
        found = found["payload"]
    return found if isinstance(found, dict) else None
