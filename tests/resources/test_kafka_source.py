"""Reading Kafka: every offset once, whatever happens between; and no silence taken for an end."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from confluent_kafka import Consumer, TopicPartition

from etl_resources import kafka as connection
from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EtlError,
    NotFoundError,
    RowsNotConservedError,
    UnavailableError,
)
from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from etl_resources.source import Batch, Incremental, Stream
from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions
from tests.forks import KILLED, shared_forks
from tests.resources.kafka_landing import land, land_topic, rows_of
from tests.servers.kafka import FETCH, OFFSET_COMMIT, Kafka, kafka_wire, refusing_broker, running_kafka, shared_kafka
from tests.servers.proxy import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kafka() -> Kafka:
    return shared_kafka()


@pytest.fixture
def topic(kafka: Kafka, request: pytest.FixtureRequest) -> str:
    return kafka.topic(request.node.name.replace("[", ".").replace("]", ""), 3)


def source(servers: Kafka | int, **policy: Any) -> KafkaSource:
    address = servers.servers if isinstance(servers, Kafka) else f"127.0.0.1:{servers}"
    return KafkaSource(
        servers=address, security="plaintext", resilience=Policy(**{"timeout": 5.0, "silence": 3.0, **policy})
    )


def stream(topic: str, **options: Any) -> Stream:
    return Stream("events", KafkaStreamOptions(type="kafka", topic=topic, **options))


def numbers(first: int, rows: int, partitions: int = 3) -> Iterator[tuple[Any, ...]]:
    return ((b'{"n": %d}' % n, f"k{n}", n % partitions) for n in range(first, first + rows))


def values(batches: list[Batch]) -> list[int]:
    return sorted(n for b in batches if b.data.num_rows for n in b.data.column("n").to_pylist())


def test_offsets_keys_headers_and_time_are_columns(kafka: Kafka, topic: str) -> None:
    before = time.time()
    headers = [("trace", b"\x01"), ("trace", b"\x02"), ("none", None)]
    kafka.produce(topic, [(b'{"n": 1}', "k", 2, headers)])
    [batch] = source(kafka).read(stream(topic), None)
    [row] = batch.data.to_pylist()
    assert before - 1 < row.pop("kafka_timestamp").timestamp() < time.time() + 1
    assert row == {
        "n": 1, "kafka_topic": topic, "kafka_partition": 2, "kafka_offset": 0, "kafka_key": "k",
        "kafka_headers": [{"name": n, "value": v} for n, v in headers], "_origin": f"{topic}/2",
    }  # fmt: skip
    assert batch.position is not None
    assert batch.position["topics"] == {topic: {"0": 0, "1": 0, "2": 1}}


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_messages_are_read(kafka: Kafka, topic: str, codec: str) -> None:
    kafka.produce(topic, numbers(0, 500), **{"compression.type": codec})
    assert values(list(source(kafka).read(stream(topic), None))) == list(range(500))


def test_a_tombstone_deletes_the_row_of_its_key(kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, [(b'{"id": 7, "n": 1}', "7", 0), (None, "7", 0)])
    [batch] = source(kafka).read(stream(topic, key_column="id", metadata=()), None)
    assert batch.data.to_pylist() == [
        {"id": 7, "n": 1, "_op": "read", "_origin": f"{topic}/0"},
        {"id": 7, "n": None, "_op": "delete", "_origin": f"{topic}/0"},
    ]


def test_poison_messages_keep_their_bytes_and_stop_nobody(kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, [(b'{"n": 1}', "a", 0), (b"\x00poison", "b", 0), (b'{"n": 2}', b"\xff", 0), (b'{"n": 3}',)])
    [batch] = source(kafka).read(stream(topic), None)
    assert values([batch]) == [1, 3]
    assert batch.rows_read == 4
    assert batch.unreadable is not None
    found = {row["line"]: (row["raw"], row["origin"]) for row in batch.unreadable.to_pylist()}
    assert found == {1: (b"\x00poison", f"{topic}/0"), 2: (b'{"n": 2}', f"{topic}/0")}
    [batch] = source(kafka).read(stream(topic, key_format="bytes"), None)
    assert values([batch]) == [1, 2, 3]


def test_a_run_ends_where_the_topic_ended_when_it_began(kafka: Kafka, topic: str) -> None:
    """A producer that is faster than the lake cannot keep a run from ending."""
    kafka.produce(topic, numbers(0, 100))
    batches = source(kafka).read(stream(topic, max_messages=50), None)
    first = next(batches)
    kafka.produce(topic, numbers(100, 60))
    rest = list(batches)
    assert values([first, *rest]) == list(range(100))
    assert values(list(source(kafka).read(stream(topic), rest[-1].position))) == list(range(100, 160))


def test_micro_batches_ask_for_commits_by_count(kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, numbers(0, 250))
    batches = list(source(kafka).read(stream(topic, max_messages=100), None, batch_rows=60))
    assert [(b.data.num_rows, b.commit) for b in batches if b.commit][-1][1]
    commits = [b.rows_read for b in batches if b.commit]
    assert commits == [100, 200, 250]
    assert json.loads(json.dumps(batches[-1].position)) == batches[-1].position


def test_with_idle_seconds_a_run_reads_on(kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, numbers(0, 10))
    later = threading.Timer(0.3, lambda: kafka.produce(topic, numbers(10, 10)))
    later.start()
    batches = list(source(kafka).read(stream(topic, idle_seconds=1.2, max_seconds=0.1), None))
    later.join()
    assert values(batches) == list(range(20))
    assert len(batches) > 1, "after max_seconds a micro-batch is not kept back"


def test_run_seconds_end_a_run_that_never_falls_silent(kafka: Kafka, topic: str) -> None:
    """What it has not come to by then, the next run reads."""
    kafka.produce(topic, numbers(0, 10))
    found: list[Batch] = []
    for _ in range(10):
        began, since = time.monotonic(), found[-1].position if found else None
        found += source(kafka).read(stream(topic, idle_seconds=60, run_seconds=0.4), since)
        assert time.monotonic() - began < 5
        if len(values(found)) >= 10:
            break
    assert values(found) == list(range(10))


def test_latest_begins_at_the_end_and_remembers_it(kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, numbers(0, 10))
    [empty] = source(kafka).read(stream(topic, start="latest"), None)
    assert empty.data.num_rows == 0
    kafka.produce(topic, numbers(10, 5))
    assert values(list(source(kafka).read(stream(topic, start="latest"), empty.position))) == list(range(10, 15))


def test_new_partitions_and_new_topics_of_a_pattern_are_read_from_their_beginning(kafka: Kafka) -> None:
    kafka.topic("growing.a", 2)
    kafka.produce("growing.a", numbers(0, 10, 2))
    wanted = stream("^growing\\.", start="latest")
    [first] = source(kafka).read(stream("^growing\\."), None)
    assert first.position is not None
    kafka.topic("growing.b", 1)
    kafka.produce("growing.b", numbers(100, 5, 1))
    assert values(list(source(kafka).read(wanted, first.position))) == list(range(100, 105))
    grown = {**first.position, "topics": {"growing.a": {"0": 5}}}  # as if partition 1 had not been there
    assert values(list(source(kafka).read(wanted, grown))) == [1, 3, 5, 7, 9, *range(100, 105)]


def test_what_retention_took_is_an_error_that_counts_it(kafka: Kafka) -> None:
    kafka.topic("retention", 1)
    kafka.produce("retention", ((b'{"n": %d, "x": "%s"}' % (n, b"x" * 1000),) for n in range(8000)))
    since = {"topics": {"retention": {"0": 100}}}
    low = source(kafka)
    with pytest.raises(RowsNotConservedError, match="lost offsets 100 to ") as caught:
        list(low.read(stream("retention"), since))
    lost = int(str(caught.value).partition("(")[2].split()[0])
    batches = list(low.read(stream("retention", on_lost="continue"), since))
    assert values(batches) == list(range(100 + lost, 8000))
    assert batches[-1].rows_read == 8000 - 100 - lost
    assert batches[-1].position is not None
    assert batches[-1].position["lost"] == lost > 0


def test_what_retention_takes_while_it_is_read_is_an_error_too(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PREFETCH_KB", 200)
    kafka.topic("overtaken", 1)

    def padded(first: int) -> Iterator[tuple[bytes]]:
        return ((b'{"n": %d, "x": "%s"}' % (n, b"x" * 1000),) for n in range(first, first + 4000))

    def read(**options: Any) -> tuple[Iterator[Batch], Batch]:
        kafka.produce("overtaken", padded(next_number[0]))
        next_number[0] += 4000
        batches = source(kafka).read(stream("overtaken", max_messages=100, **options), since[0])
        first = next(batches)
        kafka.produce("overtaken", padded(next_number[0]))
        next_number[0] += 4000
        return batches, first

    next_number, since = [0], [None]
    batches, first = read()
    with pytest.raises(RowsNotConservedError, match="lost offsets"):
        list(batches)
    since = [first.position]  # type: ignore[list-item]
    batches, first = read(on_lost="continue")
    seen = [first, *batches]
    assert sum(b.data.num_rows for b in seen) == seen[-1].rows_read
    assert seen[-1].position is not None
    assert 100 + seen[-1].rows_read + seen[-1].position["lost"] == seen[-1].position["topics"]["overtaken"]["0"]


def test_a_topic_that_was_made_anew_is_no_topic_that_has_nothing_new(kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, numbers(0, 3))
    with pytest.raises(RowsNotConservedError, match="made anew"):
        list(source(kafka).read(stream(topic), {"topics": {topic: {"0": 50}}}))


def test_a_missing_topic_is_named_with_those_near(kafka: Kafka) -> None:
    kafka.topic("page.views")
    with pytest.raises(NotFoundError, match=r"did you mean page\.views"):
        list(source(kafka).read(stream("pageviews"), None))


def test_a_capture_is_refused(kafka: Kafka, topic: str) -> None:
    with pytest.raises(ConfigurationError, match="leave `capture` out"):
        list(source(kafka).read(Stream("s", stream(topic).options, Incremental(cursor="x")), None))


def test_latest_and_estimate_tell_what_is_there(kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, numbers(0, 9))
    assert source(kafka).latest(stream(topic)) == {"topics": {topic: {"0": 3, "1": 3, "2": 3}}}
    assert source(kafka).estimate(stream(topic), {"topics": {topic: {"0": 3, "1": 1, "2": 3}}}).rows == 2
    assert source(kafka).read_schema(stream(topic, metadata=("key",))).names == ["n", "kafka_key"]


def test_the_group_learns_what_was_committed_and_is_never_asked(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    kafka.produce(topic, numbers(0, 30))
    land(tmp_path, source(kafka), stream(topic, group="lag"))
    assert committed(kafka, "lag", topic) == [10, 10, 10]
    other = Consumer({"bootstrap.servers": kafka.servers, "group.id": "lag"})
    other.commit(offsets=[TopicPartition(topic, p, 0) for p in range(3)], asynchronous=False)
    other.close()
    kafka.produce(topic, numbers(30, 3))
    assert land(tmp_path, source(kafka), stream(topic, group="lag")).account.read == 3


def committed(kafka: Kafka, group: str, topic: str) -> list[int]:
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": group})
    try:
        return [at.offset for at in consumer.committed([TopicPartition(topic, p) for p in range(3)], timeout=5)]
    finally:
        consumer.close()


def test_a_member_of_the_group_that_joins_takes_nothing_away(
    kafka: Kafka, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A rebalance of the group does not reach the run; only what it tells the group is refused, and logged."""
    kafka.produce(topic, numbers(0, 100))
    joined = Consumer({"bootstrap.servers": kafka.servers, "group.id": "shared", "auto.offset.reset": "earliest"})
    reader = source(kafka)
    wanted = stream(topic, group="shared", max_messages=40)
    batches: list[Batch] = []
    for batch in reader.read(wanted, None):
        if not batches:
            joined.subscribe([topic])
            deadline = time.monotonic() + 10
            while not joined.assignment() and time.monotonic() < deadline:
                joined.poll(0.1)
            assert joined.assignment()
        batches.append(batch)
        assert batch.position is not None
        reader.acknowledge(wanted, batch.position)
    joined.close()
    assert values(batches) == list(range(100))
    assert "did not take" in caplog.text


