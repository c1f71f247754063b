"""New objects by the notifications that S3 puts into a queue, beside a listing now and then for those that were missed.

A round is what some messages name, and is committed as a whole: its messages are deleted when its last file is in the
lake, and come again if a run ends before that. What is in the lake is then recognised: a message by its id, and an
object by its entity tag, as one that was listed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.files.chunks import Unreadable
from etl_resources.files.listing import Round, find, unread
from etl_resources.files.s3_events import written
from etl_resources.files.storage import FileInfo, Storage, matches
from etl_resources.resilience import Policy
from etl_resources.source import Batch, Position, Stream

if TYPE_CHECKING:
    from collections.abc import Generator

    from etl_resources.files.known import KnownFiles
    from etl_resources.sources.file import FileOptions
    from etl_resources.sources.sqs import SqsSource

_LOOKERS = 16
_KEY = "notified"
"""Where the position keeps when there was a listing, and which messages are in the lake."""
POLICY = Policy()


class NotificationOptions(BaseModel):
    """A queue that S3 writes its events of new objects into: for one stream, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queue_url: str = Field(
        pattern="^https?://[^/]+/.+", description="URL of the SQS queue; the connection's keys, or the machine's."
    )
    list_every_hours: float = Field(
        default=24.0, ge=0, description="List all objects after so many hours, for those that no message named."
    )
    max_messages: int = Field(default=1000, gt=0, le=100_000, description="Commit after so many messages.")
    idle_seconds: float = Field(default=1.0, gt=0, description="The run ends when no message came for so many seconds.")
    visibility_seconds: int = Field(
        default=120, ge=3, le=43_200, description="For how long a killed run holds its messages back from the next."
    )


class Notifications:
    """One read of a stream by its notifications."""

    def __init__(self, stream: Stream, storage: Storage, known: KnownFiles) -> None:
        self._stream, self._storage, self._known = stream, storage, known
        self._options = cast("FileOptions", stream.options)
        assert self._options.notifications is not None  # noqa: S101 - else there would be nothing to do here
        self._settings = self._options.notifications
        self._queue = queue_of(self._settings.queue_url, storage)
        self._messages = _messages(stream.name, self._settings)
        self._end: Mapping[str, Any] = {}
        self._open = False
        """Whether a round was handed on and has not been committed."""

    def rounds(self, since: Position | None) -> Iterator[Round]:
        """Yield a listing if it is time for one, and then what the messages of the queue name.

        The first read, and one from the beginning, is a listing alone: messages wait for the next.
        """
        state: Mapping[str, Any] = (since or {}).get(_KEY, {})
        if listing_is_due(since, self._settings):
            later = {**state, "listed_at": round(time.time())}
            files = unread(find(self._stream, self._options, self._storage), self._known, self._storage)
            if files or since is not None:
                yield self._round(files, [], state, later)
            state = later
        if since is None:
            return
        known = {"known": state.get("known", ())}
        read = self._queue.read(self._messages, known, batch_rows=self._settings.max_messages)
        with closing(cast("Generator[Batch]", read)) as batches:
            for batch in batches:
                files, unreadable = self._found(batch.data.column("payload").to_pylist())
                later = {**state, "known": (batch.position or {})["known"]}
                if files or unreadable:
                    yield self._round(files, unreadable, state, later)
                    state = later
                elif not self._open:
                    self._queue.acknowledge(self._messages, {})

    def acknowledge(self, position: Position) -> None:
        """Delete the messages of the round that has been committed to its end; in its middle none."""
        if self._open and position.get(_KEY) == self._end:
            self._open = False
            self._queue.acknowledge(self._messages, position)

    def _round(
        self, files: list[FileInfo], unreadable: list[Unreadable], before: Mapping[str, Any], end: Mapping[str, Any]
    ) -> Round:
        self._open, self._end = True, end
        origin = self._settings.queue_url.rpartition("/")[2]
        return Round(files, unreadable, origin, {_KEY: before} if before else {}, {_KEY: end}, commit=True)

    def _found(self, bodies: list[str]) -> tuple[list[FileInfo], list[Unreadable]]:
        """Return the files to read, and the messages that cannot be understood."""
        place, unreadable = urlsplit(self._options.path), []
        uris: set[str] = set()
        for body in bodies:
            try:
                objects = written(body)
            except ValueError as error:
                unreadable.append(Unreadable(str(error), body.encode(), 1))
                continue
            if others := [f"{bucket}/{key}" for bucket, key in objects if bucket != place.netloc]:
                unreadable.append(Unreadable(f"of another bucket: {', '.join(others)}", body.encode(), 1))
            uris.update(f"{place.scheme}://{bucket}/{key}" for bucket, key in objects if bucket == place.netloc)
        named = [uri for uri in sorted(uris) if matches(self._options.path, uri)]
        with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="stat") as pool:
            there = [info for info in pool.map(self._look, named) if info is not None]
        return unread(there, self._known, self._storage, self._options.modified_since), unreadable

    def _look(self, uri: str) -> FileInfo | None:
        try:
            return self._storage.stat(uri)
        except NotFoundError:
            return None  # deleted since


def listing_is_due(since: Position | None, settings: NotificationOptions) -> bool:
    """Tell whether a read from `since` lists all objects."""
    listed_at: float = (since or {}).get(_KEY, {}).get("listed_at", 0)
    return time.time() - listed_at >= settings.list_every_hours * 3600


def news(stream: Stream, settings: NotificationOptions, storage: Storage) -> Position:
    """Return about how many messages wait, and which listing is the newest that is due."""
    waiting = queue_of(settings.queue_url, storage).latest(_messages(stream.name, settings)) or {}
    hours = settings.list_every_hours
    return {**waiting, "listing": int(time.time() // (hours * 3600)) if hours else time.time()}


def queue_of(url: str, storage: Storage) -> SqsSource:
    """Return the source that reads a queue, with the keys and the region of the connection.

    Raises:
        ConfigurationError: nothing says which region it is, or a key is not a secret.
    """
    from etl_resources.sources.sqs import SqsSource

    options = {name.lower().removeprefix("aws_"): value for name, value in storage.options.items()}
    secrets = {name.lower().removeprefix("aws_"): secret for name, secret in storage.secrets.items()}
    if "access_key_id" in options or "secret_access_key" in options:
        raise ConfigurationError(
            "a key is written among the `options` of the connection", where=url, fix="write it under `secrets`"
        )
    parts = urlsplit(url)
    told = re.search(r"(?:^|\.)sqs[.-]([a-z0-9-]+)\.", parts.netloc)
    region = told.group(1) if told else options.get("region") or options.get("default_region")
    if region is None:
        raise ConfigurationError(
            "nothing says which region the queue is in", where=url, fix="give `region` in the connection's `options`"
        )
    return SqsSource(
        region=region, endpoint=f"{parts.scheme}://{parts.netloc}", resilience=POLICY,
        access_key_id=secrets.get("access_key_id"), secret_access_key=secrets.get("secret_access_key"),
        session_token=secrets.get("session_token") or secrets.get("token"),
    )  # fmt: skip


def _messages(name: str, settings: NotificationOptions) -> Stream:
    from etl_resources.sources.sqs import SqsStreamOptions

    options = SqsStreamOptions(
        type="sqs", queue=settings.queue_url, format="text", metadata=(), max_messages=settings.max_messages,
        idle_seconds=settings.idle_seconds, visibility_seconds=settings.visibility_seconds,
    )  # fmt: skip
    return Stream(name, options)
