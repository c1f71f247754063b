"""What the MongoDB test server does with a command. Filters, updates and pipelines are mongomock's."""

from __future__ import annotations

import datetime
import itertools
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

import bson
import mongomock
from mongomock.filtering import filter_applies

from tests.servers.mongo_changes import Failure
from tests.servers.mongo_oplog import Reply, stamp
from tests.servers.mongo_reading import Reading
from tests.servers.mongo_scram import Refused, Scram
from tests.servers.mongo_store import CODEC, order

OPEN = frozenset({"hello", "ismaster", "saslstart", "saslcontinue", "ping", "buildinfo", "endsessions"})


class HangUp(Exception):  # noqa: N818
    """Close the connection without a word."""


@dataclass
class Connection:
    """What the server keeps per connection."""

    number: int
    user: str | None = None
    scram: Scram | None = None


@dataclass
class Server(Reading):
    """Everything that connections share. `users`: name -> password; empty: nobody has to log in."""

    users: dict[str, str]
    address: str
    transactions: dict[str, list[Reply]] = field(default_factory=dict)
    fail: dict[str, Any] = field(default_factory=dict)

    def answer(self, command: Reply, connection: Connection) -> Reply:
        """Run a command and return its reply, which may be an error."""
        name = next(iter(command))
        try:
            reply = self._run(name, command, connection)
        except HangUp:
            raise
        except Exception as error:  # noqa: BLE001 - a server answers; the log keeps the trace
            if not isinstance(error, Failure):
                traceback.print_exc()
                error = Failure(1, "InternalError", repr(error))
            return {"ok": 0.0, "errmsg": str(error), "code": error.code, "codeName": error.name}
        moment = {"operationTime": stamp(self.store.clock)} if self.set_name else {}
        return {**reply, "ok": 1.0, **moment}

    def _run(self, name: str, command: Reply, connection: Connection) -> Reply:
        self._failpoint(name)
        if self.users and connection.user is None and name.lower() not in OPEN:
            raise Failure(13, "Unauthorized", f"Command {name} requires authentication")
        run = getattr(self, f"do_{name.lower()}", None)
        if run is None:
            raise Failure(59, "CommandNotFound", f"no such command: '{name}'")
        if command.get("autocommit") is False and name in {"insert", "update", "delete"}:
            self.transactions.setdefault(str(command["lsid"]["id"]), []).append(command)
            return {"n": len(command.get("documents", ()))}
        if name.lower() in OPEN:
            return dict(run(command, connection))  # a server that is busy still says that it is alive
        with self.store.lock:
            return dict(run(command, connection))

    def _failpoint(self, name: str) -> None:
        data = self.fail.get("data", {})
        if name not in data.get("failCommands", ()):
            return
        if self.fail["skip"] > 0:
            self.fail["skip"] -= 1
            return
        if self.fail["times"] <= 0:
            return
        self.fail["times"] -= 1
        time.sleep(data.get("blockTimeMS", 0) / 1000)
        if data.get("closeConnection"):
            raise HangUp
        if "errorCode" in data:
            raise Failure(data["errorCode"], data.get("codeName", "FailPoint"), "failing because of failCommand")

    def do_configurefailpoint(self, command: Reply, _: Connection) -> Reply:
        mode = command["mode"]
        times = 0 if mode == "off" else 10**9 if mode == "alwaysOn" else mode.get("times", 10**9)
        self.fail = {"data": command.get("data", {}), "times": times, "skip": mode.get("skip", 0) if times and
                     isinstance(mode, dict) else 0}  # fmt: skip
        return {}

    def do_hello(self, command: Reply, connection: Connection) -> Reply:
        member = {
            "setName": self.set_name, "setVersion": 1, "hosts": [self.address], "primary": self.address,
            "me": self.address, "secondary": False,
        }  # fmt: skip
        return {
            "helloOk": True, "isWritablePrimary": True, "ismaster": True, "maxBsonObjectSize": 16_777_216,
            "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
            "localTime": datetime.datetime.now(datetime.UTC), "logicalSessionTimeoutMinutes": 30,
            "connectionId": connection.number, "minWireVersion": 0, "maxWireVersion": 25, "readOnly": False,
            **(member if self.set_name else {}),
            **({"saslSupportedMechs": ["SCRAM-SHA-256"]} if "saslSupportedMechs" in command else {}),
        }  # fmt: skip

    do_ismaster = do_hello

    def do_ping(self, *_: Any) -> Reply:
        return {}

    do_endsessions = do_ping

    def do_serverstatus(self, *_: Any) -> Reply:
        return {"metrics": {"cursor": {"open": {"total": len(self.cursors)}}}}

    def do_buildinfo(self, *_: Any) -> Reply:
        return {"version": "8.0.4", "versionArray": [8, 0, 4, 0]}

    def do_saslstart(self, command: Reply, connection: Connection) -> Reply:
        if command["mechanism"] != "SCRAM-SHA-256":
            raise Failure(334, "MechanismUnavailable", f"no mechanism {command['mechanism']}")
        connection.scram = Scram(self.users)
        return connection.scram.reply(connection.scram.start(bytes(command["payload"])))

    def do_saslcontinue(self, command: Reply, connection: Connection) -> Reply:
        if connection.scram is None:
            raise Failure(17, "ProtocolError", "no conversation")
        try:
            payload = connection.scram.proceed(bytes(command["payload"]))
        except Refused:
            raise Failure(18, "AuthenticationFailed", "Authentication failed.") from None
        if connection.scram.done:
            connection.user = connection.scram.user
        return connection.scram.reply(payload)

    def do_create(self, command: Reply, _: Connection) -> Reply:
        place = (command["$db"], command["create"])
        if "viewOn" in command:
            self.store.views[place] = (command["viewOn"], command.get("pipeline", []))
        else:
            self.store.collection(*place)
            if "changeStreamPreAndPostImages" in command:
                self.do_collmod({**command, "collMod": command["create"]}, _)
        return {}

    def do_collmod(self, command: Reply, _: Connection) -> Reply:
        kept = {k: v for k, v in command.items() if k == "changeStreamPreAndPostImages"}
        self.store.configure((command["$db"], command["collMod"]), kept)
        return {}

    def do_drop(self, command: Reply, _: Connection) -> Reply:
        self.store.drop((command["$db"], command["drop"]))
        return {}

    def do_dropdatabase(self, command: Reply, _: Connection) -> Reply:
        for place in [p for p in self.store.collections if p[0] == command["$db"]]:
            self.store.drop(place)
        self.store.drop((command["$db"], ""), kind="dropDatabase")
        return {}

    def do_renamecollection(self, command: Reply, _: Connection) -> Reply:
        place, to = (tuple(command[k].split(".", 1)) for k in ("renameCollection", "to"))
        if to in self.store.collections and not command.get("dropTarget"):
            raise Failure(48, "NamespaceExists", "target namespace exists")
        self.store.rename(place, to)
        return {}

    def do_replsetgetconfig(self, *_: Any) -> Reply:
        if not self.set_name:
            raise Failure(76, "NoReplicationEnabled", "not running with --replSet")
        return {"config": {"_id": self.set_name, "settings": {"replicaSetId": self.store.set_id}}}

    def do_testoplog(self, command: Reply, _: Connection) -> Reply:
        """Do what only time does with a real server: `keep` few entries, let `images` expire, write a `noop`; or
        what a restored one has done: be another set (`set`), at another time (`clock`)."""
        if "keep" in command:
            self.store.oplog.trim(command["keep"], self.store.tick())
        if "images" in command:
            self.store.oplog.forget_images()
        if "set" in command:
            self.store.set_id = command["set"]
        if "clock" in command:
            self.store.clock = command["clock"]
        if "noop" in command:
            self.store.tick()
            self.store.written.notify_all()
        return {}

    def do_insert(self, command: Reply, _: Connection) -> Reply:
        into = self.store.collection(command["$db"], command["insert"])
        changes, errors = [], []
        known: set[Any] = set()
        for n, raw in enumerate(command["documents"]):
            identity = bson.decode(raw, CODEC)["_id"]
            key = order(identity)
            if key in known or into.get(key) is not None:
                errors.append({"index": n, "code": 11000, "errmsg": f"E11000 duplicate key error: {identity}"})
                break
            known.add(key)
            changes.append((key, bytes(raw)))
        self.store.write(command["$db"], command["insert"], changes)
        return {"n": len(changes), **({"writeErrors": errors} if errors else {})}

    def do_update(self, command: Reply, _: Connection) -> Reply:
        place, matched, modified, upserted = (command["$db"], command["update"]), 0, 0, []
        for n, update in enumerate(command["updates"]):
            replaces = not next(iter(update["u"])).startswith("$")
            changes = []
            found = self._matching(place, update["q"], 0 if update.get("multi") else 1)
            if not found and update.get("upsert"):
                fresh = {k: v for k, v in update["q"].items() if not k.startswith("$") and not isinstance(v, dict)}
                after = _updated({"_id": bson.ObjectId(), **fresh}, update["u"])
                changes.append((order(after["_id"]), bson.encode(after, codec_options=CODEC)))
                upserted.append({"index": n, "_id": after["_id"]})
            for raw, before in found:
                after_raw = bson.encode(_updated(before, update["u"]), codec_options=CODEC)
                if after_raw != raw:  # nothing changed: nothing is written
                    changes.append((order(before["_id"]), after_raw))
                    modified += 1
            self.store.write(*place, changes, kind="replace" if replaces else "update")
            matched += len(found)
        more = {"upserted": upserted} if upserted else {}
        return {"n": matched + len(upserted), "nModified": modified, **more}

    def do_delete(self, command: Reply, _: Connection) -> Reply:
        place, n = (command["$db"], command["delete"]), 0
        for delete in command["deletes"]:
            found = self._matching(place, delete["q"], delete["limit"])
            self.store.write(*place, [(order(d["_id"]), None) for _, d in found])
            n += len(found)
        return {"n": n}

    def _matching(self, place: tuple[str, str], q: Reply, limit: int) -> list[tuple[bytes, Reply]]:
        collection = self.store.collection(*place)
        if set(q) == {"_id"} and not isinstance(q["_id"], dict):
            raw = collection.get(order(q["_id"]))
            return [(raw, bson.decode(raw, CODEC))] if raw else []
        decoded = ((raw, bson.decode(raw, CODEC)) for raw in list(collection.documents()))
        return list(itertools.islice(((r, d) for r, d in decoded if filter_applies(q, d)), limit or None))

    def do_committransaction(self, command: Reply, connection: Connection) -> Reply:
        with self.store.transaction(command["lsid"], int(command["txnNumber"])):
            for held in self.transactions.pop(str(command["lsid"]["id"]), []):
                getattr(self, f"do_{next(iter(held))}")(held, connection)
        return {}

    def do_aborttransaction(self, command: Reply, _: Connection) -> Reply:
        self.transactions.pop(str(command["lsid"]["id"]), None)
        return {}


def _updated(before: Reply, update: Reply) -> Reply:
    scratch = mongomock.MongoClient(tz_aware=True).scratch.scratch
    scratch.insert_one(before)
    apply = scratch.replace_one if not next(iter(update)).startswith("$") else scratch.update_one
    apply({}, update)
    return dict(scratch.find_one())
