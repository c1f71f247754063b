"""Reading RabbitMQ: nothing lost and nothing doubled, whatever breaks between queue, connection, commit and ack."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from etl_assets.bronze import Bronze
from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.lake import Lake
from etl_resources.resilience import Policy
from etl_resources.source import Batch, Incremental, Position, Stream
from etl_resources.sources.rabbitmq import RabbitmqOptions, RabbitmqSource
from tests.assets.doubles import new_run
from tests.forks import KILLED, shared_forks
from tests.servers.proxy import wire_to
from tests.servers.rabbitmq import PASSWORD, RabbitServer, shared_rabbitmq
from tests.soaking import some

FAST = Policy(attempts=3, timeout=3, silence=2, first_wait=0.01, deadline=5)
KINDS = some(["classic", "stream", "quorum"], 2)


@pytest.fixture(scope="module")
def server() -> RabbitServer:
    return shared_rabbitmq()


@pytest.fixture
def queue(request: pytest.FixtureRequest, server: RabbitServer) -> str:
    """A queue of its own, of the type that the test is parametrized with, or a classic one."""
    name = request.node.name
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    server.declare(name, parameters.get("kind", "classic"))
    return name


def open_source(server: RabbitServer, **settings: Any) -> RabbitmqSource:
    return RabbitmqSource(**server.settings(**{"resilience": FAST, **settings}))


def stream(queue: str, **options: Any) -> Stream:
    return Stream("things", RabbitmqOptions(queue=queue, **options))


def records(first: int, last: int) -> list[bytes]:
    return [json.dumps({"id": n, "text": f"record {n}"}).encode() for n in range(first, last)]


def consume(source: RabbitmqSource, what: Stream, since: Position | None = None) -> list[Batch]:
    """Read as bronze does: every micro-batch is acknowledged while the source waits."""
    seen = []
    for batch in source.read(what, since):
        seen.append(batch)
        if batch.commit:
            assert batch.position is not None
            source.acknowledge(what, json.loads(json.dumps(batch.position)))
    return seen


def ids(batches: list[Batch]) -> list[int]:
    return [i for b in batches for i in b.data.column("id").to_pylist()]


class Lander:
    """Bronze over one queue, in a lake of its own."""

    def __init__(self, folder: Path, what: Stream) -> None:
        self.lake, self.stream = Lake(uri=str(folder / "lake")), what

    def land(self, source: RabbitmqSource, **options: Any) -> Any:
        return Bronze(self.lake, "test", self.stream).land(source, new_run(), **options)

    def rows(self) -> list[dict[str, Any]]:
        handle = self.lake.table("bronze", "test", self.stream.name).open()
        assert handle is not None
        rows: list[dict[str, Any]] = handle.delta.to_pyarrow_table().to_pylist()
        return rows

    def ids(self) -> list[int]:
        return sorted(row["id"] for row in self.rows())


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_with_a_kill_between_commit_and_acknowledge(
    kind: str, server: RabbitServer, queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed and not acknowledged is delivered again, recognised, counted, and acknowledged then."""
    server.publish(queue, records(0, 250))
    lander = Lander(tmp_path, stream(queue, max_messages=100, idle_seconds=0.5))
    acknowledge, calls = RabbitmqSource.acknowledge, []

    def die_at_the_second(self: RabbitmqSource, what: Stream, position: Position) -> None:
        calls.append(position)
        if len(calls) == 2:
            raise KilledError
        acknowledge(self, what, position)

    monkeypatch.setattr(RabbitmqSource, "acknowledge", die_at_the_second)
    with pytest.raises(KilledError):
        lander.land(open_source(server))
    monkeypatch.undo()
    assert lander.ids() == list(range(200)), "two micro-batches are committed"
    server.publish(queue, records(250, 260))

    landed = lander.land(open_source(server))
    assert lander.ids() == list(range(260))
    repeated = 0 if kind == "stream" else 100
    assert (landed.account.read, landed.account.inserted) == (60 + repeated, 60)
    assert sum(landed.account.filtered.values()) == repeated
    if kind != "stream":
        assert server.ready(queue) == 0
    assert lander.land(open_source(server)).account.read == 0


