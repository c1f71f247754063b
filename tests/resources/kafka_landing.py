"""Land a topic in bronze, as a pipeline does, also in a process that a test can kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etl_assets.bronze import Bronze
from etl_assets.landing import Landed
from etl_assets.run import Run
from etl_resources.lake import Lake
from etl_resources.source import Source, Stream
from etl_resources.sources.kafka import KafkaSource, KafkaStreamOptions


def land(lake: Path, source: Source, stream: Stream, run: str = "run") -> Landed:
    return Bronze(Lake(uri=str(lake)), "test", stream).land(source, Run(run))


def rows_of(lake: Path, stream: str) -> list[dict[str, Any]]:
    handle = Lake(uri=str(lake)).table("bronze", "test", stream).open()
    assert handle is not None
    return handle.delta.to_pyarrow_table().to_pylist()


def land_topic(lake: str, servers: str, topic: str) -> None:
    options = KafkaStreamOptions(type="kafka", topic=topic, max_messages=100)
    land(Path(lake), KafkaSource(servers=servers, security="plaintext"), Stream("events", options), "killed")
