"""What a GraphQL answer says beside its data: errors, and what the query cost."""

from __future__ import annotations

import json
import re
from typing import Any

from etl_resources.exceptions import (
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.http_errors import Redaction

_THROTTLED = frozenset({"THROTTLED", "RATE_LIMITED", "RATELIMITED", "RATE_LIMIT_EXCEEDED", "TOO_MANY_REQUESTS"})
_REFUSED = frozenset({"UNAUTHENTICATED", "FORBIDDEN", "UNAUTHORIZED", "ACCESS_DENIED"})
_BROKEN = frozenset(
    {"INTERNAL_SERVER_ERROR", "INTERNAL_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT", "DOWNSTREAM_SERVICE_ERROR"}
)
_UNKNOWN = re.compile(r"cannot query field|doesn't exist on type|unknown (type|argument|field)", re.IGNORECASE)
_SHOWN = 3


def errors_of(document: Any) -> list[Any]:
    """Return the errors of an answer; data beside them may lack what failed, so they are not used."""
    found = document.get("errors") if isinstance(document, dict) else None
    return [] if not found else found if isinstance(found, list) else [found]


def translate(errors: list[Any], where: str, redact: Redaction) -> EtlError:
    """Return the errors of an answer as one of the tree, with message and path of the first ones."""
    codes = {
        str(_extensions(error).get("code", error.get("type", ""))).upper() for error in errors if _is_object(error)
    }
    more = f" (and {len(errors) - _SHOWN} more)" if len(errors) > _SHOWN else ""
    what = redact("the API answered with errors: " + "; ".join(map(_told, errors[:_SHOWN])) + more)
    if codes & _THROTTLED:
        return UnavailableError(what, where=where, fix="the query costs too much for the time: ask for smaller pages")
    if codes & _REFUSED:
        return CredentialsRejectedError(what, where=where, fix="check `auth` and what the credentials are allowed to")
    if codes & _BROKEN:
        return UnavailableError(what, where=where)
    if "NOT_FOUND" in codes or _UNKNOWN.search(what):
        return NotFoundError(what, where=where, fix="check the fields and arguments of `query`")
    return EngineError(what, where=where, fix="check `query` and `variables`")


def is_throttled(errors: list[Any]) -> bool:
    """Tell whether the answer says that the query cost more than there was left."""
    return any(
        _is_object(e) and str(_extensions(e).get("code", e.get("type", ""))).upper() in _THROTTLED for e in errors
    )


def pause_for_cost(document: Any) -> float | None:
    """Return the seconds until the API has as much left as the query costs; None: it has, or it does not say."""
    try:
        cost = document["extensions"]["cost"]
        status = cost["throttleStatus"]
        lacking = float(cost["requestedQueryCost"]) - float(status["currentlyAvailable"])
        rate = float(status["restoreRate"])
    except (KeyError, TypeError, ValueError):
        return None
    return lacking / rate if lacking > 0 and rate > 0 else None


def _told(error: Any) -> str:
    if not _is_object(error):
        return json.dumps(error)[:200]
    path = error.get("path")
    at = f" at {'.'.join(map(str, path))}" if isinstance(path, list) and path else ""
    return f"{str(error.get('message', 'no message'))[:300]}{at}"


def _extensions(error: dict[str, Any]) -> dict[str, Any]:
    found = error.get("extensions")
    return found if isinstance(found, dict) else {}


def _is_object(error: Any) -> bool:
    return isinstance(error, dict)
