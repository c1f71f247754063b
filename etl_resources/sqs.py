"""How to reach Amazon SQS: settings and the client, and its errors as errors of this project's tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_resources import aws
from etl_resources.resilience import Policy

if TYPE_CHECKING:
    from botocore.client import BaseClient

LONGEST_POLL = 20
"""Seconds that SQS may keep a request for messages waiting."""
_ADVICE = aws.Advice(
    absent="check `queue` and `region`",
    refused="check the keys; they need ReceiveMessage, DeleteMessage, ChangeMessageVisibility",
)


class SqsConnection(aws.AwsSettings, dg.ConfigurableResource):
    """Where the queues are and how to log in; without keys, as the AWS libraries find them (role, profile)."""

    resilience: Policy = Policy()

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        return f"SQS at {self.endpoint or self.region}"

    @contextmanager
    def client(self, *, connections: int = 10, longest_poll: float = 0) -> Iterator[BaseClient]:
        """Give a client, which several threads may share; `longest_poll` is how long it may wait for messages (s).

        Raises:
            ConfigurationError: a variable is not set, or the profile or region is none.
        """
        # An answer to a long poll may take its time; silence is what comes on top of it.
        silence, timeout = self.resilience.silence + longest_poll, self.resilience.timeout
        with self.service(
            "sqs", extra="aws", where=self.address, advice=_ADVICE, timeout=timeout, silence=silence,
            connections=connections,
        ) as made:  # fmt: skip
            yield made

    def queue_url(self, sqs: Any, queue: str) -> str:
        """Return the URL of a queue; a URL is one already.

        Raises:
            NotFoundError, CredentialsRejectedError, UnavailableError: as their names say.
        """
        if re.match("https?://", queue):
            return queue

        def ask() -> str:
            with translated(f"queue {queue}, {self.address}"):
                return str(sqs.get_queue_url(QueueName=queue)["QueueUrl"])

        return self.resilience.call(ask)

    def ping(self) -> bool:
        """List a queue; raises as `queue_url`."""

        def ask() -> None:
            with translated(self.address):
                sqs.list_queues(MaxResults=1)

        with self.client() as sqs:
            self.resilience.call(ask)
        return True


def translated(where: str) -> AbstractContextManager[None]:
    """Run calls of the client, and nothing else, so that their errors come out as errors of the tree."""
    return aws.translated(where, _ADVICE)
