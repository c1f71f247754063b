"""Private queues: the SQS of moto, in a process of its own.

It looks at every message of a queue for each that is sent: a thousand are sent in seconds, ten thousand are not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.servers.process import shared
from tests.servers.s3 import S3, running_s3

KEYS = {"access_key_id": {"env": "TEST_S3_KEY"}, "secret_access_key": {"env": "TEST_S3_SECRET"}}


@dataclass(frozen=True)
class Sqs:
    """`settings` are what a source needs to reach it."""

    server: S3

    @property
    def settings(self) -> dict[str, Any]:
        return {"region": "us-east-1", "endpoint": self.server.options["endpoint"], **KEYS}

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def client(self) -> Any:
        return _client(self.server.options["endpoint"])

    def queue(self, name: str, **attributes: str) -> str:
        """Make a queue, FIFO if its name ends so; return its name."""
        fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "false"} if name.endswith(".fifo") else {}
        self.client.create_queue(QueueName=name, Attributes={**fifo, **attributes})
        return name

    def send(self, queue: str, bodies: Iterable[str], **more: Any) -> list[str]:
        """Send messages, ten at a time; return their ids. `group` is needed by FIFO queues."""
        url = self.url(queue)
        group = more.pop("group", None)
        entries = []
        for n, body in enumerate(bodies):
            fifo = {"MessageGroupId": group, "MessageDeduplicationId": f"{group}-{n}-{body}"[:128]} if group else {}
            entries.append({"Id": str(n % 10), "MessageBody": body, **fifo, **more})
        ids = []
        for n in range(0, len(entries), 10):
            done = self.client.send_message_batch(QueueUrl=url, Entries=entries[n : n + 10])
            ids += [sent["MessageId"] for sent in done["Successful"]]
        assert len(ids) == len(entries)
        return ids

    def url(self, queue: str) -> str:
        return str(self.client.get_queue_url(QueueName=queue)["QueueUrl"])

    def depth(self, queue: str) -> tuple[int, int]:
        """Return how many messages wait, and how many are invisible."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url(queue), AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])


MANY = 1000
"""More messages than this take too long to be sent."""


@functools.cache
def _client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "sqs", region_name="us-east-1", endpoint_url=endpoint, aws_access_key_id="key", aws_secret_access_key="secret"
    )


# Its own clock goes by way of dates, for every message it looks at. A deletion writes the list of all messages anew:
# without a switch of threads in between, two at a time do not bring back what the other deleted.
_SERVER = (
    "import sys, time, moto.sqs.models as m; m.unix_time_millis = lambda _=None: time.time() * 1000;"
    " sys.setswitchinterval(60);"
    " from moto.server import main; main(sys.argv[1:])"
)


@contextmanager
def running_sqs() -> Iterator[Sqs]:
    """Start a server without queues, which has the empty bucket of `running_s3` as well."""
    with running_s3(program=_SERVER) as server:
        yield Sqs(server)


shared_sqs = shared(running_sqs)
