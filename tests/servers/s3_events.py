"""Lets a bucket of moto tell a queue of its objects, in each of the ways in which S3 can."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

from tests.servers.sqs import Sqs

ARN = "arn:aws:{service}:us-east-1:123456789012:{name}"
Way = Literal["s3", "sns", "event_bridge"]


@dataclass(frozen=True)
class NotifyingBucket:
    """A bucket of its own whose events of any kind go into `queue`."""

    sqs: Sqs
    name: str
    queue: str

    def put(self, key: str, content: bytes) -> None:
        self.client("s3").put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self.client("s3").delete_object(Bucket=self.name, Key=key)

    def client(self, service: str) -> Any:
        return _client(service, self.sqs.settings["endpoint"])

    @property
    def queue_url(self) -> str:
        return self.sqs.url(self.queue)

    def silence(self) -> None:
        """Tell nobody from now on, as a bucket does whose configuration was overwritten."""
        self.client("s3").put_bucket_notification_configuration(Bucket=self.name, NotificationConfiguration={})

    def tell(self, way: Way) -> None:
        """Tell the queue from now on; S3 sends it a test event first."""
        events = {"Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        queue, topic = (ARN.format(service=service, name=self.queue) for service in ("sqs", "sns"))
        wanted: dict[str, Any] = {"QueueConfigurations": [{"QueueArn": queue, **events}]}
        if way == "sns":
            self.client("sns").create_topic(Name=self.queue)
            self.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
            wanted = {"TopicConfigurations": [{"TopicArn": topic, **events}]}
        elif way == "event_bridge":
            pattern = f'{{"source": ["aws.s3"], "detail": {{"bucket": {{"name": ["{self.name}"]}}}}}}'
            self.client("events").put_rule(Name=self.name, EventPattern=pattern)
            self.client("events").put_targets(Rule=self.name, Targets=[{"Id": "1", "Arn": queue}])
            wanted = {"EventBridgeConfiguration": {}}
        self.client("s3").put_bucket_notification_configuration(Bucket=self.name, NotificationConfiguration=wanted)


@functools.cache
def _client(service: str, endpoint: str) -> Any:
    import boto3

    return boto3.client(
        service, region_name="us-east-1", endpoint_url=endpoint, aws_access_key_id="key", aws_secret_access_key="secret"
    )


def notifying_bucket(sqs: Sqs, name: str) -> NotifyingBucket:
    """Make a bucket and its queue, of which the bucket does not know before `tell`."""
    bucket = NotifyingBucket(sqs, name, sqs.queue(f"{name}-objects"))
    bucket.client("s3").create_bucket(Bucket=name)
    return bucket
