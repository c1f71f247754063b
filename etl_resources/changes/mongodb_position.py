"""Where a MongoDB stream has been read to, and how a time of the cluster's clock becomes `_pos`."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import EngineError
from etl_resources.source import Position

if TYPE_CHECKING:
    from bson import Timestamp

_EPOCH = 1 << 30
"""Seconds since 1970 at which `_pos` is 0, in 2004: from 1970 on, seconds << 32 leave int64 in 2038; so, in 2072."""
_TIME = re.compile(r"82([0-9A-Fa-f]{16})")

Token = Mapping[str, Any]
"""A resume token, as extended JSON."""


def pos_of(moment: Timestamp) -> int:
    """Return the `_pos` of a time of the cluster's clock."""
    return int(moment.time) - _EPOCH << 32 | int(moment.inc)


def moment_of(pos: int) -> Timestamp:
    """Return the time of the cluster's clock of a `_pos`."""
    from bson import Timestamp

    return Timestamp((pos >> 32) + _EPOCH, pos & 0xFFFFFFFF)


def seconds_of(pos: int) -> float:
    """Return the seconds since 1970 of a `_pos`."""
    return float((pos >> 32) + _EPOCH)


def token_pos(token: Token, where: str) -> int:
    """Return the `_pos` of a resume token, whose key begins with the time, in an order that bytes have, too.

    Raises:
        EngineError: it does not.
    """
    found = _TIME.match(str(token.get("_data")))
    if found is None:
        raise EngineError(
            "a resume token of an unknown form", where=where, fix="MongoDB 4.2 and later write tokens that are known"
        )
    return int(found[1], 16) - (_EPOCH << 32)


def loaded_token(token: Token) -> Any:
    """Return the token as pymongo takes it."""
    from bson import json_util

    return json_util.loads(json.dumps(token))


def dumped_token(raw: bytes) -> Token:
    """Return the token of a BSON document as JSON."""
    import bson
    from bson import json_util

    found: Token = json.loads(json_util.dumps(bson.decode(raw)))
    return found


@dataclass(frozen=True)
class Server:
    """Which deployment a position is of. `identity`: of its configuration; None: we may not ask."""

    name: str
    identity: str | None

    def same(self, other: Server) -> bool:
        """Tell whether both are the same deployment, as far as is known."""
        if self.identity and other.identity:
            return self.identity == other.identity
        return self.name == other.name


@dataclass
class Snapshot:
    """How far a first load has come. `began`: `_pos` of its first chunk; `after`: the last `_id`, as a document."""

    began: int | None = None
    after: bytes | None = None
    rows: int = 0


@dataclass
class Cursor:
    """What a stream's position holds. `pos`: what is at or before it is in the lake; `snapshot`: None when there is
    none to take; `renewed`: it was asked for, so `token` may be lost."""

    pos: int | None = None
    token: Token | None = None
    server: Server | None = None
    schema: Mapping[str, Any] | None = None
    snapshot: Snapshot | None = None
    renewed: bool = False

    @classmethod
    def load(cls, position: Position | None) -> Cursor:
        """Return what `dump` wrote; without a position, the beginning."""
        if position is None:
            return cls(snapshot=Snapshot())
        server, kept = position.get("server"), position.get("snapshot")
        snapshot = None
        if kept is not None:
            after = kept.get("after")
            snapshot = Snapshot(kept.get("began"), base64.b64decode(after) if after else None, kept.get("rows", 0))
        return cls(
            position.get("pos"), position.get("token"), Server(server["name"], server["id"]) if server else None,
            position.get("schema"), snapshot, bool(position.get("renewed")),
        )  # fmt: skip

    def dump(self) -> dict[str, Any]:
        """Return it as JSON."""
        kept: dict[str, Any] = {"pos": self.pos, "token": self.token, "schema": self.schema}
        if self.server is not None:
            kept["server"] = {"name": self.server.name, "id": self.server.identity}
        if self.snapshot is not None:
            after = self.snapshot.after
            kept["snapshot"] = {
                "began": self.snapshot.began, "rows": self.snapshot.rows,
                "after": base64.b64encode(after).decode() if after else None,
            }  # fmt: skip
        if self.renewed:
            kept["renewed"] = True
        return kept
