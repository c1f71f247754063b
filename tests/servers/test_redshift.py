"""The private Redshift answers as Redshift does where the source depends on it; asked by Amazon's own driver."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from etl_resources.secret import Secret
from etl_resources.unloaded import ObjectStore, remove
from tests.servers.redshift import PASSWORD, ROLE, USER, shared_redshift
from tests.servers.s3 import BUCKET


@pytest.fixture
def connection() -> Any:
    import redshift_connector

    server = shared_redshift()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = redshift_connector.connect(
            host="127.0.0.1", port=server.port, user=USER, password=PASSWORD, database=server.database(), ssl=False
        )
    opened.autocommit = True
    yield opened
    opened.close()


def ask(connection: Any, query: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_it_is_8_0_2_and_reads_backslashes(connection: Any) -> None:
    assert (b"server_version", b"8.0.2") in connection.parameter_statuses
    assert ask(connection, "SELECT 'a\\\\b'") == ([r"a\b"],)


def test_binary_and_json_have_the_types_of_redshift(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT decode('0041', 'hex') AS b, '{}'::json AS j, 1 AS n")
        assert [column[1] for column in cursor.description] == [6551, 4000, 23]


def test_a_wrong_password_is_refused() -> None:
    import redshift_connector

    server = shared_redshift()
    with pytest.raises(redshift_connector.InterfaceError, match="28000"):
        redshift_connector.connect(
            host="127.0.0.1", port=server.port, user=USER, password="other", database="postgres", ssl=False
        )


def test_an_unload_writes_slices_and_a_manifest() -> None:
    from etl_resources.sources.redshift import RedshiftSource

    server, folder = shared_redshift(), f"s3://{BUCKET}/server-test/"
    secrets = {name: Secret(**given) for name, given in server.s3.secrets.items()}
    storage = ObjectStore(options=server.s3.options, secrets=secrets, client_options=server.s3.client_options).storage()
    with RedshiftSource(**server.settings(server.database())).session() as session:
        session.execute(
            f"UNLOAD ('SELECT g, ''it\\'\\'s'' AS s FROM generate_series(1, 5) g') TO '{folder}' IAM_ROLE '{ROLE}'"
            " FORMAT AS PARQUET MANIFEST VERBOSE"
        )
        assert session.rows("SELECT pg_last_unload_count()") == [("5",)]
    with storage.open(f"{folder}manifest") as stream:
        entries = json.loads(stream.read())["entries"]
    assert [entry["meta"]["record_count"] for entry in entries] == [3, 2]
    assert [entry["url"].removeprefix(folder) for entry in entries] == ["0000_part_00.parquet", "0001_part_00.parquet"]
    remove(folder, storage)
    assert storage.find(f"{folder}*") == []
