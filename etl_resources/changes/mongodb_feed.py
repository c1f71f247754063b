"""A change stream of a database as raw replies, opened again behind the last token where the line breaks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.changes.mongodb_position import Token, dumped_token, loaded_token, moment_of, token_pos
from etl_resources.exceptions import EngineError
from etl_resources.mongodb_errors import translated
from etl_resources.sources.mongodb_bson import ARRAY, DOCUMENT, INT64, Buffer, fields_of

if TYPE_CHECKING:
    import pymongo
    from pymongo.client_session import ClientSession

    from etl_resources.changes.mongodb_settings import MongoLogCapture
    from etl_resources.resilience import Policy
    from etl_resources.sources.mongodb_bson import Field, Index

KINDS = ("insert", "update", "replace", "delete", "drop", "rename", "dropDatabase")
_BATCH = 20_000


@dataclass(frozen=True)
class Reply:
    """Events as they came: where each begins in `buffer`. `token`: behind all of them; `at`: its `_pos`."""

    buffer: Buffer
    starts: Index
    token: Token
    at: int
    cursor: int


@dataclass(frozen=True)
class Watched:
    """What is followed: collections of a database, and how."""

    client: pymongo.MongoClient[Any]
    session: ClientSession
    database: str
    collections: Sequence[str]
    capture: MongoLogCapture
    resilience: Policy
    where: str


class Feed:
    """Opened by the first `next`. `token`: behind what was given; `at`: its `_pos`."""

    def __init__(self, watched: Watched, *, token: Token | None, start: int) -> None:
        self._watched, self._start, self._cursor = watched, start, 0
        self.token, self.at = token, start

    def open(self) -> None:
        """Open the stream where it is to begin.

        Raises:
            LogLostError: the server no longer has what comes behind the token.
        """
        self._watched.resilience.call(self._guarded, self._open)

    def next(self, wait: float) -> Reply:
        """Return the next events, or none if there is none within `wait` seconds.

        Raises:
            UnavailableError: the server could not be reached, though it was tried again.
            LogLostError: as `open`.
        """
        reply: Reply = self._watched.resilience.call(self._guarded, self._more, max(1, round(wait * 1000)))
        self._cursor, self.token, self.at = reply.cursor, reply.token, reply.at
        return reply

    def close(self) -> None:
        """Let the server forget the cursor."""
        if self._cursor:
            with suppress(Exception):  # it is gone, or will time out
                self._command("killCursors", "$cmd.aggregate", cursors=[self._cursor])
            self._cursor = 0

    def _guarded(self, function: Any, *args: Any) -> Any:
        with translated(self._watched.where):
            try:
                return function(*args)
            except BaseException:
                self.close()
                raise

    def _more(self, wait: int) -> Reply:
        from bson import Int64

        if not self._cursor:
            self._open()
        return self._reply(
            self._command("getMore", Int64(self._cursor), collection="$cmd.aggregate", batchSize=_BATCH, maxTimeMS=wait)
        )

    def _open(self) -> None:
        watched = self._watched
        stage: dict[str, Any] = {"fullDocument": watched.capture.full_document}
        if watched.capture.before_images != "off":
            stage["fullDocumentBeforeChange"] = watched.capture.before_images
        if self.token is not None:
            # And not `resumeAfter`, which refuses the token of an invalidated stream.
            stage["startAfter"] = loaded_token(self.token)
        else:
            stage["startAtOperationTime"] = moment_of(self._start)
        names = list(watched.collections)
        ours: list[dict[str, Any]] = [{"ns.coll": {"$in": names}}, {"to.coll": {"$in": names}}]
        match = {
            "$or": [
                {"operationType": {"$in": list(KINDS)}, "$or": ours},
                {"operationType": {"$in": ["invalidate", "dropDatabase"]}},
            ]
        }
        pipeline = [{"$changeStream": stage}, {"$match": match}, {"$unset": "updateDescription"}]
        reply = self._reply(
            self._command("aggregate", 1, pipeline=pipeline, cursor={"batchSize": 0}, readConcern={"level": "majority"})
        )
        self._cursor, self.token, self.at = reply.cursor, reply.token, reply.at

    def _command(self, name: str, value: Any, **arguments: Any) -> bytes:
        from bson import CodecOptions
        from bson.raw_bson import RawBSONDocument
        from pymongo import ReadPreference

        found = self._watched.client[self._watched.database].command(
            name, value, session=self._watched.session, read_preference=ReadPreference.PRIMARY,
            codec_options=CodecOptions(document_class=RawBSONDocument), **arguments,
        )  # fmt: skip
        return bytes(found.raw)

    def _reply(self, raw: bytes) -> Reply:
        import numpy as np

        where = self._watched.where
        buffer = Buffer(raw)
        cursor = fields_of(buffer, np.zeros(1, np.int64))["cursor"][DOCUMENT].fields()
        (batch,) = [cursor[name][ARRAY].at for name in ("firstBatch", "nextBatch") if name in cursor]
        token = _document(buffer, cursor.get("postBatchResumeToken", {}))
        if token is None:
            raise EngineError("a change stream without resume tokens", where=where, fix="it needs MongoDB 4.2 or later")
        number = int(buffer.numbers(cursor["id"][INT64].at, "<i8")[0])
        dumped = dumped_token(token)
        return Reply(buffer, _elements(raw, int(batch[0])), dumped, token_pos(dumped, where), number)


def _document(buffer: Buffer, field: Field) -> bytes | None:
    values = field.get(DOCUMENT)
    if values is None:
        return None
    at, size = int(values.at[0]), int(values.size[0])
    return buffer.data[at : at + size]


def _elements(data: bytes, at: int) -> Index:
    """Return where the documents of an array begin; its keys are the numbers from 0 on."""
    import numpy as np

    end = at + int.from_bytes(data[at : at + 4], "little") - 1
    starts: list[int] = []
    at, digits, longer = at + 4, 1, 10
    while at < end:
        if len(starts) == longer:
            digits, longer = digits + 1, longer * 10
        at += digits + 2
        starts.append(at)
        at += int.from_bytes(data[at : at + 4], "little")
    return np.array(starts, np.int64)
