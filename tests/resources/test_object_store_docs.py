"""The examples of docs/connectors/gcs.md and azure.md are connections that open a store."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from etl_resources.files.storage import Storage
from etl_resources.sources.file import FileSource
from tests.servers.azure import KEY
from tests.servers.gcs import Gcs

DOCS = Path(__file__).parents[2] / "docs" / "connectors"


@pytest.mark.parametrize(("page", "uri"), [("gcs.md", "gs://bucket/x"), ("azure.md", "az://container/x")])
def test_the_example_opens_a_store(page: str, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    (written,) = yaml.safe_load(block)["attributes"]["connections"].values()
    assert written.pop("type") == "file"
    source = FileSource(**written)
    account = next(iter(Gcs(1).secrets.values()))["env"]
    monkeypatch.setenv("GCS_SERVICE_ACCOUNT", os.environ[account])
    monkeypatch.setenv("AZURE_ACCOUNT_KEY", KEY)
    store, key = Storage(source.options, source.secrets, source.client_options).store(uri)
    assert key == "x"
    assert type(store).__name__ in {"GCSStore", "AzureStore"}
