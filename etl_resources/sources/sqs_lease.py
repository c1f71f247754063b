"""Messages that were received and are not deleted: kept invisible to others for as long as they are worked on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etl_resources.exceptions import EtlError, UnavailableError
from etl_resources.resilience import Policy
from etl_resources.sqs import translated

_log = logging.getLogger(__name__)
_AT_ONCE = 10
_THREADS = 8


class Lease:
    """A thread extends the visibility timeout of every message it holds, a third of it before it ends."""

    def __init__(self, sqs: Any, url: str, seconds: int, policy: Policy, where: str) -> None:
        self._sqs, self._url, self._seconds, self._policy, self._where = sqs, url, seconds, policy, where
        self._receipts: dict[str, str] = {}
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="sqs")
        self._thread = threading.Thread(target=self._extend, name="sqs-visibility", daemon=True)
        self._thread.start()

    def hold(self, receipts: Mapping[str, str]) -> None:
        """Take messages (id: receipt handle); of one that came again the newer receipt counts."""
        until = time.monotonic() + self._seconds
        with self._lock:
            self._receipts.update(receipts)
            self._until.update(dict.fromkeys(receipts, until))

    def delete(self, message_ids: Iterable[str]) -> list[str]:
        """Delete messages from the queue, and return those that are gone.

        Raises:
            UnavailableError, CredentialsRejectedError: the queue did not answer, or refused.
        """
        receipts = self._forget(message_ids)
        return self._each("delete_message_batch", receipts, lambda handle: {"ReceiptHandle": handle})

    def release(self) -> None:
        """Let others have what is still held, at once; that this fails only makes them wait."""
        with self._lock:
            held = list(self._receipts)
        try:
            self._change(self._forget(held), 0)
        except EtlError as error:
            _log.warning("%s: messages stay invisible for up to %s s: %s", self._where, self._seconds, error.what)

    def close(self) -> None:
        """Stop the threads."""
        self._stopped.set()
        self._thread.join()
        self._pool.shutdown()

    def _forget(self, message_ids: Iterable[str]) -> dict[str, str]:
        with self._lock:
            found = {m: self._receipts.pop(m) for m in list(message_ids) if m in self._receipts}
            for message_id in found:
                self._until.pop(message_id, None)
        return found

    def _extend(self) -> None:
        while not self._stopped.wait(min(5.0, self._seconds / 6)):
            soon = time.monotonic() + self._seconds * 2 / 3
            with self._lock:
                due = {m: self._receipts[m] for m, until in self._until.items() if until < soon}
            try:
                began = time.monotonic()
                extended = self._change(due, self._seconds)
                with self._lock:
                    self._until.update({m: began + self._seconds for m in extended if m in self._receipts})
            except EtlError as error:
                # Tried again at the next turn. If it lasts, the messages come again and are recognised.
                _log.warning("%s: the visibility timeout was not extended: %s", self._where, error.what)

    def _change(self, receipts: Mapping[str, str], seconds: int) -> list[str]:
        return self._each(
            "change_message_visibility_batch",
            receipts,
            lambda handle: {"ReceiptHandle": handle, "VisibilityTimeout": seconds},
        )

    def _each(self, action: str, receipts: Mapping[str, str], entry: Callable[[str], dict[str, Any]]) -> list[str]:
        items = list(receipts.items())
        parts = [items[n : n + _AT_ONCE] for n in range(0, len(items), _AT_ONCE)]

        def act(part: list[tuple[str, str]]) -> list[str]:
            entries = [{"Id": str(n), **entry(handle)} for n, (_, handle) in enumerate(part)]
            with translated(self._where):
                answer = getattr(self._sqs, action)(QueueUrl=self._url, Entries=entries)
            for failed in answer.get("Failed", ()):
                if not failed.get("SenderFault"):
                    raise UnavailableError(f"{failed.get('Code')}: {failed.get('Message')}", where=self._where)
                # A receipt that has expired: the message is visible again, and will be recognised.
                _log.warning("%s: %s: %s", self._where, action, failed.get("Code"))
            return [part[int(done["Id"])][0] for done in answer.get("Successful", ())]

        done = self._pool.map(lambda part: self._policy.call(act, part), parts)
        return [message_id for part in done for message_id in part]
