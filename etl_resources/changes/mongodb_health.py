"""What a deployment says about its change streams: whether they can be followed, and how long it remembers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etl_resources.change_log import Finding, Lag, LogState
from etl_resources.changes.mongodb_position import Server, loaded_token, pos_of, seconds_of
from etl_resources.exceptions import LogLostError
from etl_resources.mongodb_errors import translated

if TYPE_CHECKING:
    import pymongo

    from etl_resources.changes.mongodb_position import Cursor
    from etl_resources.changes.mongodb_settings import MongoLogCapture
    from etl_resources.sources.mongodb import MongoSource

_IMAGES = (6, 0)
_NARROW = 0.2
"""Part of the oplog's window that must be left."""


def server_of(client: pymongo.MongoClient[Any], where: str) -> tuple[Server, Finding | None]:
    """Return which deployment it is, and what makes it impossible to follow."""
    with translated(where):
        member = client.admin.command("hello")
        if member.get("msg") == "isdbgrid":
            if len(client.nodes) > 1:
                return Server("mongos", None), Finding(
                    "error", "several mongos are named, and a change stream has to stay with one",
                    "name one mongos in `uri`, with directConnection=true",
                )  # fmt: skip
            return Server("mongos", _identity(client, "clusterId")), None
        if "setName" not in member:
            return Server("", None), Finding(
                "error", "the server is no member of a replica set: it has no oplog, and no change streams",
                "make it a replica set of one member (replSetInitiate), or choose another capture",
            )  # fmt: skip
        return Server(member["setName"], _identity(client, "replicaSetId")), None


def _identity(client: pymongo.MongoClient[Any], name: str) -> str | None:
    """Return what names the deployment for good; None: the user may not see it."""
    from pymongo.errors import OperationFailure

    try:
        if name == "clusterId":
            found = (client.config.version.find_one({}) or {}).get(name)
        else:
            found = client.admin.command("replSetGetConfig")["config"].get("settings", {}).get(name)
    except OperationFailure:
        return None
    return str(found) if found is not None else None


def findings(
    client: pymongo.MongoClient[Any], source: MongoSource, collections: Mapping[str, str], capture: MongoLogCapture,
    where: str,
) -> list[Finding]:  # fmt: skip
    """Return what a preflight finds."""
    server, problem = server_of(client, where)
    if problem is not None:
        return [problem]
    with translated(where):
        version = tuple(client.admin.command("buildInfo")["versionArray"][:2])
        kinds = {c["name"]: c for c in client[source.database].list_collections()}
    found = [Finding("ok", f"replica set {server.name}, MongoDB {'.'.join(map(str, version))}")]
    if server.identity is None:
        what = "the identity of the deployment may not be asked for: another of the same name may not be noticed"
        found.append(Finding("warning", what, "grant the role clusterMonitor"))
    images = capture.full_document != "updateLookup" or capture.before_images != "off"
    if images and version < _IMAGES:
        found.append(Finding("error", "post- and pre-images need MongoDB 6.0", "full_document: updateLookup"))
    if capture.full_document == "updateLookup":
        what = "updateLookup: an update may show the document as it was later; only the newest state is sure"
        found.append(Finding("warning", what, "keep post-images, and use full_document: required"))
    for stream, name in collections.items():
        found += _of_collection(stream, name, kinds.get(name), capture)
    return [*found, _can_watch(client, source, where), _window(client)]


