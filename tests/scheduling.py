"""Which tests go together to a worker, and which go first.

A file stays on one worker, so that its servers start once, and so do all files about a server that is slow to start;
the conformance suite, which is a file as long as many, is dealt out by the system that its cases are about. xdist would
begin with the files of the most tests; here those begin that take longest, so that the workers end together.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

HERE = Path(__file__).parent
CONFORMANCE = "conformance/test_sources.py"
LONG = (
    CONFORMANCE,
    "resources/test_websocket_and_sse.py",
    "resources/test_rabbitmq_docs.py",
    "resources/test_sqs_source.py",
)  # fmt: skip
"""Half a minute and more, the longest first, and of those that mostly wait the ones that would come last."""
TOGETHER = (
    ("test_rabbitmq_",),
    ("test_sqlserver_",),
    ("test_snowflake_",),
    ("test_redshift_",),
    ("test_file_objects_gcs_azure", "test_lake_object_stores", "test_object_store_docs"),
)
"""How the names of files begin that stay on one worker, with what the conformance suite tries of the same system: their
server takes about as long to start as to test."""


class Dealing(LoadFileScheduling):
    """Deals out whole files, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """Return what stays on one worker with the test `nodeid`."""
    file, _, test = nodeid.partition("::")
    if not file.endswith(CONFORMANCE):
        return next((group[0] for group in TOGETHER if any(begin in file for begin in group)), file)
    # `test[file-csv-s3-decimal]`: what is said first is the system.
    system = test.partition("[")[2].partition("-")[0].rstrip("]")
    own = f"test_{system}_"
    return own if any(own in group for group in TOGETHER) else f"{file}::{system}"


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests of long files before all others, which stay as they are."""
    places = {HERE / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
