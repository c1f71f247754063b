"""What S3 says of its objects: event notifications, straight from S3, through SNS, or from EventBridge."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote_plus

Object = tuple[str, str]
"""Bucket and key."""


def written(body: str) -> list[Object]:
    """Return the objects that a message says were written; none: it is about something else, such as a deletion.

    Raises:
        ValueError: it is no notification of S3; says why.
    """
    message = _document(body)
    if message.get("Type") == "Notification" and "TopicArn" in message:
        message = _document(message.get("Message"))
    try:
        if message.get("source") == "aws.s3" and "detail-type" in message:
            return _of_event_bridge(message)
        if "Records" in message:
            return [found for record in message["Records"] if (found := _of_record(record)) is not None]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a notification without bucket and key of its object: {error!r}") from None
    if message.get("Event") == "s3:TestEvent":
        return []
    raise ValueError("not a notification of S3")


def _document(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        raise ValueError("not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("not a notification of S3: no JSON object")  # noqa: TRY004 - of the message, not of the caller
    return found


def _of_event_bridge(event: dict[str, Any]) -> list[Object]:
    """EventBridge, unlike S3, writes keys as they are."""
    if event["detail-type"] != "Object Created":
        return []
    return [_object(event["detail"]["bucket"]["name"], event["detail"]["object"]["key"])]


def _of_record(record: dict[str, Any]) -> Object | None:
    if record["eventSource"] != "aws:s3":
        raise ValueError(f"an event of {record['eventSource']}, not of S3")
    if not record["eventName"].removeprefix("s3:").startswith("ObjectCreated:"):
        return None
    return _object(record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"], errors="strict"))


def _object(bucket: Any, key: Any) -> Object:
    if not (isinstance(bucket, str) and isinstance(key, str) and bucket and key):
        raise TypeError("they are no texts")
    return bucket, key
