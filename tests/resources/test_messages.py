"""Micro-batches and the decoding of messages, without any queue."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.exceptions import ConfigurationError
from etl_resources.messages import (
    BATCH_BYTES,
    Decoded,
    MicroBatcher,
    MicroBatchOptions,
    PayloadOptions,
    payload_decoder,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def batcher(clock: Clock | None = None, *, batch_rows: int = 10, **options: Any) -> MicroBatcher[int]:
    return MicroBatcher(MicroBatchOptions(type="t", **options), batch_rows=batch_rows, clock=clock or Clock())


def decode(bodies: list[bytes | None], landed: dict[str, Any] | None = None, **options: Any) -> Decoded:
    return payload_decoder(PayloadOptions(type="t", **options), landed).decode(bodies)


def test_a_micro_batch_is_handed_on_in_batches_and_committed_by_count() -> None:
    b = batcher(batch_rows=2, max_messages=5)
    seen = []
    for n in range(7):
        b.add(n, 1)
        assert b.room >= 1
        if b.due():
            seen.append(b.take())
    seen.append(b.take(end=True))
    assert seen == [([0, 1], False), ([2, 3], False), ([4], True), ([5, 6], False), ([], True)]
    assert not b.pending()


def test_bytes_close_a_batch_and_a_micro_batch() -> None:
    b = batcher(max_bytes=BATCH_BYTES * 2)
    b.add(1, BATCH_BYTES)
    assert b.due()
    assert b.take() == ([1], False)
    b.add(2, BATCH_BYTES)
    assert b.take() == ([2], True)


def test_seconds_count_from_the_first_message_and_not_from_the_commit_before() -> None:
    clock = Clock()
    b = batcher(clock, max_seconds=5)
    clock.now = 100
    b.add(1, 1)
    assert not b.due()
    assert b.wait(60) == 5
    clock.now = 105
    assert b.due()
    assert b.take() == ([1], True)


def test_time_that_the_lake_takes_is_not_silence() -> None:
    clock = Clock()
    b = batcher(clock, idle_seconds=10)
    b.add(1, 1)
    b.take(end=True)
    clock.now = 1000
    assert not b.over()
    clock.now = 1010
    assert b.over()


def test_a_run_ends_by_the_clock_even_while_messages_come() -> None:
    clock = Clock()
    b = batcher(clock, run_seconds=3)
    clock.now = 3
    b.add(1, 1)
    assert b.over()
    assert b.wait() == 0


def test_objects_become_columns_and_keep_their_types_in_the_position() -> None:
    options = PayloadOptions(type="t")
    first = payload_decoder(options, None)
    assert first.decode([b'{"a": 1, "b": {"c": [1.5]}}', b' {"a": 2}\n']).data.to_pylist() == [
        {"a": 1, "b": {"c": [1.5]}}, {"a": 2, "b": None},
    ]  # fmt: skip
    kept = json.loads(json.dumps(first.dump()))
    later = payload_decoder(options, kept).decode([b'{"a": "x"}', b'{"a": 3, "d": true}'])
    assert later.data.to_pylist() == [{"a": 3, "b": None, "d": True}]
    assert later.bad[0][0] == 0
    assert "does not fit int64" in later.bad[0][1]


def test_a_key_that_comes_later_gets_its_column() -> None:
    decoder = payload_decoder(PayloadOptions(type="t"), None)
    decoder.decode([b'{"a": 1}'])
    assert decoder.decode([b'{"a": 1, "late": "x"}']).data.to_pylist() == [{"a": 1, "late": "x"}]
    assert decoder.schema.names == ["a", "late"]


@pytest.mark.parametrize("bodies", [
    [b'{"a":1},{"x":[{"y":1}', b'{"z":1}]}'],
    [b'{"a":"x', b'y"},{"b":1}'],
    [b'{"a":1}{"a":2}', b""],
    [b'{"a":1},{"a":2}', b"5"],
    [b"null", b"[]"],
    [b"\xff", b'{"a":1} x'],
])  # fmt: skip
def test_broken_bodies_never_make_a_record_together(bodies: list[bytes]) -> None:
    got = decode([b'{"a":0}', *bodies, b'{"a":9}'])
    assert [row["a"] for row in got.data.to_pylist()] == [0, 9]
    assert [n for n, _ in got.bad] == [1, 2]


def test_one_broken_body_among_many_costs_only_itself() -> None:
    bodies: list[bytes | None] = [b'{"a": %d}' % n for n in range(5000)]
    bodies[4321] = b"{"
    got = decode(bodies)
    assert got.data.column("a").to_pylist() == [n for n in range(5000) if n != 4321]
    assert [n for n, _ in got.bad] == [4321]


def test_messages_without_a_body_are_rows_of_nulls_in_their_place() -> None:
    got = decode([None, b'{"a":1}', b"{", None, b'{"a":2}'])
    assert got.data.column("a").to_pylist() == [None, 1, None, 2]
    assert got.rows == 4


def test_a_payload_cannot_take_the_columns_of_the_platform() -> None:
    got = decode([b'{"a":1}', b'{"a":2,"_BATCH":7}', b'{"_op":"delete"}'])
    assert got.data.to_pylist() == [{"a": 1}]
    assert [n for n, _ in got.bad] == [1, 2]


def test_objects_without_keys_are_rows() -> None:
    got = decode([b"{}", b"{}"])
    batch, unreadable = got.beside({"n": pa.array([1, 2])}, [b"{}", b"{}"], pa.array(["o", "o"]))
    assert batch.to_pylist() == [{"n": 1}, {"n": 2}]
    assert unreadable is None


def test_other_columns_stay_beside_their_message_and_raw_bytes_are_kept() -> None:
    bodies = [b'{"a":1}', b"\xffbroken", b'{"a":3}']
    batch, unreadable = decode(list(bodies)).beside(
        {"n": pa.array([10, 20, 30])}, bodies, pa.array(["x", "y", "z"]), pa.array([7, 8, 9])
    )
    assert batch.to_pylist() == [{"a": 1, "n": 10}, {"a": 3, "n": 30}]
    assert unreadable is not None
    [row] = unreadable.to_pylist()
    assert (row["raw"], row["origin"], row["line"]) == (b"\xffbroken", "y", 8)


def test_text_that_is_none_is_unreadable_and_bytes_are_kept() -> None:
    assert decode([b"x", b"\xff", None], format="text").data.to_pylist() == [{"payload": "x"}, {"payload": None}]
    assert decode([b"\xff", None], format="bytes").data.to_pylist() == [{"payload": b"\xff"}, {"payload": None}]


def test_columns_are_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigurationError, match="leave `columns` out"):
        decode([b"x"], format="text", columns={"a": "int64"})
