"""A private Kafka: librdkafka's own mock cluster, real TCP brokers on loopback, in a process of its own.

What it does not have is in docs/connectors/kafka.md. `python -m tests.servers.kafka` is the process; it takes commands,
one per line, and answers each with one line.
"""

from __future__ import annotations

import atexit
import functools
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.servers.proxy import Wire, wire_to

FETCH, METADATA, OFFSET_COMMIT = 1, 3, 8
"""Numbers of the requests that a test may have answered with errors."""


@dataclass
class Kafka:
    """A running cluster of one broker."""

    process: subprocess.Popen[str]
    port: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def tell(self, *command: Any) -> None:
        """Run a command: `topic NAME PARTITIONS`, `down`, `up`, `slow MILLISECONDS`, `errors REQUEST CODE...`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.lock:
            self.process.stdin.write(" ".join(map(str, command)) + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "0\n", command

    def topic(self, name: str, partitions: int = 1) -> str:
        self.tell("topic", name, partitions)
        return name

    def produce(self, topic: str, messages: Iterable[tuple[Any, ...]], **settings: Any) -> None:
        """Send (value, key, partition, headers) tuples; everything but the value may be left out."""
        from confluent_kafka import Producer

        failed: list[Any] = []
        producer = Producer(
            {"bootstrap.servers": self.servers, "linger.ms": 5, "queue.buffering.max.messages": 2_000_000, **settings}
        )
        for value, *rest in messages:
            key, partition, headers = [*rest, None, None, None][:3]
            producer.produce(
                topic, value, key=key, partition=-1 if partition is None else partition, headers=headers,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )  # fmt: skip
            producer.poll(0)
        assert producer.flush(30) == 0, "not all messages were delivered"
        assert not failed, failed[0]


@contextmanager
def running_kafka() -> Iterator[Kafka]:
    """Start a cluster without topics."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers.kafka"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield Kafka(process, int(process.stdout.readline().rpartition(":")[2]))
    finally:
        process.kill()
        process.wait(10)


@functools.cache
def shared_kafka() -> Kafka:
    """Return a cluster that all tests of this process share, each with topics of its own."""
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(running_kafka())


@contextmanager
def kafka_wire(kafka: Kafka, **settings: Any) -> Iterator[Wire]:
    """Give a wire to the broker that clients also use after they were told where the broker is.

    A broker says its own address in its answers; behind the wire stands a second one that puts the wire's in its place.
    """
    there = socket.create_server(("127.0.0.1", 0))
    with wire_to(there.getsockname()[1], **settings) as wire:
        old, new = (b"127.0.0.1" + port.to_bytes(4, "big") for port in (kafka.port, wire.port))
        threading.Thread(target=_rewrite, args=(there, kafka.port, old, new), daemon=True).start()
        try:
            yield wire
        finally:
            with suppress(OSError):
                there.shutdown(socket.SHUT_RDWR)
            there.close()


def _rewrite(listener: socket.socket, port: int, old: bytes, new: bytes) -> None:
    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(1 << 20):
                sink.sendall(chunk.replace(old, new))
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.socket()
            if server.connect_ex(("127.0.0.1", port)):
                client.close()
                continue
            for ends in ((client, server), (server, client)):
                threading.Thread(target=copy, args=ends, daemon=True).start()


@functools.cache
def refusing_broker() -> str:
    """Return `host:port` of a broker that speaks SASL PLAIN and refuses every password, until the process ends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_refuse, args=(client,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _refuse(client: socket.socket) -> None:
    """Answer what comes before the password in version 0 of the protocol, and the password with error 58."""

    def text(value: str) -> bytes:
        return len(value).to_bytes(2, "big") + value.encode()

    with client, suppress(OSError), client.makefile("rb") as stream:
        while size := stream.read(4):
            request = stream.read(int.from_bytes(size, "big"))
            api, version = struct.unpack(">hh", request[:4])
            if api == _API_VERSIONS:
                known = b"".join(struct.pack(">hhh", *range_) for range_ in _KNOWN)
                answer = struct.pack(">hi", 0 if version == 0 else _UNSUPPORTED_VERSION, len(_KNOWN)) + known
            elif api == _SASL_HANDSHAKE:
                answer = struct.pack(">hi", 0, 1) + text("PLAIN")
            else:
                answer = struct.pack(">h", _AUTHENTICATION_FAILED) + text("Authentication failed") + bytes(4)
            client.sendall(struct.pack(">i", len(answer) + 4) + request[4:8] + answer)


_API_VERSIONS, _SASL_HANDSHAKE, _SASL_AUTHENTICATE = 18, 17, 36
_UNSUPPORTED_VERSION, _AUTHENTICATION_FAILED = 35, 58
_KNOWN = ((_API_VERSIONS, 0, 0), (_SASL_HANDSHAKE, 0, 1), (_SASL_AUTHENTICATE, 0, 0), (METADATA, 0, 1))


def _serve() -> None:
    """Hold the cluster, and obey standard input until it ends."""
    import ctypes
    from ctypes import POINTER, byref, c_char_p, c_int, c_int16, c_size_t, c_void_p
    from pathlib import Path

    import confluent_kafka

    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    lib = ctypes.CDLL(str(next(folder.glob("librdkafka*.so*"))))

    def call(name: str, result: Any, types: Sequence[Any], *args: Any) -> Any:
        function = getattr(lib, name)
        function.restype, function.argtypes = result, types
        return function(*args)

    text = ctypes.create_string_buffer(512)
    conf = call("rd_kafka_conf_new", c_void_p, [])
    client = call("rd_kafka_new", c_void_p, [c_int, c_void_p, c_char_p, c_size_t], 0, conf, text, ctypes.sizeof(text))
    cluster = call("rd_kafka_mock_cluster_new", c_void_p, [c_void_p, c_int], client, 1)
    call("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [c_void_p, c_int], cluster, 100)
    print(call("rd_kafka_mock_cluster_bootstraps", c_char_p, [c_void_p], cluster).decode(), flush=True)
    for line in sys.stdin:
        command, *args = line.split()
        if command == "topic":
            types = [c_void_p, c_char_p, c_int, c_int]
            code = call("rd_kafka_mock_topic_create", c_int, types, cluster, args[0].encode(), int(args[1]), 1)
        elif command in {"down", "up"}:
            code = call(f"rd_kafka_mock_broker_set_{command}", c_int, [c_void_p, c_int], cluster, 1)
        elif command == "slow":
            code = call("rd_kafka_mock_broker_set_rtt", c_int, [c_void_p, c_int, c_int], cluster, 1, int(args[0]))
        elif command == "errors":
            codes = (c_int * (len(args) - 1))(*map(int, args[1:]))
            types = [c_void_p, c_int16, c_size_t, POINTER(c_int)]
            name = "rd_kafka_mock_push_request_errors_array"
            call(name, None, types, cluster, int(args[0]), len(codes), ctypes.cast(byref(codes), POINTER(c_int)))
            code = 0
        else:
            raise ValueError(line)
        print(code, flush=True)


if __name__ == "__main__":
    _serve()
