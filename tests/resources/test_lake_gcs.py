"""The lake in Google Cloud Storage: the promises that it keeps in S3, over its XML API and its preconditions."""

from __future__ import annotations

import pytest

from etl_resources.lake import Lake
from tests.resources.test_lake_s3 import (
    test_of_writers_at_once_one_wins,
    test_rows_are_appended_merged_replaced_and_read,
    test_small_files_are_compacted_and_old_ones_deleted,
    test_what_is_discarded_is_gone_from_the_store,
    test_writers_under_other_names_all_get_in,
)
from tests.servers.gcs import BUCKET, shared_gcs

__all__ = [
    "test_of_writers_at_once_one_wins",
    "test_rows_are_appended_merged_replaced_and_read",
    "test_small_files_are_compacted_and_old_ones_deleted",
    "test_what_is_discarded_is_gone_from_the_store",
    "test_writers_under_other_names_all_get_in",
]


@pytest.fixture
def lake() -> Lake:
    server = shared_gcs()
    return Lake(
        uri=f"gs://{BUCKET}/lake",
        storage_options={"ALLOW_HTTP": "true", "TIMEOUT": "20s"},
        secrets=server.secrets,  # type: ignore[arg-type]
    )