def _of_collection(stream: str, name: str, there: Mapping[str, Any] | None, capture: MongoLogCapture) -> list[Finding]:
    if there is None:
        return [Finding("error", f"there is no collection {name}", "check its name", stream)]
    if there["type"] != "collection":
        return [Finding("error", f"{name} is a {there['type']}, which has no changes of its own",
                        "follow the collection behind it", stream)]  # fmt: skip
    kept = there.get("options", {}).get("changeStreamPreAndPostImages", {}).get("enabled")
    command = f"db.runCommand({{collMod: {name!r}, changeStreamPreAndPostImages: {{enabled: true}}}})"
    if kept:
        return [Finding("ok", f"{name} keeps pre- and post-images", "", stream)]
    if "required" in {capture.full_document, capture.before_images}:
        return [Finding("error", f"{name} keeps no pre- and post-images: its first update would stop the log",
                        f"{command}, or full_document: updateLookup", stream)]  # fmt: skip
    if "whenAvailable" in {capture.full_document, capture.before_images}:
        return [Finding("warning", f"{name} keeps no pre- and post-images", command, stream)]
    return []


def _can_watch(client: pymongo.MongoClient[Any], source: MongoSource, where: str) -> Finding:
    from pymongo.errors import OperationFailure

    with translated(where):
        try:
            with client[source.database].watch(max_await_time_ms=1):
                return Finding("ok", "change streams can be opened")
        except OperationFailure as error:
            return Finding("error", f"change streams cannot be opened: {error.code}", "grant the role `read`")


def _oplog(client: pymongo.MongoClient[Any]) -> tuple[int, int] | None:
    """Return `_pos` of the oldest and newest entry of the oplog; None: the user may not see it, or mongos has none."""
    from pymongo.errors import OperationFailure

    try:
        ends = [client.local["oplog.rs"].find_one({}, sort=[("$natural", n)]) for n in (1, -1)]
    except OperationFailure:
        return None
    return (pos_of(ends[0]["ts"]), pos_of(ends[1]["ts"])) if ends[0] and ends[1] else None


def _window(client: pymongo.MongoClient[Any]) -> Finding:
    found = _oplog(client)
    if found is None:
        return Finding("warning", "the oplog may not be looked at: how long it remembers is not known",
                       "grant the role `read` on the database local")  # fmt: skip
    hours = (seconds_of(found[1]) - seconds_of(found[0])) / 3600
    return Finding("ok", f"the oplog remembers {hours:.1f} h")


def state(
    client: pymongo.MongoClient[Any], source: MongoSource, cursors: Sequence[Cursor], names: list[str], where: str
) -> LogState:
    """Return how far the log is ahead of the oldest of the cursors."""
    started = [c for c in cursors if c.token is not None]
    if not started:
        return LogState("none", news=True, notes=["nothing was read yet"])
    oldest = min(started, key=lambda c: str((c.token or {})["_data"]))
    try:
        behind = _behind(client, source, oldest, names, where)
    except LogLostError as error:
        return LogState("lost", news=True, notes=[error.what])
    news = behind > 0 or len(started) < len(cursors) or any(c.snapshot is not None for c in cursors)
    window = _oplog(client)
    if window is None:
        return LogState("ok", news, Lag(seconds=behind), ["the oplog may not be looked at"])
    first, last = window
    left = ((oldest.pos or 0) - first) / max(1, last - first)
    notes = [f"the oplog remembers {(seconds_of(last) - seconds_of(first)) / 3600:.1f} h"]
    if behind and left < _NARROW:
        notes.append(f"{left:.0%} of it are left before changes are lost")
        return LogState("warning", news, Lag(seconds=behind), notes)
    return LogState("ok", news, Lag(seconds=behind), notes)


def _behind(
    client: pymongo.MongoClient[Any], source: MongoSource, cursor: Cursor, names: list[str], where: str
) -> float:
    """Return for how many seconds the next event has been waiting; 0: there is none.

    Raises:
        LogLostError: it is no longer there.
    """
    ours = {"$match": {"$or": [{"ns.coll": {"$in": names}}, {"to.coll": {"$in": names}}]}}
    how = {"start_after": loaded_token(cursor.token or {}), "max_await_time_ms": 1, "batch_size": 1}
    with translated(where), client[source.database].watch([ours], **how) as stream:
        event = stream.try_next()
    return max(0.001, time.time() - event["clusterTime"].time) if event is not None else 0.0