def test_a_group_that_cannot_be_told_stops_nobody(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    kafka.produce(topic, numbers(0, 5))
    kafka.tell("errors", OFFSET_COMMIT, *[30] * 5)  # GROUP_AUTHORIZATION_FAILED
    assert land(tmp_path, source(kafka), stream(topic, group="forbidden")).account.read == 5


def test_killed_between_commit_and_acknowledgement_nothing_is_lost_or_doubled(
    kafka: Kafka, topic: str, tmp_path: Path
) -> None:
    kafka.produce(topic, numbers(0, 250))
    where = {"lake": str(tmp_path), "servers": kafka.servers, "topic": topic}
    assert shared_forks().start(land_topic, env={"ETL_KILL_AT": "bronze:before_acknowledge"}, **where).wait() == KILLED
    assert len(rows_of(tmp_path, "events")) == 100
    assert committed(kafka, "etl-events", topic) == [-1001] * 3, "killed before the group was told"
    kafka.produce(topic, numbers(250, 10))
    land(tmp_path, source(kafka), stream(topic))
    assert sorted(row["n"] for row in rows_of(tmp_path, "events")) == list(range(260))


def test_cut_connections_are_made_again_within_the_run(kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, numbers(0, 10_000))
    with kafka_wire(kafka) as wire:
        batches = []
        for n, batch in enumerate(source(wire.port).read(stream(topic), None, batch_rows=1000)):
            if n in {0, 3, 7}:
                wire.break_now()
            batches.append(batch)
    assert values(batches) == list(range(10_000))
    assert batches[-1].rows_read == 10_000


def test_a_broker_that_stalls_is_an_error_and_the_next_run_reads_on(
    kafka: Kafka, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs with a failure between them, held against what was sent."""
    monkeypatch.setattr(connection, "_PREFETCH_KB", 200)
    # In large batches the first one may be what the broker stalls in: none is whole, and nothing is landed.
    numbered = ((b'{"n": %d, "x": "%s"}' % (n, b"x" * 900), None, n % 3) for n in range(3_000))
    kafka.produce(topic, numbered, **{"batch.size": 100_000})
    wanted = stream(topic, max_messages=250)
    for _ in range(5):  # on a slow machine the silence may come before the first batch
        began = time.monotonic()
        with kafka_wire(kafka, stall_after=1_500_000) as wire, pytest.raises(UnavailableError, match="no message of"):
            land(tmp_path, source(wire.port, silence=1), wanted)
        assert time.monotonic() - began < 15, "also letting go of a silent broker takes no longer than silence"
        if any(tmp_path.glob("bronze/test/events/_delta_log/*.json")):
            break
    assert 0 < len(rows_of(tmp_path, "events")) < 3_000
    land(tmp_path, source(kafka), wanted)
    assert sorted(row["n"] for row in rows_of(tmp_path, "events")) == list(range(3_000))


def test_a_broker_that_goes_down_and_comes_back_is_waited_for(topic: str) -> None:
    with running_kafka() as own:
        own.topic(topic, 3)
        own.produce(topic, numbers(0, 5000))
        batches = source(own).read(stream(topic, max_messages=1000), None, batch_rows=500)
        seen = [next(batches)]
        own.tell("down")
        later = threading.Timer(0.5, lambda: own.tell("up"))
        later.start()
        seen += batches
        later.join()
        assert values(seen) == list(range(5000))
        own.tell("down")
        with pytest.raises(UnavailableError, match="Connection refused"):
            list(source(own, timeout=1).read(stream(topic), None))


def test_errors_that_pass_are_not_told(kafka: Kafka, topic: str) -> None:
    kafka.produce(topic, numbers(0, 100))
    kafka.tell("errors", FETCH, 7, 5, -1)  # REQUEST_TIMED_OUT, LEADER_NOT_AVAILABLE, UNKNOWN
    assert values(list(source(kafka).read(stream(topic), None))) == list(range(100))


def test_errors_that_last_are_told(topic: str) -> None:
    with running_kafka() as own:
        own.topic(topic, 1)
        own.produce(topic, numbers(0, 5, 1))
        own.tell("errors", FETCH, *[-1] * 50)
        with pytest.raises(UnavailableError, match="Unknown broker error"):
            list(source(own, silence=1).read(stream(topic), None))


def test_nobody_there_is_told_with_the_reason() -> None:
    with pytest.raises(UnavailableError, match="Connection refused"):
        source(free_port(), timeout=1).ping()
    unknown = KafkaSource(servers="no-such-host.invalid:9092", security="plaintext", resilience=Policy(timeout=0.5))
    with pytest.raises(UnavailableError, match="resolve 'no-such-host") as caught:
        list(unknown.read(stream("x"), None))
    assert "check the names in `servers`" in str(caught.value)


def test_a_wrong_password_is_said_to_be_wrong_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KAFKA_PASSWORD", "hunter2-hunter2")
    refused = KafkaSource(
        servers=refusing_broker(), security="sasl_plaintext", mechanism="PLAIN", user="someone",
        password=Secret(env="TEST_KAFKA_PASSWORD"),
    )  # fmt: skip
    with pytest.raises(CredentialsRejectedError) as caught:
        refused.ping()
    assert "hunter2" not in f"{caught.value}{caught.value!r}{refused!r}"
    with pytest.raises(ConfigurationError, match="needs `user` and `password`"):
        KafkaSource(servers="x:1", security="sasl_ssl").ping()


@pytest.fixture
def tls_broker(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A port that speaks TLS and then nothing, and the file with its authority's certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(client, server_side=True) as encrypted:
                    encrypted.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], str(tmp_path / "ca.pem")
    listener.close()


def test_a_certificate_that_is_not_trusted_is_refused(tls_broker: tuple[int, str]) -> None:
    """TLS is verified unless another protocol is asked for; with the authority's file the handshake is passed."""
    port, authority = tls_broker
    unknown = KafkaSource(servers=f"127.0.0.1:{port}", resilience=Policy(timeout=5))
    with pytest.raises(ConfigurationError, match="certificate verify failed") as caught:
        unknown.ping()
    assert "ca_file" in str(caught.value)
    trusted = KafkaSource(servers=f"127.0.0.1:{port}", ca_file=authority, resilience=Policy(timeout=1))
    with pytest.raises(EtlError) as other:
        trusted.ping()
    assert isinstance(other.value, UnavailableError)
