"""The file source over object stores: the same code behind another storage."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa

from etl_resources.files.storage import Storage
from etl_resources.secret import Secret
from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource
from tests.conformance.harness import Opened
from tests.conformance.implementations.file import CsvFiles
from tests.servers.azure import CONTAINER, Azure, shared_azure
from tests.servers.gcs import BUCKET as GCS_BUCKET
from tests.servers.gcs import Gcs, key_pair, running_gcs, shared_gcs
from tests.servers.proxy import wire_to
from tests.servers.s3 import BUCKET, S3, shared_s3


class CsvObjects(CsvFiles):
    """CSV in an S3 bucket."""

    name = "file-csv-s3"
    root: ClassVar[str] = f"s3://{BUCKET}"
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})

    def start(self) -> None:
        self.server: S3 | Gcs | Azure = shared_s3()

    def _uri(self, name: str, file: str) -> str:
        return f"{self.root}/{name}/{file}"

    def _put(self, name: str, file: str, content: bytes) -> None:
        import obstore

        source = _source(self.server)
        store, key = Storage(source.options, source.secrets, source.client_options).store(self._uri(name, file))
        obstore.put(store, key, content)

    def _open(self, name: str, **options: Any) -> Opened:
        path = self._uri(name, f"*{self.suffix}")
        return _source(self.server), Stream(name, FileOptions(path=path, **options))

    def missing(self) -> Opened:
        return _source(self.server), Stream("missing", FileOptions(path=f"{self.root}/no_such.csv"))

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        """The store stops answering when half of the file has been sent."""
        content = self.encode(data)
        self._put(name, "0.csv", content)
        with wire_to(self.server.port, cut_after=len(content) // 2) as wire, suppress(ConnectionError):
            yield _source(replace(self.server, port=wire.port)), self._open(name)[1]


class CsvObjectsInGcs(CsvObjects):
    """The same in Google Cloud Storage; what depends on the store is part of `test_file_objects_gcs_azure.py`, too."""

    name = "file-csv-gcs"
    root = f"gs://{GCS_BUCKET}"
    soak: ClassVar[frozenset[str]] = frozenset({"*"})

    def start(self) -> None:
        self.server = shared_gcs()

    def wrong_credentials(self) -> Opened:
        (_, public), (wrong, _) = key_pair(), key_pair()
        self._refusing = ExitStack()
        server = self._refusing.enter_context(running_gcs(public_key=public))
        return _source(replace(server, private_key=wrong)), Stream("refused", FileOptions(path=f"{self.root}/x.csv"))

    def stop(self) -> None:
        if hasattr(self, "_refusing"):
            self._refusing.close()


class CsvObjectsInAzure(CsvObjects):
    """The same in Azure Blob Storage."""

    name = "file-csv-azure"
    root = f"az://{CONTAINER}"
    soak: ClassVar[frozenset[str]] = CsvObjectsInGcs.soak

    def start(self) -> None:
        self.server = shared_azure()

    def wrong_credentials(self) -> Opened:
        source, _ = self._open("refused")
        os.environ["TEST_AZURE_WRONG_KEY"] = base64.b64encode(b"wrong").decode()
        wrong = {"account_key": Secret(env="TEST_AZURE_WRONG_KEY")}
        return source.model_copy(update={"secrets": wrong}), Stream("x", FileOptions(path=self._uri("x", "x.csv")))


def _source(server: S3 | Gcs | Azure) -> FileSource:
    return FileSource(options=server.options, secrets=server.secrets, client_options=server.client_options)  # type: ignore[arg-type]


SOURCES = (CsvObjects, CsvObjectsInGcs, CsvObjectsInAzure)
