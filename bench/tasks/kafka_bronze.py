"""Kafka -> bronze: `servers topic folder`."""

from __future__ import annotations

import sys

from bench.said import timed
from etl_assets.bronze import Bronze
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.source import Stream
from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions


def main(servers: str, topic: str, folder: str) -> None:
    source = KafkaSource(servers=servers, security="plaintext")
    stream = Stream("orders", KafkaStreamOptions(type="kafka", topic=topic))
    bronze = Bronze(Lake(uri=folder), "bench", stream)
    timed(
        lambda: bronze.land(source, Run("bench")).account.inserted,
        "pyarrow.parquet",
        "pyarrow.compute",
        "pyarrow.json",
        "deltalake",
        "confluent_kafka",
        "numpy",
    )


main(*sys.argv[1:])
