"""Taking BSON apart in columns gives what decoding it document by document gives, and broken bytes are noticed."""

from __future__ import annotations

import random
from typing import Any

import bson
import pyarrow as pa
import pytest

from etl_resources.sources.mongodb_batches import Converter

KINDS: dict[str, Any] = {
    "int": lambda r: r.randrange(-(2**62), 2**62), "text": lambda r: r.choice(["", "a", "żółć", "x" * 300]),
    "double": lambda r: r.random(), "bool": lambda r: r.random() < 0.5,
    "doc": lambda r: {"n": r.randrange(9), **({"m": "y"} if r.random() < 0.5 else {})},
    "list": lambda r: [r.randrange(9) for _ in range(r.randrange(4))],
    "docs": lambda r: [{"k": r.randrange(9)} for _ in range(r.choice([0, 1, 2, 90]))],
    "raw": lambda r: bytes(r.randrange(256) for _ in range(r.randrange(5))),
}  # fmt: skip


def documents(count: int, keys: int, seed: int) -> list[dict[str, Any]]:
    """Return documents with some of many keys each, in an order of their own; some keys are null."""
    chance = random.Random(seed)
    names = [f"{kind}{n}" for kind in KINDS for n in range(max(1, keys // len(KINDS)))]
    made = []
    for number in range(count):
        chosen = chance.sample(names, chance.randrange(len(names) + 1))
        values = {k: None if chance.random() < 0.1 else KINDS[k.rstrip("0123456789")](chance) for k in chosen}
        made.append({"_id": number, **values})
    return made


def converted(data: bytes, schema: pa.Schema | None = None) -> tuple[list[Any], list[Any], int, pa.Schema]:
    """Return records, unreadable ones, how many were counted, and the schema."""
    converter = Converter(schema or pa.schema([]), None, "test", with_id=True)
    pieces = list(converter.convert(data, 10_000))
    unreadable = [row for p in pieces if p.unreadable for row in p.unreadable.to_pylist()]
    rows = [row for p in pieces for row in p.data.to_pylist()]
    return rows, unreadable, sum(p.records for p in pieces), converter.schema


def filled(value: Any) -> Any:
    """Return a value without what is null in it: keys that another document has, and this one has not."""
    if isinstance(value, dict):
        return {k: filled(v) for k, v in value.items() if v is not None}
    return [filled(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("count", "keys"), [(1, 8), (30, 8), (600, 8), (400, 80)])
def test_columns_hold_what_the_documents_hold(count: int, keys: int) -> None:
    """Few documents are walked one by one, many side by side, and those with many keys both ways."""
    made = documents(count, keys, seed=count + keys)
    rows, unreadable, records, _ = converted(b"".join(bson.encode(d) for d in made))
    assert (records, unreadable) == (count, [])
    assert filled(rows) == filled(made)


def test_broken_bytes_are_set_apart_and_never_read_as_something_else() -> None:
    """One byte is changed anywhere: each other document is read as it was, and each record is counted."""
    made = documents(60, 8, seed=5)
    raws = [bson.encode(d) for d in made]
    whole, _, _, schema = converted(b"".join(raws))
    chance = random.Random(7)
    set_apart = 0
    for _ in range(25):
        victim = chance.randrange(60)
        raw = bytearray(raws[victim])
        raw[chance.randrange(4, len(raw))] ^= 1 << chance.randrange(8)  # the length is the framing, and left alone
        rows, unreadable, records, _ = converted(b"".join([*raws[:victim], bytes(raw), *raws[victim + 1 :]]), schema)
        assert records == 60
        assert len(rows) + len(unreadable) == 60
        set_apart += len(unreadable)
        if len(rows) == 60:
            del rows[victim]
        assert filled(rows) == filled(whole[:victim] + whole[victim + 1 :])
    assert set_apart > 5
