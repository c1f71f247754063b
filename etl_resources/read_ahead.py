"""Let the far end work while the near end works: a generator that runs in a thread, a few items ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """Yield `items`, made in a thread of their own at most `depth` items ahead; 0: made when asked for.

    What the generator raises is raised here. When the consumer stops early, the generator is closed before this ends.
    """
    if depth == 0:
        yield from items
        return
    # The semaphore and not the size of the queue bounds the items, so that the thread can never hang in a put.
    ready: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def work() -> None:
        try:
            for item in items:
                ready.put((item,))
                room.acquire()
                if stopped.is_set():
                    return
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - handed over and raised in the consumer
            ready.put(error)
        finally:
            items.close()

    thread = threading.Thread(target=work, name="etl-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            made = ready.get()
            if made is None:
                return
            if isinstance(made, BaseException):
                raise made
            room.release()
            yield made[0]
    finally:
        stopped.set()
        room.release()
        thread.join()


def merged(parts: Sequence[Generator[T, None, None]]) -> Iterator[T]:
    """Yield what all parts make, each in a thread of its own, in turn; an error of one is an error of all."""
    ahead = [read_ahead(part, 1) for part in parts]
    try:
        while ahead:
            for part in list(ahead):
                try:
                    yield next(part)
                except StopIteration:
                    ahead.remove(part)
    finally:
        for part in ahead:
            part.close()
