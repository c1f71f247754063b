"""Settings of `capture: {log: ...}` of a Kafka stream: the topic holds what Debezium has captured."""

from __future__ import annotations

from pydantic import Field

from etl_resources.source import LogCapture


class DebeziumLogCapture(LogCapture):
    """Follow a topic of Debezium's change events, one topic per table."""

    unavailable: str = Field(
        default="__debezium_unavailable_value",
        description="What the connector writes for a value that it does not have (`unavailable.value.placeholder`).",
    )
    remember: int = Field(
        default=10_000, ge=0,
        description="Events that the position remembers per stream, to recognise those that Debezium sends again after"
        " a fault of its own; 0: none.",
    )  # fmt: skip
    most: int = Field(default=100_000, ge=1, description="Messages between two commits.")