def land_and_die(settings: dict[str, Any], queue: str, folder: str) -> None:
    os.environ["TEST_RABBITMQ_PASSWORD"] = PASSWORD
    acknowledge, calls = RabbitmqSource.acknowledge, []

    def die(self: RabbitmqSource, what: Stream, position: Position) -> None:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        acknowledge(self, what, position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RabbitmqSource, "acknowledge", die)
        Lander(Path(folder), stream(queue, max_messages=100)).land(RabbitmqSource(**settings))


def test_a_process_that_is_killed_is_followed_by_one_that_doubles_nothing(
    server: RabbitServer, queue: str, tmp_path: Path
) -> None:
    """The same with a real SIGKILL of a process that has committed twice and acknowledged nothing of the second."""
    server.publish(queue, records(0, 300))
    given = {"settings": server.settings(), "queue": queue, "folder": str(tmp_path)}
    assert shared_forks().start(land_and_die, **given).wait() == KILLED
    lander = Lander(tmp_path, stream(queue, max_messages=100))
    assert lander.ids() == list(range(200))
    landed = lander.land(open_source(server))
    assert lander.ids() == list(range(300))
    assert sum(landed.account.filtered.values()) == 100


def test_messages_without_an_id_are_kept_twice_rather_than_lost_and_it_is_said(
    server: RabbitServer, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Equal bodies may be different messages; only a user can know that they are not, and say `identity: body`."""
    server.publish(queue, [b'{"id": 1}', b'{"id": 1}', b'{"id": 2}'], ids=False)
    source, what = open_source(server), stream(queue)
    killed = source.read(what, None)
    position = next(killed).position
    killed.close()
    with caplog.at_level(logging.WARNING):
        again = list(open_source(server).read(what, position))
    assert ids(again) == [1, 1, 2]
    assert again[0].data.column("_redelivered").to_pylist() == [True] * 3
    assert "3 messages without a message_id were delivered again" in caplog.text


def test_identity_by_body_recognises_them(server: RabbitServer, queue: str) -> None:
    server.publish(queue, records(0, 3), ids=False)
    source, what = open_source(server), stream(queue, identity="body")
    killed = source.read(what, None)
    position = next(killed).position
    killed.close()
    server.publish(queue, records(3, 4), ids=False)
    again = consume(open_source(server), what, position)
    assert (ids(again), again[-1].repeated, again[-1].rows_read) == ([3], 3, 4)


def test_the_same_id_with_another_body_is_another_message(server: RabbitServer, queue: str) -> None:
    server.publish(queue, [b'{"id": 1}', b'{"id": 2}', b'{"id": 1}'], ids=False, message_id="not unique")
    (batch,) = consume(open_source(server), stream(queue))
    assert (ids([batch]), batch.repeated) == ([1, 2], 1)


@pytest.mark.parametrize("kind", some(["quorum", "classic"], 1))
def test_poison_is_set_apart_acknowledged_and_never_seen_again(
    kind: str, server: RabbitServer, queue: str, tmp_path: Path
) -> None:
    from etl_assets.errors import Budget

    server.publish(queue, [b'{"id": 1}', b"{broken", b"\xff\xfe", b"[1]", b"", b'{"id": 2}'])
    lander = Lander(tmp_path, stream(queue))
    landed = Bronze(lander.lake, "test", lander.stream, budget=Budget(max_rows=10)).land(open_source(server), new_run())
    assert lander.ids() == [1, 2]
    assert dict(landed.account.rejected) == {"unreadable": 4}
    assert server.ready(queue) == 0
    assert consume(open_source(server), stream(queue)) == []


def test_properties_and_headers_are_columns(server: RabbitServer, queue: str) -> None:
    headers = {"trace": "ab", "attempt": 2, "blob": b"\xff\x00", "deep": {"list": [1, "ü", None]}}
    server.publish(
        queue, [b'{"id": 1}'], ids=False, headers=headers, message_id="m-1", timestamp=1_700_000_000, type="order",
        content_type="application/json", priority=3, correlation_id="c", app_id="shop",
    )  # fmt: skip
    (batch,) = consume(open_source(server), stream(queue))
    (row,) = batch.data.to_pylist()
    said = json.loads(row.pop("_headers"))
    assert said == {"trace": "ab", "attempt": 2, "blob": "ff00", "deep": {"list": [1, "ü", None]}}
    expected = {
        "id": 1, "_message_id": "m-1", "_timestamp": 1_700_000_000, "_type": "order", "_priority": 3, "_app_id": "shop",
        "_content_type": "application/json", "_correlation_id": "c", "_exchange": "", "_routing_key": queue,
        "_redelivered": False, "_origin": queue,
    }  # fmt: skip
    assert {name: value for name, value in row.items() if value is not None} == expected
    assert batch.data.schema.names[: len(row)] != []
    schema = open_source(server).read_schema(stream(queue, columns={"id": "int64"}))
    assert [f for f in batch.data.schema if f.name != "_origin"] == list(schema)


def test_what_other_consumers_take_is_not_waited_for_forever(server: RabbitServer, queue: str) -> None:
    server.publish(queue, records(0, 10))
    with server.connect() as other:
        channel = other.channel()
        taken = [channel.basic_get(queue) for _ in range(4)]
        assert ids(consume(open_source(server), stream(queue))) == list(range(len(taken), 10))


def test_what_arrives_while_a_run_lasts_is_for_the_next_unless_it_shall_wait(server: RabbitServer, queue: str) -> None:
    server.publish(queue, records(0, 5))
    late = threading.Timer(0.3, lambda: server.publish(queue, records(5, 7)))
    late.start()
    assert ids(consume(open_source(server), stream(queue, idle_seconds=1.5))) == list(range(7))
    began = time.monotonic()
    assert consume(open_source(server), stream(queue, idle_seconds=60, run_seconds=0.5)) == []
    assert time.monotonic() - began < 5


def test_prefetch_is_all_that_is_ever_taken_at_once(server: RabbitServer, queue: str) -> None:
    """A slow lake leaves the messages in the queue."""
    server.publish(queue, records(0, 1000))
    source, what = open_source(server), stream(queue, prefetch=100, max_messages=50)
    batches = source.read(what, None)
    for n in range(1, 4):
        batch = next(batches)
        time.sleep(0.2)
        assert batch.data.num_rows == 50
        assert server.ready(queue) == 1000 - 100 - (n - 1) * 50
        source.acknowledge(what, batch.position or {})
    batches.close()
    time.sleep(0.2)
    assert server.ready(queue) == 1000 - 150


def test_a_full_refresh_commits_at_its_end_and_acknowledges_then(
    server: RabbitServer, queue: str, tmp_path: Path
) -> None:
    """Bronze commits it as one; what the server has sent ahead by then is all that can be in it."""
    server.publish(queue, records(0, 250))
    lander = Lander(tmp_path, stream(queue, max_messages=50, prefetch=100))
    lander.land(open_source(server), full_refresh=True)
    assert lander.ids() == list(range(100))
    assert server.ready(queue) == 150
    lander.land(open_source(server))
    assert lander.ids() == list(range(250))


def test_heartbeats_are_answered_while_the_lake_commits(server: RabbitServer, queue: str) -> None:
    """The server hangs up on a client that is silent for two heartbeats, here two seconds."""
    server.publish(queue, records(0, 20))
    what = stream(queue, max_messages=10)
    with wire_to(server.port) as wire:
        source = open_source(server, port=wire.port)
        batches = source.read(what, None)
        first = next(batches)
        time.sleep(3)
        source.acknowledge(what, first.position or {})
        second = next(batches)
        source.acknowledge(what, second.position or {})
        assert ids([first, second, *batches]) == list(range(20))
        assert wire.connections == 1
    assert server.ready(queue) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_breaks_is_made_anew_and_nothing_is_lost_or_doubled(
    kind: str, server: RabbitServer, queue: str, tmp_path: Path
) -> None:
    """Reset in the middle of a message, and once more while a micro-batch is being committed."""
    server.publish(queue, records(0, 300))
    lander = Lander(tmp_path, stream(queue, max_messages=100, idle_seconds=0.6))
    with wire_to(server.port, cut_after=20_000) as wire:
        patient = Policy(attempts=20, timeout=3, silence=4, first_wait=0.1)
        source = open_source(server, port=wire.port, resilience=patient)
        read, seen = RabbitmqSource.read, []

        def breaking(self: RabbitmqSource, *given: Any, **options: Any) -> Any:
            for batch in read(self, *given, **options):
                seen.append(batch)
                if len(seen) == 2:
                    wire.break_now()
                yield batch

        threading.Timer(0.3, lambda: setattr(wire, "cut_after", None)).start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RabbitmqSource, "read", breaking)
            lander.land(source)
        assert wire.connections >= 3
    assert lander.ids() == list(range(300))
    if kind != "stream":
        assert sum(b.repeated for b in seen) == 100, "the second micro-batch was committed and could not be acked"
        assert server.ready(queue) == 0


def test_part_of_a_micro_batch_was_handed_on_when_the_connection_broke(
    server: RabbitServer, queue: str, tmp_path: Path
) -> None:
    """It would come again beside itself: the run stops, bronze drops what was not committed, the next run has it."""
    server.publish(queue, [json.dumps({"id": n, "text": "x" * 1_000_000}).encode() for n in range(30)], ids=False)
    lander = Lander(tmp_path, stream(queue))
    with wire_to(server.port, cut_after=25_000_000) as wire, pytest.raises(UnavailableError):
        lander.land(open_source(server, port=wire.port))
    lander.land(open_source(server))
    assert lander.ids() == list(range(30))


@pytest.mark.soak
def test_a_server_that_restarts_half_way(server: RabbitServer, tmp_path: Path) -> None:
    """Persistent messages survive it; what was committed is not committed again."""
    landers = {}
    for kind in ("classic", "quorum"):
        server.declare(f"restarted {kind}", kind)
        server.publish(f"restarted {kind}", records(0, 300))
        landers[kind] = Lander(tmp_path / kind, stream(f"restarted {kind}", max_messages=100))
    patient = Policy(attempts=60, timeout=5, silence=4, first_wait=0.5, longest_wait=0.5)
    sources = {kind: open_source(server, resilience=patient) for kind in landers}
    reads = {kind: sources[kind].read(landers[kind].stream, None) for kind in landers}
    first = {kind: next(read) for kind, read in reads.items()}
    server.stop()
    server.start()
    for kind, source in sources.items():
        source.acknowledge(landers[kind].stream, first[kind].position or {})
        rest = []
        for batch in reads[kind]:
            rest.append(batch)
            source.acknowledge(landers[kind].stream, batch.position or {})
        assert sorted(ids([first[kind], *rest])) == list(range(300))
        assert sum(b.repeated for b in rest) == 100


def test_errors_say_what_to_do_and_no_secret(server: RabbitServer, queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRONG", "not the password either")
    name = "localhost"
    cases: list[tuple[dict[str, Any], type[EtlError], str]] = [
        ({"password": {"env": "WRONG"}}, CredentialsRejectedError, "user and password"),
        ({"user": "limited"}, CredentialsRejectedError, "grant the user"),
        ({"vhost": "no_such"}, CredentialsRejectedError, "vhost"),
        ({"host": "no-such-host.invalid"}, UnavailableError, "host"),
        ({"port": 1}, UnavailableError, "server runs"),
        ({"tls": True, "host": name}, ConfigurationError, "`port`"),
        ({"tls": True, "host": name, "port": server.tls_port}, ConfigurationError, "ca_file"),
        ({"tls": True, "ca_file": "no_such.pem"}, ConfigurationError, "ca_file"),
    ]
    for settings, kind, fix in cases:
        source = open_source(server, **settings)
        for attempt in (
            lambda s=source: list(s.read(stream(queue), None)),
            lambda s=source: s.read_schema(stream(queue)),
        ):
            with pytest.raises(kind) as caught:
                attempt()
            assert fix in caught.value.fix
            assert caught.value.where
            for secret in (PASSWORD, "not the password either"):
                assert secret not in f"{caught.value!r} {caught.value} {source!r}"
    trusted = open_source(server, tls=True, host=name, port=server.tls_port, ca_file=str(server.authority))
    assert trusted.ping()


def test_a_server_that_refuses_stalls_or_hangs_up_is_not_an_empty_queue(server: RabbitServer, queue: str) -> None:
    server.publish(queue, records(0, 500))
    for fault in ({"refuse": True}, {"stall_after": 0}, {"stall_after": 8000}, {"cut_after": 8000}):
        with wire_to(server.port, **fault) as wire:
            quick = Policy(attempts=2, timeout=0.5, silence=0.5, first_wait=0.01, deadline=1)
            with pytest.raises(UnavailableError):
                list(open_source(server, port=wire.port, resilience=quick).read(stream(queue), None))
    assert ids(consume(open_source(server), stream(queue))) == list(range(500)), "nothing of it was lost"


def test_a_queue_that_is_deleted_while_it_is_read(server: RabbitServer, queue: str) -> None:
    server.publish(queue, records(0, 10))
    what = stream(queue, max_messages=10, idle_seconds=20)
    batches = open_source(server).read(what, None)
    next(batches)
    with server.connect() as other:
        other.channel().queue_delete(queue)
    with pytest.raises(NotFoundError, match=queue):
        next(batches)


def test_what_a_stream_queue_lost_to_retention_is_said(
    server: RabbitServer, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"{queue} kept"
    server.declare(name, "stream")
    server.publish(name, records(0, 10))
    what = stream(name, idle_seconds=0.5)
    (batch,) = consume(open_source(server), what)
    assert batch.data.column("_seq").to_pylist() == list(range(10))
    with caplog.at_level(logging.WARNING):
        (again,) = consume(open_source(server), what, {"offset": 6})
        assert ids([again]) == [7, 8, 9]
        assert "retention" not in caplog.text
    assert consume(open_source(server), stream(name, idle_seconds=0.5, start="next")) == []
    assert ids(consume(open_source(server), stream(name, idle_seconds=0.5, start=8))) == [8, 9]


def test_depth_is_told_cheaply_and_looking_takes_nothing(server: RabbitServer, queue: str) -> None:
    server.declare(f"{queue} stream", "stream")
    server.declare(f"{queue} quorum", "quorum")
    server.publish(f"{queue} quorum", records(0, 7))
    source = open_source(server)
    for _ in range(3):
        time.sleep(0.1)
        found = source.estimate(stream(f"{queue} quorum"), None)
        assert found is not None
        assert found.rows == 7
        assert source.latest(stream(f"{queue} quorum")) == {"waiting": 7}
        source.read_schema(stream(f"{queue} quorum"))
    assert source.latest(stream(f"{queue} stream")) is None
    (batch,) = consume(source, stream(f"{queue} quorum"))
    assert not any(batch.data.column("_redelivered").to_pylist())


def test_captures_are_refused(server: RabbitServer, queue: str) -> None:
    what = Stream("s", RabbitmqOptions(queue=queue), Incremental(cursor="id"))
    with pytest.raises(ConfigurationError, match="neither a cursor"):
        list(open_source(server).read(what, None))
    assert "TEST_RABBITMQ_PASSWORD" in os.environ
