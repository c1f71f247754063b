"""The request of a stream, its templates filled in, and what the API tells beside the records."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import NotFoundError
from etl_resources.sources.rest_pagination import Told

if TYPE_CHECKING:
    from etl_resources.source import Window
    from etl_resources.sources.rest_page import Page


def values_of(cursor: str | None, window: Window | None) -> dict[str, str]:
    """Return what templates are filled with: `cursor`, and `start` and `end` of a partition in UTC."""
    values = {} if cursor is None else {"cursor": cursor}
    if window is not None:
        values |= {"start": _utc(window.start), "end": _utc(window.end)}
    return values


def _utc(moment: datetime) -> str:
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return f"{zoned.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def filled(template: Any, values: Mapping[str, str]) -> Any:
    """Return a template with its values; an entry of an object that needs a value that is not there is left out."""
    if isinstance(template, str):
        for name, value in values.items():
            template = template.replace(f"{{{name}}}", value)
        return template
    if isinstance(template, Mapping):
        return {name: filled(part, values) for name, part in template.items() if not _lacks(part, values)}
    return [filled(part, values) for part in template] if isinstance(template, list) else template


def _lacks(template: Any, values: Mapping[str, str]) -> bool:
    names = {"cursor", "start", "end"} - values.keys()
    return isinstance(template, str) and any(f"{{{name}}}" in template for name in names)


def total_of(page: Page, told: Told, where: str) -> int:
    """Return how many records the API says the listing has.

    Raises:
        NotFoundError: it does not say so where it should.
    """
    found = page.value(told.path) if told.path is not None else (page.headers or {}).get((told.header or "").lower())
    try:
        return int(str(found))
    except ValueError:
        raise NotFoundError(
            f"there is no number at {told.path or told.header} of the answer", where=where, fix="check `total`"
        ) from None


def more_of(page: Page, path: str, where: str) -> bool:
    """Return whether the API says that there is another page; raises as `total_of`."""
    found = page.value(path)
    if not isinstance(found, bool):
        raise NotFoundError(f"there is neither true nor false at {path} of the answer", where=where, fix="check `more`")
    return found
