"""The GCS test server does what the tests over it rest on: Google's own client and obstore agree on what is there."""

from __future__ import annotations

import threading

import obstore
import pytest
from google.api_core.exceptions import NotFound, PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from obstore.exceptions import AlreadyExistsError

from etl_resources.files.storage import Storage
from etl_resources.secret import Secret
from tests.servers.gcs import BUCKET, Gcs, shared_gcs


@pytest.fixture
def server() -> Gcs:
    return shared_gcs()


def xml(server: Gcs) -> Storage:
    return Storage(server.options, {n: Secret(**v) for n, v in server.secrets.items()}, server.client_options)


def bucket(server: Gcs) -> storage.Bucket:
    endpoint = {"api_endpoint": f"http://127.0.0.1:{server.port}"}
    return storage.Client("test", AnonymousCredentials(), client_options=endpoint).bucket(BUCKET)


def test_what_one_api_puts_the_other_reads(server: Gcs) -> None:
    store, key = xml(server).store(f"gs://{BUCKET}/apis/a b+c%.bin")
    content = bytes(range(256)) * 50_000  # in several parts
    obstore.put(store, key, content, attributes={"note": "x"})
    blob = bucket(server).get_blob(key)
    assert blob.metadata == {"note": "x"}
    assert blob.download_as_bytes() == content
    bucket(server).blob("apis/json.csv").upload_from_string("a\n1\n", timeout=10, retry=None)
    assert bytes(obstore.get_range(store, "apis/json.csv", start=2, end=3)) == b"1"
    assert [b.name for b in bucket(server).list_blobs(prefix="apis/", page_size=1)] == [
        "apis/a b+c%.bin",
        "apis/json.csv",
    ]
    bucket(server).blob("apis/json.csv").delete()
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "apis/json.csv")


def test_generations_are_enforced(server: Gcs) -> None:
    """Without this, two writers of the lake could commit one log entry."""
    blob = bucket(server).blob("generation/x")
    blob.upload_from_string("1", if_generation_match=0, timeout=10)
    first = blob.generation
    with pytest.raises(PreconditionFailed):
        bucket(server).blob("generation/x").upload_from_string("2", if_generation_match=0, timeout=10, retry=None)
    blob.upload_from_string("2", if_generation_match=first, timeout=10)
    with pytest.raises(PreconditionFailed):
        blob.delete(if_generation_match=first)
    with pytest.raises(NotFound):
        bucket(server).blob("generation/none").delete(retry=None)


def test_of_many_that_create_an_object_one_wins(server: Gcs) -> None:
    store, key = xml(server).store(f"gs://{BUCKET}/race/x")
    won: list[int] = []

    def create(number: int) -> None:
        try:
            obstore.put(store, key, b"%d" % number, mode="create")
        except AlreadyExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b"%d" % n for n in won] == [bytes(obstore.get(store, key).bytes())]
