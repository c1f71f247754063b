"""Kafka, drained by the client alone, nothing decoded: `servers topic messages`."""

from __future__ import annotations

import sys

from bench.said import timed


def main(servers: str, topic: str, messages: str) -> None:
    from confluent_kafka import Consumer, TopicPartition

    def drain() -> int:
        consumer = Consumer({"bootstrap.servers": servers, "group.id": "drain", "enable.auto.commit": False})
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
        read = 0
        while read < int(messages):
            read += len([m for m in consumer.consume(10_000, 0.05) if m.value()])
        consumer.close()
        return read

    timed(drain, "confluent_kafka")


main(*sys.argv[1:])
