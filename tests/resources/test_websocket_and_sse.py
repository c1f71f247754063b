"""WebSockets and Server-Sent Events: what both promise, over a server that misbehaves in all the usual ways."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.lake import Lake
from etl_resources.resilience import Policy
from etl_resources.source import Batch, Incremental, Position, Source, Stream
from etl_resources.sources.sse import SseOptions, SseSource
from etl_resources.sources.websocket import WebsocketOptions, WebsocketSource
from tests.assets.doubles import new_run
from tests.servers.proxy import wire_to
from tests.servers.streams import StreamServer, running_streams

Kind = Literal["ws", "sse"]
FAST = Policy(attempts=3, timeout=1, silence=1, first_wait=0.02, longest_wait=0.2, deadline=5)
RESUME = {
    "subscribe": [{"op": "subscribe"}],
    "resume": {"token": "$.id", "subscribe": [{"op": "subscribe", "after": "{token}"}]},
    "ignore": {"$.op": ["heartbeat"]},
}


@pytest.fixture(scope="module")
def server() -> Iterator[StreamServer]:
    with running_streams() as server:
        yield server


@pytest.fixture(params=["ws", "sse"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def open_source(server: StreamServer, kind: Kind, port: int | None = None, **settings: Any) -> Source:
    url = server.url(kind, "", port).rstrip("/")
    given = {"url": url, "allow_plaintext": True, "resilience": FAST, **settings}
    return WebsocketSource(**given) if kind == "ws" else SseSource(**given)


def stream(kind: Kind, name: str, *, resumes: bool = True, **options: Any) -> Stream:
    given = {"path": name, "idle_seconds": 0.6, **options}
    if kind == "sse":
        return Stream("events", SseOptions(**given))
    return Stream("events", WebsocketOptions(heartbeat_seconds=0.3, **((RESUME if resumes else {}) | given)))


def records(first: int, last: int) -> list[str]:
    """Texts that do not shrink much where the protocol compresses."""
    return [json.dumps({"id": n, "text": sha256(str(n).encode()).hexdigest()}) for n in range(first, last)]


def ids(batches: list[Batch]) -> list[int]:
    return [i for b in batches for i in b.data.column("id").to_pylist()]


def _collect(batches: Iterator[Batch], into: list[Batch]) -> None:
    """Keep what came before an error, which `list.extend` does not promise."""
    for batch in batches:
        into.append(batch)  # noqa: PERF402


def prepare(server: StreamServer, kind: Kind, name: str, **settings: Any) -> Any:
    resumes = settings.get("resumes", True)
    return server.channel(name, subscribes=kind == "ws" and resumes, **settings)


class KilledError(Exception):
    """Stands for the end of the process."""


def test_two_runs_with_a_kill_before_and_one_after_a_commit(server: StreamServer, kind: Kind, tmp_path: Path) -> None:
    """What was received and not committed is sent again, what was committed is not."""
    prepare(server, kind, "kills", messages=records(0, 250))
    source, what, lake = open_source(server, kind), stream(kind, "kills", max_messages=100), Lake(uri=str(tmp_path))

    def land(die_at: str | None = None, times: int = 1) -> Any:
        class Mortal(Run):
            def point(self, name: str) -> None:
                nonlocal times
                times -= name == die_at
                if times == 0:
                    raise KilledError

        return Bronze(lake, "test", what).land(source, Mortal(new_run().run_id))

    def landed() -> list[int]:
        handle = lake.table("bronze", "test", "events").open()
        assert handle is not None
        return sorted(handle.delta.to_pyarrow_table().column("id").to_pylist())

    with pytest.raises(KilledError):
        land("bronze:before_commit", 2)
    assert landed() == list(range(100))
    with pytest.raises(KilledError):
        land("bronze:before_acknowledge")
    assert landed() == list(range(200))
    server.channels["kills"].messages += records(250, 260)
    land()
    assert landed() == list(range(260))
    assert land().account.read == 0


@pytest.mark.parametrize("inclusive", [False, True])
def test_a_server_that_hangs_up_again_and_again(server: StreamServer, kind: Kind, inclusive: bool) -> None:
    """Whether it sends the message of the token again or the one behind it: everything arrives once."""
    channel = prepare(server, kind, "rude", messages=records(0, 500), rude_after=85, inclusive=inclusive)
    batches = list(open_source(server, kind).read(stream(kind, "rude", max_messages=150), None))
    assert ids(batches) == list(range(500))
    assert len(channel.connected) == 6
    assert sum(b.repeated for b in batches) == (5 if inclusive else 0)
    assert batches[-1].rows_read == 500 + sum(b.repeated for b in batches)
    assert all(m is None for b in batches for m in b.data.column("_missed_since").to_pylist())


def test_a_server_of_events_says_when_to_come_back_and_that_it_has_ended(server: StreamServer) -> None:
    channel = prepare(server, "sse", "series", messages=records(0, 20), rude_after=10, retry=1000, ends=True)
    endless = stream("sse", "series", idle_seconds=None, run_seconds=30)
    began = time.monotonic()
    patient = open_source(server, "sse", resilience=FAST.model_copy(update={"longest_wait": 5.0}))
    assert ids(list(patient.read(endless, None))) == list(range(20))
    times = [connection["at"] for connection in channel.connected]
    assert len(times) == 3, "the third is told that there is no more"
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))
    assert time.monotonic() - began < 20, "the run does not wait for more"


def test_messages_with_the_same_token_are_told_apart_by_what_they_say(server: StreamServer) -> None:
    """Tokens are often times: of those with the last one some were received, and some not."""
    messages = [json.dumps({"at": at, "id": n}) for n, at in enumerate([1, 1, 2, 2, 2, 2])]
    what = stream("ws", "times", resume={"token": "at", "subscribe": [{"op": "subscribe", "after": 1}]})
    prepare(server, "ws", "times", messages=messages[:4])
    source = open_source(server, "ws")
    (first,) = source.read(what, None)
    prepare(server, "ws", "times", messages=messages)  # it goes on with the second of time 2 … as it was told: after 1
    (second,) = source.read(what, first.position)
    assert (ids([first]), ids([second])) == ([0, 1, 2, 3], [4, 5])
    assert (second.repeated, second.rows_read) == (2, 4)


def test_equal_messages_are_not_taken_for_one_that_came_again(server: StreamServer) -> None:
    prepare(server, "ws", "twins", messages=['{"id": 7}'] * 5)
    (batch,) = open_source(server, "ws").read(stream("ws", "twins"), None)
    assert (ids([batch]), batch.repeated) == ([7] * 5, 0)


def test_what_may_have_been_missed_is_named_in_the_data_and_the_log(
    server: StreamServer, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """A live stream cannot be resumed: a lost connection and the time between two runs leave gaps."""
    channel = prepare(server, kind, "live", resumes=False, heartbeat=0.05)
    given: dict[str, Any] = {"ignore": {"op": ("heartbeat",)}} if kind == "ws" else {}
    what = stream(kind, "live", resumes=False, idle_seconds=1, run_seconds=20, **given)
    source = open_source(server, kind)

    def say(*numbers: int) -> None:
        channel.messages.extend(json.dumps({"id": n}) for n in numbers)

    def at_connection(number: int, *actions: Callable[[], None]) -> None:
        def act() -> None:
            while len(channel.connected) < number:
                time.sleep(0.01)
            for action in actions:
                time.sleep(0.15)
                action()

        threading.Thread(target=act, daemon=True).start()

    at_connection(1, lambda: say(1, 2), lambda: setattr(channel, "rude_after", 2), lambda: say(3))
    at_connection(2, lambda: setattr(channel, "rude_after", None), lambda: say(4, 5))
    began = datetime.now(UTC)
    with caplog.at_level(logging.WARNING):
        first = list(source.read(what, None))
    rows = [row for b in first for row in b.data.to_pylist()]
    assert [row["id"] for row in rows] == [1, 2, 4, 5]
    marked = [row for row in rows if row["_missed_since"] is not None]
    assert [row["id"] for row in marked] == [rows[2]["id"]]
    assert began < marked[0]["_missed_since"] < marked[0]["_received_at"]
    assert "what was sent since" in caplog.text

    say(6)  # while nobody listens
    at_connection(3, lambda: say(7, 8))
    seen_at = first[-1].position or {}
    rows = [row for b in source.read(what, json.loads(json.dumps(seen_at))) for row in b.data.to_pylist()]
    assert [row["id"] for row in rows] == [7, 8]
    assert rows[0]["_missed_since"] is not None
    assert abs(rows[0]["_missed_since"].timestamp() - seen_at["seen_at"]) < 0.001
    assert rows[1]["_missed_since"] is None


def test_a_slow_lake_slows_the_server_instead_of_filling_memory(server: StreamServer, kind: Kind) -> None:
    """400 MB are to be had at once; while the lake is busy with the first batch, the server has to wait."""
    message = json.dumps({"id": 1, "pad": os.urandom(50_000).hex()})
    channel = prepare(server, kind, "fast", messages=[message] * 4_000, resumes=kind == "sse")
    channel.resumes = True
    what = stream(kind, "fast", resumes=False, max_messages=20, buffer_bytes=4 << 20)
    batches = open_source(server, kind).read(what, None)
    assert next(batches).data.num_rows == 20
    before, sent = psutil.Process().memory_info().rss, -1
    while sent != channel.sent:
        sent = channel.sent
        time.sleep(0.5)
    grown = psutil.Process().memory_info().rss - before
    assert sent * len(message) < 40 << 20, "the server was kept waiting"
    assert grown < 60 << 20
    assert next(batches).data.num_rows == 20
    batches.close()  # type: ignore[attr-defined]


def test_what_was_received_is_handed_on_before_the_error(server: StreamServer, kind: Kind) -> None:
    prepare(server, kind, "lost", messages=records(0, 1000))
    partial: list[Batch] = []
    with wire_to(server.port, cut_after=20_000) as wire:
        source = open_source(server, kind, wire.port)
        with pytest.raises(UnavailableError) as caught:
            _collect(source.read(stream(kind, "lost"), None), partial)
    assert caught.value.where
    (batch,) = partial
    assert 0 < batch.data.num_rows < 1000
    assert batch.commit
    rest = list(open_source(server, kind).read(stream(kind, "lost"), batch.position))
    assert ids([batch, *rest]) == list(range(1000))


def test_a_server_that_restarts_half_way(kind: Kind) -> None:
    with running_streams() as server:
        prepare(server, kind, "restart", messages=records(0, 500))
        patient = Policy(attempts=50, timeout=2, silence=5, first_wait=0.1, longest_wait=0.1)
        what = stream(kind, "restart", max_messages=100, idle_seconds=1)
        batches = open_source(server, kind, resilience=patient).read(what, None)
        seen = [next(batches) for _ in range(5)]
        server.stop()
        server.channels["restart"].messages += records(500, 700)
        threading.Timer(0.5, server.start).start()
        seen += list(batches)
        assert ids(seen) == list(range(700))


def test_silence_of_a_far_end_is_not_the_end_of_what_it_has(server: StreamServer, kind: Kind) -> None:
    """Nothing but silence comes, not even an answer to a ping: the connection counts as lost."""
    prepare(server, kind, "stall", messages=records(0, 500))
    for stall in (0, 8_000):
        with wire_to(server.port, stall_after=stall) as wire:
            what = stream(kind, "stall", idle_seconds=None, run_seconds=30)
            began = time.monotonic()
            with pytest.raises(UnavailableError):
                list(open_source(server, kind, wire.port, resilience=Policy(
                    attempts=2, timeout=0.25, silence=0.25, first_wait=0.01)).read(what, None))  # fmt: skip
            assert time.monotonic() - began < 10


def test_heartbeats_keep_a_quiet_stream_open(server: StreamServer, kind: Kind) -> None:
    """SSE: comments. WebSocket: pongs and messages that are no records. Neither is an event."""
    channel = prepare(server, kind, "quiet", messages=[], heartbeat=0.1)
    threading.Timer(1.3, lambda: channel.messages.extend(records(0, 1))).start()
    batches = list(open_source(server, kind).read(stream(kind, "quiet", idle_seconds=None, run_seconds=1.8), None))
    assert ids(batches) == [0]
    assert len(channel.connected) == 1, "a second of silence would have ended the connection"


def test_micro_batches_are_committed_by_time_and_the_run_ends(server: StreamServer, kind: Kind) -> None:
    channel = prepare(server, kind, "trickle", messages=records(0, 1))
    for n in range(1, 5):
        threading.Timer(n * 0.3, channel.messages.extend, [records(n, n + 1)]).start()
    began = time.monotonic()
    what = stream(kind, "trickle", idle_seconds=None, run_seconds=1.6, max_seconds=0.5)
    batches = list(open_source(server, kind).read(what, None))
    assert 1.5 < time.monotonic() - began < 3
    assert ids(batches) == list(range(5))
    assert len([b for b in batches if b.commit]) >= 2


def test_what_cannot_be_parsed_is_set_apart(server: StreamServer, kind: Kind) -> None:
    messages = ['{"id": 1}', "{broken", "[]", '{"id": 2, "_seq": 1}', '{"id": 3}']
    prepare(server, kind, "bad", messages=messages, resumes=kind == "sse").resumes = True
    (batch,) = open_source(server, kind).read(stream(kind, "bad", resumes=False), None)
    assert ids([batch]) == [1, 3]
    assert batch.unreadable is not None
    assert batch.unreadable.column("raw").to_pylist() == [m.encode() for m in messages[1:4]]
    assert batch.rows_read == 5


def test_text_and_bytes(server: StreamServer, kind: Kind) -> None:
    prepare(server, kind, "text", messages=["plain\nand more", "ü"], resumes=kind == "sse").resumes = True
    source = open_source(server, kind)
    (batch,) = source.read(stream(kind, "text", resumes=False, format="text"), None)
    assert batch.data.column("payload").to_pylist() == ["plain\nand more", "ü"]
    (batch,) = source.read(stream(kind, "text", resumes=False, format="bytes"), None)
    assert batch.data.column("payload").to_pylist() == [b"plain\nand more", "ü".encode()]


def test_errors_say_what_to_do_and_no_secret(server: StreamServer, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIGHT", "open sesame")
    monkeypatch.setenv("WRONG", "open rye")
    prepare(server, kind, "guarded", messages=records(0, 3), bearer="open sesame")
    scheme = {"ws": "wss", "sse": "https"}[kind]
    cases: list[tuple[dict[str, Any], type[EtlError], str]] = [
        ({"auth": {"bearer": {"env": "WRONG"}}}, CredentialsRejectedError, "auth"),
        ({}, CredentialsRejectedError, "auth"),
        ({"auth": {"bearer": {"env": "NOT_SET_AT_ALL"}}}, ConfigurationError, "NOT_SET_AT_ALL"),
        ({"url": server.url(kind, "", 1)}, UnavailableError, "port"),
        ({"url": server.url(kind, "").replace("localhost", "no-such-host.invalid")}, UnavailableError, "host"),
        ({"allow_plaintext": False}, ConfigurationError, "allow_plaintext"),
        ({"url": f"{scheme}://user:open@localhost/"}, ConfigurationError, "auth"),
        ({"url": "ftp://localhost/"}, ConfigurationError, "https://"),
        ({"ca_file": "no_such.pem", "url": f"{scheme}://localhost:{server.port}/"}, ConfigurationError, ""),
    ]
    what = stream(kind, "guarded")
    for settings, expected, fix in cases:
        source = open_source(server, kind, **settings)
        for attempt in (lambda s=source: list(s.read(what, None)), lambda s=source: s.read_schema(what)):
            with pytest.raises(expected) as caught:
                attempt()
            assert fix in caught.value.fix
            assert "open" not in f"{caught.value} {caught.value!r} {source!r}".replace("user:open@", "")
    with pytest.raises(NotFoundError, match="no_such"):
        open_source(server, kind).read_schema(stream(kind, "no_such"))
    trusted = open_source(server, kind, auth={"bearer": {"env": "RIGHT"}})
    assert ids(list(trusted.read(what, None))) == [0, 1, 2]


def test_certificates_are_verified(kind: Kind, tmp_path: Path) -> None:
    with running_streams(tls=True) as server:
        prepare(server, kind, "sealed", messages=records(0, 3))
        with pytest.raises(ConfigurationError, match="not trusted") as caught:
            list(open_source(server, kind, allow_plaintext=False).read(stream(kind, "sealed"), None))
        assert "ca_file" in caught.value.fix
        (tmp_path / "ca.pem").write_bytes(server.authority())
        trusting = open_source(server, kind, allow_plaintext=False, ca_file=str(tmp_path / "ca.pem"))
        assert ids(list(trusting.read(stream(kind, "sealed"), None))) == [0, 1, 2]


def test_captures_are_refused(server: StreamServer, kind: Kind) -> None:
    given = stream(kind, "any")
    position: Position | None = None
    with pytest.raises(ConfigurationError, match="neither a cursor"):
        list(open_source(server, kind).read(Stream("s", given.options, Incremental(cursor="id")), position))
