"""Let the near end work while the far end works: calls that run in a thread, in order, a few behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class WriteBehind:
    """Runs calls one after the other in a thread of its own, which begins with the first."""

    def __init__(self, most: int) -> None:
        self._thread = ThreadPoolExecutor(1, "etl-write-behind")
        self._most = most
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._size = 0
        self._failed = False

    def do(self, call: Callable[[], None], size: int = 1) -> None:
        """Run `call` after all that were given before; waits while those that have not ended are more than `most` in
        size, but for one.

        What one of them raised is raised here, or by `wait`; the calls behind it are not run.
        """
        self._waiting.append((self._thread.submit(self._run, call), size))
        self._size += size
        while self._size > self._most and len(self._waiting) > 1:
            self._next()

    def wait(self) -> None:
        """Wait until all calls have ended."""
        while self._waiting:
            self._next()

    def close(self) -> None:
        """Drop calls that have not begun, wait for the one that runs, and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()
        self._size = 0

    def _run(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except BaseException:
            self._failed = True
            raise

    def _next(self) -> None:
        future, size = self._waiting.popleft()
        self._size -= size
        future.result()
