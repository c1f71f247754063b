"""How to reach Kafka brokers and a schema registry: settings and clients."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg
from pydantic import Field

from etl_resources.exceptions import ConfigurationError, UnavailableError
from etl_resources.extras import client
from etl_resources.kafka_errors import is_final, translate
from etl_resources.resilience import Policy
from etl_resources.secret import Secret

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, TopicPartition

    from etl_resources.kafka_registry import Registry

T = TypeVar("T")
_log = logging.getLogger(__name__)
_STEP = 1.0
_LAST_COMMITS = 3.0
_PREFETCH_KB = 8192


class KafkaConnection(dg.ConfigurableResource):
    """Where the brokers are and how to log in. Nothing connects before it is used."""

    servers: str = Field(description="`host:port`, several separated by commas; some of the brokers are enough.")
    security: str = Field(
        default="ssl",
        pattern="^(ssl|sasl_ssl|sasl_plaintext|plaintext)$",
        description="ssl, sasl_ssl, sasl_plaintext or plaintext; the last two only for brokers on the same machine.",
    )
    mechanism: str = Field(
        default="SCRAM-SHA-512",
        pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$",
        description="SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
    )
    user: str | None = Field(default=None, description="SASL: name of the user.")
    password: Secret | None = Field(default=None, description="SASL: {env: NAME}.")
    ca_file: str | None = Field(default=None, description="File with the authority's certificate; the system's else.")
    certificate_file: str | None = Field(default=None, description="File with the client's own certificate.")
    key_file: str | None = Field(default=None, description="File with the client's own key.")
    key_password: Secret | None = Field(default=None, description="Of the client's own key: {env: NAME}.")
    registry: str | None = Field(default=None, description="URL of the schema registry, for Avro and Protobuf.")
    registry_user: str | None = Field(default=None, description="Name of the user, or API key, at the registry.")
    registry_password: Secret | None = Field(default=None, description="At the registry: {env: NAME}.")
    registry_ca_file: str | None = Field(default=None, description="As `ca_file`, for the registry.")
    resilience: Policy = Policy()

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        return f"Kafka at {self.servers}" + (f" as {self.user}" if self.user else "")

    def _settings(self) -> dict[str, Any]:
        policy = self.resilience
        if self.security.startswith("sasl") and not (self.user and self.password):
            raise ConfigurationError(f"security {self.security} needs `user` and `password`", where=self.address)
        settings: dict[str, Any] = {
            "bootstrap.servers": self.servers, "security.protocol": self.security, "client.id": "etl",
            "ssl.ca.location": self.ca_file, "ssl.certificate.location": self.certificate_file,
            "ssl.key.location": self.key_file, "ssl.key.password": _revealed(self.key_password),
            "socket.connection.setup.timeout.ms": max(1000, round(policy.timeout * 1000)),
            # A request that gets no answer is one that lost its connection: a new one is made.
            "socket.timeout.ms": max(1000, round(min(policy.silence, 60) * 1000)),
            "socket.keepalive.enable": True, "reconnect.backoff.ms": 100,
            "reconnect.backoff.max.ms": max(100, round(policy.longest_wait * 1000)),
        }  # fmt: skip
        if self.security.startswith("sasl"):
            settings |= {
                "sasl.mechanisms": self.mechanism,
                "sasl.username": self.user,
                "sasl.password": _revealed(self.password),
            }
        return {name: value for name, value in settings.items() if value is not None}

    @contextmanager
    def consumer(self, group: str) -> Iterator[Client]:
        """Give a consumer that is no member of its group: it reads what it is assigned, from where it is told.

        Raises:
            UnavailableError, CredentialsRejectedError, ConfigurationError: when it is used.
        """
        library = client("confluent_kafka", extra="kafka")
        seen = Client(self)
        settings = self._settings() | {
            "group.id": group, "enable.auto.commit": False, "enable.auto.offset.store": False,
            "auto.offset.reset": "error", "enable.partition.eof": True, "isolation.level": "read_committed",
            "allow.auto.create.topics": False, "check.crcs": True, "error_cb": seen.note,
            # The lake may take its time; and what is fetched ahead has to fit into memory.
            "max.poll.interval.ms": 86_400_000, "queued.max.messages.kbytes": _PREFETCH_KB,
            "queued.min.messages": 10_000,
            "fetch.queue.backoff.ms": 50, "log_level": 2, "on_commit": seen.answered,
        }  # fmt: skip
        try:
            seen.consumer = library.Consumer(settings, logger=_log)
        except library.KafkaException as error:
            raise translate(error.args[0], self.address) from None
        try:
            yield seen
        finally:
            # Let go of and not closed: closing waits for answers from brokers that may have gone, without an end; it
            # is only needed to leave a group, and this is no member of one.
            del seen.consumer

    def ping(self) -> bool:
        """Log in, ask which topics there are, and hang up; raises as `consumer`."""
        with self.consumer("etl-ping") as consumer:
            consumer.ask(lambda c, timeout: c.list_topics(timeout=timeout))
        return True

    def schemas(self) -> Registry:
        """Return the client of the schema registry.

        Raises:
            ConfigurationError: there is none.
        """
        from etl_resources.kafka_registry import Registry

        if self.registry is None:
            raise ConfigurationError(
                "Avro and Protobuf need a schema registry", where=self.address, fix="give the connection `registry`"
            )
        login = (self.registry_user, self.registry_password.reveal()) if self.registry_password else None
        return Registry(self.registry, login, self.registry_ca_file, self.resilience)


class Client:
    """A consumer and what its client library has said in the background."""

    consumer: Consumer

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self.last: KafkaError | None = None
        self._final: KafkaError | None = None
        self._unanswered = 0

    def note(self, error: KafkaError) -> None:
        """Take what the library tells in the background, while it goes on trying by itself."""
        # That all brokers are down says less than why the last of them is.
        if self.last is None or _telling(error) >= _telling(self.last):
            self.last = error
        if is_final(error):
            self._final = error

    def check(self) -> None:
        """Raise what the library has found to be final."""
        if self._final is not None:
            raise translate(self._final, self._connection.address)

    def ask(self, question: Callable[[Consumer, float], T]) -> T:
        """Return the answer to a question to the brokers (called with the consumer and a timeout in seconds).

        Raises:
            UnavailableError: there was none in `resilience.timeout` seconds.
            CredentialsRejectedError, ConfigurationError: the client was not let in.
            NotFoundError: the topic or partition is not there.
        """
        library = client("confluent_kafka", extra="kafka")
        deadline = time.monotonic() + self._connection.resilience.timeout
        while True:
            left = deadline - time.monotonic()
            try:
                return question(self.consumer, max(0.1, min(_STEP, left)))
            except library.KafkaException as failed:
                error: KafkaError = failed.args[0]
                self.consumer.consume(1, 0)  # lets the library say what it has found
                self.check()
                told = translate(error, self._connection.address)
                if not told.transient:
                    raise told from None
                if left <= _STEP:
                    raise self.away("no answer", after=self._connection.resilience.timeout) from None

    def commit(self, following: Mapping[tuple[str, int], int]) -> None:
        """Tell the group the next offsets, without waiting for its answer."""
        from confluent_kafka import TopicPartition

        if following:
            at = [TopicPartition(topic, number, offset) for (topic, number), offset in following.items()]
            self.consumer.commit(offsets=at, asynchronous=True)
            self._unanswered += 1

    def finish_commits(self) -> None:
        """Wait for the answers to commits, a few seconds at most: the group is only told, it decides nothing."""
        self.consumer.unassign()
        deadline = time.monotonic() + _LAST_COMMITS
        while self._unanswered > 0 and time.monotonic() < deadline:
            self.consumer.consume(1, 0.05)

    def answered(self, error: KafkaError | None, offsets: Sequence[TopicPartition]) -> None:
        """Take the answer to a commit."""
        self._unanswered -= 1
        # Others read under the same name, most likely; only the view of the lag is wrong then.
        if error is not None:
            _log.warning("%s: the consumer group did not take %s: %s", self._connection.address, offsets[:3], error)

    def away(self, what: str, *, after: float) -> UnavailableError:
        """Return the error that says that the brokers are silent, and why as far as is known."""
        told = translate(self.last, self._connection.address) if self.last is not None else None
        why = f": {told.what}" if told else ""
        return UnavailableError(
            f"{what} from the brokers for {after:g} seconds{why}", where=self._connection.address,
            fix=(told.fix if told else "") or "check `servers` and `security`, and that the brokers run",
        )  # fmt: skip


def _telling(error: KafkaError) -> int:
    return {"_ALL_BROKERS_DOWN": 0, "_TRANSPORT": 1}.get(error.name(), 2)


def _revealed(secret: Secret | None) -> str | None:
    return secret.reveal() if secret else None
