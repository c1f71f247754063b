"""Up to where a collection has been read by a cursor field, without losing what is written late.

MongoDB does not tell when a document was written, and a cursor field is set by clients: a transaction that has taken
its time may commit a minute later (`transactionLifetimeLimitSeconds`), a client's clock may be slow, a write may be
tried again. So every read looks back from the newest cursor it knows by `late_by`, and what was read before is
recognised by a hash of its content, of which the position keeps one for every document within the look-back. Documents
whose cursor is missing, null, or of another type compare with nothing: they are always looked at, and recognised.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError
from etl_resources.sources import mongodb_bson as b

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pymongo.collection import Collection

    from etl_resources.sources.mongodb_bson import Field, Index, Values

MOST_SEEN = 100_000
"""Documents that a position remembers; if more lie within the look-back, the oldest come again: doubled, not lost."""
_HASH = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Mapping[str, tuple[str, ...]] = {"date": ("date",), "number": ("int", "long", "double"), "id": ("objectId",)}


@dataclass
class Horizon:
    """`kind`: date (`high` in ms since 1970), number, or id (an ObjectId; seconds since 1970). None: no value yet."""

    cursor: str
    late_by: int
    kind: str | None = None
    high: int | float | None = None
    seen: frozenset[bytes] = frozenset()
    _read: list[tuple[float, bytes]] = field(default_factory=list)

    @classmethod
    def load(cls, position: Mapping[str, Any], cursor: str, late_by: int, where: str) -> Horizon:
        """Return what `dump` wrote; where the position is not one of this cursor, a horizon at the beginning."""
        kept = position.get("cursor")
        if not kept:
            return cls(cursor, late_by)
        if kept["field"] != cursor:
            raise ConfigurationError(
                f"the stream was read by {kept['field']!r} until now, and not by {cursor!r}", where=where,
                fix="run it once with --full-refresh",
            )  # fmt: skip
        hashes = base64.b64decode(position.get("seen", ""))
        seen = frozenset(hashes[n : n + _HASH] for n in range(0, len(hashes), _HASH))
        return cls(cursor, late_by, kept["kind"], kept["high"], seen)

    def dump(self) -> dict[str, Any]:
        """Return it as JSON, with what was read by now."""
        most = self._read
        if len(most) > MOST_SEEN:
            most = sorted(most, key=lambda pair: pair[0])[-MOST_SEEN:]
        hashes = b"".join(sorted(digest for _, digest in most))
        kept = {"field": self.cursor, "kind": self.kind, "high": self.high}
        return {"cursor": kept, "seen": base64.b64encode(hashes).decode()}

    @property
    def remembered(self) -> int:
        """How many documents a position would remember."""
        return len(self._read)

    def moved(self, collection: Collection[Any], condition: Mapping[str, Any], now: datetime, where: str) -> Horizon:
        """Return the horizon of a read that begins now: its newest cursor, which a time in the future cannot push up.

        Raises:
            ConfigurationError: the cursor is neither a date, a number nor an ObjectId.
        """
        kind = self.kind or _kind(collection, condition, self.cursor, where)
        found = _newest(collection, condition, self.cursor, kind, now) if kind else None
        high = found if self.high is None else self.high if found is None else max(found, self.high)
        return Horizon(self.cursor, self.late_by, kind, high, self.seen)

    def resumed(self) -> Horizon:
        """Return the horizon for going on with a first read: what was remembered stays so, and is not looked for."""
        known = [(float("inf"), digest) for digest in self.seen]
        return Horizon(self.cursor, self.late_by, self.kind, self.high, frozenset(), known)

    def condition(self) -> dict[str, Any]:
        """Return the filter for what the next read has to look at."""
        if self.high is None:
            return {}
        # Not `$gte`: that leaves out what has no cursor, or one of another type.
        return {self.cursor: {"$not": {"$lt": _as_bson(self._low, self.kind)}}}

    def repeated(self, fields: Mapping[str, Field], documents: list[memoryview]) -> NDArray[np.bool_]:
        """Tell which documents were read before, and remember those within the look-back."""
        import numpy as np

        values = np.full(len(documents), np.inf)
        comparable = np.zeros(len(documents), np.bool_)
        for code, rows, found in _values_at(fields, self.cursor):
            if (numbers := _numbers(code, found, self.kind)) is not None:
                values[rows], comparable[rows] = numbers, True
        recent = np.ones(len(documents), np.bool_)
        if self.high is not None:
            # A little lower, because float64 rounds large integers: to remember one too many does no harm.
            low = np.nextafter(np.nextafter(float(self._low), -np.inf), -np.inf)
            recent = ~comparable | ~(values < low)
        known = np.zeros(len(documents), np.bool_)
        # One by one: few, unless everything is new, and then it is little beside what is done with it.
        for n in range(len(documents)) if self.seen else recent.nonzero()[0].tolist():
            digest = hashlib.blake2b(documents[n], digest_size=_HASH).digest()
            known[n] = digest in self.seen
            if recent[n]:
                self._read.append((float(values[n]), digest))
        return known

    @property
    def _low(self) -> int | float:
        assert self.high is not None  # noqa: S101 - asked for only then
        return self.high - self.late_by * (1000 if self.kind == "date" else 1)


def _newest(
    collection: Collection[Any], condition: Mapping[str, Any], cursor: str, kind: str, now: datetime
) -> int | float | None:
    """Return the greatest cursor of a kind that is not in the future; as `Horizon.high`."""
    moment = _as_number(now)
    limit = {
        "number": {"$lt": float("inf")}, "date": {"$lte": _as_bson(moment, "date")},
        "id": {"$lt": _as_bson(moment // 1000 + 1, "id")},
    }[kind]  # fmt: skip
    typed = _typed(cursor, _KINDS[kind])
    found = collection.find_one(
        {"$and": [condition, {cursor: limit}, typed]}, {cursor: 1}, sort=[(cursor, -1)], batch_size=1
    )
    return None if found is None else _as_number(_at(found, cursor))


def _kind(collection: Collection[Any], condition: Mapping[str, Any], cursor: str, where: str) -> str | None:
    """Return the kind of the cursor, as the newest document shows it that has one; None: no document has one."""
    from bson import ObjectId

    usable = _typed(cursor, [name for names in _KINDS.values() for name in names])
    found = collection.find_one({"$and": [condition, usable]}, {cursor: 1}, sort=[("_id", -1)])
    if found is not None:
        kinds = {ObjectId: "id", datetime: "date", int: "number", float: "number"}
        value = _at(found, cursor)
        if value is None:
            raise ConfigurationError(f"the cursor {cursor!r} lies in an array", where=where, fix="name another field")
        return next(kind for type_, kind in kinds.items() if isinstance(value, type_))
    other = collection.find_one({"$and": [condition, {cursor: {"$ne": None}}]}, {cursor: 1})
    if other is not None:
        raise ConfigurationError(
            f"the cursor {cursor!r} is a {type(_at(other, cursor)).__name__}", where=where,
            fix="name a field that holds a date, a number or an ObjectId, or use capture: {snapshot: {}}",
        )  # fmt: skip
    return None


def _typed(cursor: str, types: Iterable[str]) -> dict[str, Any]:
    """Return the filter for documents whose cursor is of one of the types; `$type` looks into arrays, too."""
    return {"$or": [{cursor: {"$type": name, "$not": {"$type": "array"}}} for name in types]}


def _at(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _as_number(value: Any) -> int | float:
    from bson import ObjectId

    if isinstance(value, ObjectId):
        value = value.generation_time
        return round(value.timestamp())
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(milliseconds=1)
    number: int | float = value + 0  # an Int64 is no JSON
    return number if isinstance(number, float) else int(number)


def _as_bson(number: int | float, kind: str | None) -> Any:
    from bson import DatetimeMS, Int64, ObjectId

    if kind == "date":
        return DatetimeMS(int(number))
    if kind == "id":
        return ObjectId(int(max(number, 0)).to_bytes(4, "big") + bytes(8))
    return Int64(max(number, -(2**63))) if isinstance(number, int) else number


def _values_at(fields: Mapping[str, Field], path: str) -> Iterator[tuple[int, Index, Values]]:
    """Yield type, rows and values of a field by its path."""
    head, _, rest = path.partition(".")
    for code, values in fields.get(head, {}).items():
        if not rest:
            yield code, values.rows, values
        elif code == b.DOCUMENT:
            for inner, rows, found in _values_at(values.fields(), rest):
                yield inner, values.rows[rows], found


def _numbers(code: int, found: Values, kind: str | None) -> NDArray[Any] | None:
    """Return cursors as `Horizon.high` is; None: they are of another kind. NaN compares with nothing."""
    if (code, kind) == (b.DATE, "date"):
        return found.buffer.numbers(found.at, "<i8")
    if (code, kind) == (b.OBJECT_ID, "id"):
        return found.buffer.numbers(found.at, ">u4")
    layouts = {b.INT32: "<i4", b.INT64: "<i8", b.DOUBLE: "<f8"}
    return found.buffer.numbers(found.at, layouts[code]) if kind == "number" and code in layouts else None
