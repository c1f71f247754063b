"""Offsets that no broker of the tests can give: gaps of compaction and transactions, and messages that come again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from etl_resources.sources.kafka_partitions import Offsets
from etl_resources.sources.kafka_reader import Reader


class Told:
    """Stands in for the client: gives messages with these offsets, and then the end of the partition."""

    last: Any = None

    def __init__(self, *offsets: int | str) -> None:
        self._messages = [self._message(offset) for offset in offsets]
        self.consumer = SimpleNamespace(
            consume=lambda most, _: [self._messages.pop(0) for _ in range(min(most, len(self._messages)))],
            incremental_assign=lambda _: None, pause=lambda _: None,
        )  # fmt: skip

    @staticmethod
    def _message(offset: int | str) -> Any:
        error = None if isinstance(offset, int) else SimpleNamespace(name=lambda: offset)
        return SimpleNamespace(topic=lambda: "t", partition=lambda: 0, offset=lambda: offset, error=lambda: error)

    def check(self) -> None:
        """Find nothing wrong."""


def read(end: int, *offsets: int | str) -> tuple[list[int], Reader, Offsets]:
    at = Offsets({("t", 0): 5})
    reader = Reader(Told(*offsets), at, {("t", 0): end}, silence=1, where="", on_loss=lambda _: None)  # type: ignore[arg-type]
    reader.assign([("t", 0)])
    found = [message.offset() for message in reader.poll(100, 0)]
    return found, reader, at  # type: ignore[return-value]


def test_gaps_are_no_messages_and_are_counted_apart() -> None:
    found, reader, at = read(20, 5, 8, 9, 15, "_PARTITION_EOF")
    assert (found, reader.read, at.skipped, reader.done) == ([5, 8, 9, 15], 4, 7, True)
    assert at.dump() == {"topics": {"t": {"0": 16}}, "skipped": 7, "lost": 0}


def test_what_comes_again_is_counted_and_not_taken_twice() -> None:
    found, reader, at = read(20, 5, 6, 5, 3, 7)
    assert (found, reader.read, reader.repeated, at.next) == ([5, 6, 7], 5, 2, {("t", 0): 8})


def test_what_lies_behind_the_end_is_left_for_the_next_run() -> None:
    found, reader, at = read(7, 5, 6, 7, 8)
    assert (found, reader.read, reader.done, at.next) == ([5, 6], 2, True, {("t", 0): 7})
