"""Reading on from the newest record: how far back is asked for, and which records of that have been read before.

Several records may have the same cursor, and some are committed late in the API, so a read asks again for the time
shortly before the newest cursor. Which records of that time have been read is kept as hashes in the position; a record
that was changed since then has another hash, and is new.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from etl_resources.engines.kept import database
from etl_resources.exceptions import ConfigurationError, NotFoundError

if TYPE_CHECKING:
    import pyarrow as pa

CursorFormat = Literal["iso", "iso_seconds", "date", "epoch", "epoch_ms"]
_SECOND = 1_000_000
_STEPS: dict[str, int] = {
    "iso": 1, "iso_seconds": _SECOND, "date": 86_400 * _SECOND, "epoch": _SECOND, "epoch_ms": 1000,
}  # fmt: skip


class Boundary:
    """The newest cursor, and what has been read around it. Times are microseconds since 1970, numbers themselves."""

    def __init__(
        self, column: str, look_back: int, form: CursorFormat, limit: int, position: Mapping[str, Any], where: str
    ) -> None:
        self._column, self._form, self._limit, self._where = column, form, limit, where
        self._look_back = look_back
        self._is_time: bool | None = position.get("is_time")
        self._top: int | None = position.get("cursor")
        self._seen: dict[str, int | None] = dict(position.get("seen", ()))
        self._before = frozenset(self._seen)
        self._asked_from = self._lowest()
        # Beyond the top where there were times in the future.
        read = [moment for moment in (self._top, *self._seen.values()) if moment is not None]
        self._read_to = max(read) if read else None

    def asked_from(self) -> str | None:
        """Return the cursor to ask from, as the API writes it; None: from the beginning."""
        lowest = self._asked_from
        if lowest is None:
            return None
        if not self._is_time:
            return str(lowest)
        moment = datetime.fromtimestamp(lowest // _SECOND, UTC)
        return {
            "iso": f"{moment:%Y-%m-%dT%H:%M:%S}.{lowest % _SECOND:06d}Z", "iso_seconds": f"{moment:%Y-%m-%dT%H:%M:%S}Z",
            "date": f"{moment:%Y-%m-%d}", "epoch": str(lowest // _SECOND), "epoch_ms": str(lowest // 1000),
        }[self._form]  # fmt: skip

    def go_on(self, reading: Mapping[str, Any]) -> None:
        """Take up a read that was interrupted: what it had found so far, as `found` gave it."""
        self._top, self._is_time = reading["top"], reading["is_time"]
        self._seen = dict(reading["found"])

    def found(self) -> dict[str, Any]:
        """Return what this read has found so far, as JSON, for `go_on`."""
        return {"top": self._top, "is_time": self._is_time, "found": [[name, at] for name, at in self._seen.items()]}

    def dump(self) -> dict[str, Any]:
        """Return the position behind this read."""
        return {"cursor": self._top, "is_time": self._is_time, "seen": [[name, at] for name, at in self._seen.items()]}

    def sift(self, table: pa.Table) -> pa.Table:
        """Return the records that have not been read before.

        Raises:
            NotFoundError: the records have no such field.
            ConfigurationError: it holds neither times nor integers; or too many records are that new.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not table.num_rows:
            return table
        moments = self._moments(table)
        newest = pc.max(moments).as_py()
        if newest is not None:
            # A time in the future would keep everything that is written until then from being asked for.
            newest = min(newest, time.time_ns() // 1000) if self._is_time else newest
            self._top = newest if self._top is None else max(self._top, newest)
        lowest = self._lowest()
        near = _at_least(moments, lowest)
        old = pa.nulls(len(table), pa.bool_()).fill_null(fill_value=False)
        if self._read_to is not None:
            old = pc.or_(pc.less_equal(moments, self._read_to).fill_null(fill_value=True), old)
        hashes = self._hashes(table, pc.or_(near, old))
        self._remember(hashes, near, moments, lowest)
        if self._read_to is None:
            return table
        before = pc.is_in(hashes, value_set=pa.array(sorted(self._before), pa.string()))
        # What is older than what was asked for was read by an earlier read, whether or not its hash is still kept.
        older = pc.less(moments, self._asked_from).fill_null(fill_value=False)
        return table.filter(pc.invert(pc.or_(before, older)))

    def _lowest(self) -> int | None:
        if self._top is None:
            return None
        if not self._is_time:
            return self._top - self._look_back
        step = _STEPS[self._form]
        return (self._top - self._look_back * _SECOND) // step * step

    def _hashes(self, table: pa.Table, wanted: Any) -> pa.Array:
        """Return a hash per record, null where none is wanted: only the records near the boundary are looked at."""
        import numpy as np
        import pyarrow as pa

        places = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
        hashes = np.full(len(table), None, dtype=object)
        for place, record in zip(places.tolist(), table.take(pa.array(places)).to_pylist(), strict=True):
            hashes[place] = _hash(record)
        return pa.array(hashes, pa.string())

    def _remember(self, hashes: pa.Array, near: Any, moments: pa.Array, lowest: int | None) -> None:
        for name, moment in zip(hashes.filter(near).to_pylist(), moments.filter(near).to_pylist(), strict=True):
            self._seen[name] = moment
        if lowest is not None:
            self._seen = {name: at for name, at in self._seen.items() if at is None or at >= lowest}
        if len(self._seen) > self._limit:
            raise ConfigurationError(
                f"more than {self._limit:,} records have their {self._column} within the last {self._look_back}"
                f" {'seconds' if self._is_time else 'steps'}",
                where=self._where, fix="make `look_back` smaller, or raise `look_back_records`",
            )  # fmt: skip

    def _moments(self, table: pa.Table) -> pa.Array:
        import pyarrow as pa
        from pyarrow import types

        if self._column not in table.column_names:
            raise NotFoundError(
                f"the records have no field {self._column}", where=self._where,
                fix=f"there are {', '.join(table.column_names[:20])}",
            )  # fmt: skip
        column = table.column(self._column).combine_chunks()
        is_time = not types.is_integer(column.type)
        found = _microseconds(column) if is_time else column.cast(pa.int64())
        neither = is_time and not (types.is_string(column.type) or types.is_temporal(column.type))
        unclear = found.null_count == len(found) > column.null_count
        if neither or unclear or (self._is_time is not None and self._is_time != is_time):
            raise ConfigurationError(
                f"{self._column} ({column.type}) cannot be a cursor: it holds no times and no whole numbers",
                where=self._where, fix="name another field, or declare its type in `columns`",
            )  # fmt: skip
        self._is_time = is_time
        return found


def _at_least(moments: pa.Array, lowest: int | None) -> Any:
    """Tell which records are near the boundary; one without a cursor may come with every read, and always is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if lowest is None:
        return pa.nulls(len(moments), pa.bool_()).fill_null(fill_value=True)
    return pc.greater_equal(moments, lowest).fill_null(fill_value=True)


def _microseconds(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    given = pa.table({"c": column})
    with database(None, {"threads": 1}) as connection:  # in UTC: it is what a time without a zone is taken for
        connection.register("given", given)
        query = "SELECT epoch_us(TRY_CAST(c AS TIMESTAMPTZ)) AS c FROM given"
        found: pa.Table = connection.sql(query).to_arrow_table()
    return found.column("c").cast(pa.int64()).combine_chunks()


def _hash(record: Mapping[str, Any]) -> str:
    """Return the hash of a record; a field that it does not have counts as one that is null."""
    text = json.dumps(_without_nulls(record), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(v) for name, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value
