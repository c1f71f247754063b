"""Filters of a stream: as they are written, and for a window of event time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    from etl_resources.source import Window


def parsed(written: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a filter of extended JSON as pymongo takes it."""
    from bson import json_util
    from bson.errors import BSONError

    try:
        options = json_util.JSONOptions(tz_aware=True)
        found: dict[str, Any] = json_util.loads(json_util.dumps(written), json_options=options)
    except (BSONError, TypeError, ValueError) as error:
        raise ConfigurationError(f"`filter` is no extended JSON: {error}", where=where, fix="see the docs") from None
    return found


def both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filter for what both let through."""
    return {"$and": [first, second]} if first and second else dict(first or second)


def in_window(window: Window) -> dict[str, Any]:
    """Return the filter for a window; BSON has milliseconds, so both ends go up to the next one."""
    from bson import DatetimeMS

    def up(moment: datetime) -> DatetimeMS:
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return DatetimeMS(-((datetime(1970, 1, 1, tzinfo=UTC) - aware) // timedelta(milliseconds=1)))

    return {window.column: {"$gte": up(window.start), "$lt": up(window.end)}}
