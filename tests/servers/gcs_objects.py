"""What the GCS test server holds: buckets of objects with generations, changed only under their preconditions."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime


class PreconditionError(Exception):
    """The object is of another generation than the request takes it to be (HTTP 412)."""


class MissingError(Exception):
    """No such bucket, object or upload (HTTP 404)."""


@dataclass(frozen=True)
class Stored:
    """One generation of an object."""

    data: bytes
    generation: int
    updated: datetime
    metadata: dict[str, str]
    content_type: str

    @property
    def etag(self) -> str:
        """The digest of the content, as the XML API gives it for objects that were not sent in parts."""
        return hashlib.md5(self.data).hexdigest()


@dataclass
class Upload:
    """An object that is sent in parts."""

    key: str
    metadata: dict[str, str]
    content_type: str
    parts: dict[int, bytes] = field(default_factory=dict)


@dataclass
class Buckets:
    """All objects of the server. No method awaits anything, so that each is one step for all clients."""

    objects: dict[str, dict[str, Stored]] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1_700_000_000_000_000))

    def number(self) -> int:
        return next(self._numbers)

    def bucket(self, name: str) -> dict[str, Stored]:
        if name not in self.objects:
            raise MissingError(f"The specified bucket does not exist: {name}")
        return self.objects[name]

    def get(self, bucket: str, key: str) -> Stored:
        if key not in self.bucket(bucket):
            raise MissingError(f"No such object: {bucket}/{key}")
        return self.objects[bucket][key]

    def put(
        self, bucket: str, key: str, data: bytes, *,
        if_generation: int | None, metadata: dict[str, str], content_type: str,
    ) -> Stored:  # fmt: skip
        """Make a new generation; `if_generation` 0: only if there is no object of that name."""
        self._check(bucket, key, if_generation)
        made = Stored(data, self.number(), datetime.now(UTC), metadata, content_type)
        self.objects[bucket][key] = made
        return made

    def delete(self, bucket: str, key: str, *, if_generation: int | None) -> None:
        self.get(bucket, key)
        self._check(bucket, key, if_generation)
        del self.objects[bucket][key]

    def names(self, bucket: str, prefix: str, after: str, limit: int) -> tuple[list[str], bool]:
        """Return names in order, those behind `after`, and whether there are more."""
        found = sorted(n for n in self.bucket(bucket) if n.startswith(prefix) and n > after)
        return found[:limit], len(found) > limit

    def _check(self, bucket: str, key: str, if_generation: int | None) -> None:
        there = self.bucket(bucket).get(key)
        if if_generation is not None and if_generation != (there.generation if there else 0):
            raise PreconditionError("At least one of the pre-conditions you specified did not hold.")
