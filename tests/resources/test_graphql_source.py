"""The source `graphql`: connections and plain pages, errors beside data, and what a query may cost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_assets.bronze import Bronze
from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.lake import Lake
from etl_resources.resilience import Policy
from etl_resources.source import Batch, Capture, Incremental, Snapshot, Stream
from etl_resources.sources.graphql import GraphqlOptions, GraphqlSource
from tests.assets.doubles import new_run
from tests.servers.http_api import Api, Asked, Told, running_api
from tests.servers.http_api_graphql import GraphqlApi
from tests.servers.proxy import wire_to
from tests.soaking import some

QUICK = Policy(attempts=3, first_wait=0.01, longest_wait=0.01, timeout=2, silence=1)
FIELDS = "id name tags"
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "edges": ("edges { node { FIELDS } } pageInfo { hasNextPage endCursor }", "edges[*]", {"relay": {}}),
    "nodes": ("nodes { FIELDS } pageInfo { hasNextPage endCursor }", "nodes", {"relay": {}}),
    "cursor": ("nodes { FIELDS } nextCursor", "nodes[*]", {"cursor": {"path": "$.data.x.nextCursor"}}),
    "offset": ("nodes { FIELDS } totalCount", "nodes", {"offset": {"size": 10, "limit": "first"}}),
}


@pytest.fixture(scope="module")
def running() -> Iterator[Api]:
    with running_api() as api:
        yield api


@pytest.fixture
def graphql(running: Api) -> GraphqlApi:
    running.log.clear()
    running.allowed, running.interfere = None, lambda asked, told: told
    running.records = {"x": rows(range(95))}
    return GraphqlApi(running)


def rows(ids: Any) -> list[tuple[Any, bytes]]:
    return [(i, json.dumps({"id": i, "name": f"n{i}", "tags": [{"t": i}]}).encode()) for i in ids]


def stream(way: str = "edges", capture: Capture | None = None, fields: str = FIELDS, **options: Any) -> Stream:
    selected, records, pagination = WAYS[way]
    query = (
        "query ($first: Int = 10, $after: String, $cursor: String, $offset: Int, $since: Any) { x(first: $first,"
        f" after: $after, cursor: $cursor, offset: $offset, since: $since) {{ {selected} }} }}"
    ).replace("FIELDS", fields)
    given = {
        "path": "/graphql", "query": query, "variables": {"since": "{cursor}"}, "records": f"$.data.x.{records}",
        "pagination": pagination, "look_back": 0, **options,
    }  # fmt: skip
    return Stream("x", GraphqlOptions.model_validate(given), capture or Incremental(cursor="id"))


def source(graphql: GraphqlApi, **settings: Any) -> GraphqlSource:
    return GraphqlSource(**{"base_url": graphql.api.url, "allow_http": True, "resilience": QUICK, **settings})


def ids(batches: list[Batch]) -> list[int]:
    return [i for b in batches if b.data.num_rows for i in b.data.column("id").to_pylist()]


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_pages_comes_whole_and_what_is_new_comes_next(graphql: GraphqlApi, way: str) -> None:
    batches = list(source(graphql).read(stream(way), None))
    assert ids(batches) == list(range(95))
    assert batches[0].data.schema.names == ["id", "name", "tags"]
    assert batches[0].data.schema.field("tags").type == pa.list_(pa.struct([("t", pa.int64())]))
    assert source(graphql).read_schema(stream(way)).equals(batches[0].data.schema)
    graphql.api.records["x"] += rows([95])
    assert ids(list(source(graphql).read(stream(way), batches[-1].position))) == [95]


@pytest.mark.parametrize("way", some(["edges", "offset", "nodes", "cursor"], 2))
def test_a_run_that_was_broken_off_goes_on_where_bronze_was_committed(
    graphql: GraphqlApi, way: str, tmp_path: Path
) -> None:
    bronze = Bronze(Lake(uri=str(tmp_path)), "p", stream(way, commit_pages=2, read_ahead=0))
    with wire_to(graphql.api.port) as wire:
        connection = source(graphql, base_url=f"http://127.0.0.1:{wire.port}")

        def die(asked: Asked, told: Told) -> Told:
            if len(graphql.api.log) == 6:
                wire.refuse = True
                wire.break_now()
            return told

        graphql.api.interfere = die
        with pytest.raises(UnavailableError):
            bronze.land(connection, new_run())
        wire.refuse = False
        graphql.api.log.clear()
        graphql.api.interfere = lambda asked, told: told
        bronze.land(connection, new_run())
    handle = bronze.table.open()
    assert handle is not None
    assert sorted(handle.delta.to_pyarrow_table().column("id").to_pylist()) == list(range(95))
    assert len(graphql.api.log) < 12, "the pages that were committed are not read again"


def test_declared_types_hold_for_the_nodes_of_edges(graphql: GraphqlApi) -> None:
    (batch,) = source(graphql).read(stream(columns={"id": "decimal(10,0)"}, capture=Snapshot()), None)
    assert batch.data.schema.field("id").type == pa.decimal128(10, 0)


def test_an_edge_without_its_node_is_set_aside(graphql: GraphqlApi) -> None:
    graphql.api.records["x"][3] = (3, b"null")
    (batch,) = source(graphql).read(stream(capture=Snapshot()), None)
    assert ids([batch]) == [0, 1, 2, *range(4, 95)]
    assert batch.unreadable is not None
    assert batch.unreadable.column("reason").to_pylist() == ["a record whose node is null"]
    assert batch.rows_read == 95


@pytest.mark.parametrize("way", WAYS)
def test_errors_beside_data_are_errors_with_message_and_path(graphql: GraphqlApi, way: str) -> None:
    """The executor gives nine records that are whole and names what failed in the others: none of it is used."""
    with pytest.raises(EngineError, match=r"this field cannot be told at x\.(nodes|edges)\.0.*more") as caught:
        list(source(graphql).read(stream(way, fields="id broken"), None))
    assert "stream x" in caught.value.where
    assert len(graphql.api.log) <= 2, "not asked again and again"


@pytest.mark.parametrize(
    ("answer", "kind", "match"),
    [
        ({"errors": [{"message": "no", "extensions": {"code": "UNAUTHENTICATED"}}]}, CredentialsRejectedError, "no"),
        ({"errors": [{"message": "no", "type": "FORBIDDEN"}], "data": None}, CredentialsRejectedError, "no"),
        ({"errors": [{"message": "oh", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}]}, UnavailableError, "oh"),
        ({"errors": [{"message": "slow down", "extensions": {"code": "THROTTLED"}}]}, UnavailableError, "slow down"),
        ({"errors": ["just text"]}, EngineError, "just text"),
        ({"data": None}, ConfigurationError, "x"),
        ({"data": {"x": None}}, ConfigurationError, "edges"),
        ({"data": {"x": {"edges": [], "pageInfo": {}}}}, NotFoundError, "hasNextPage"),
        ({"data": {"x": {"edges": [], "pageInfo": {"hasNextPage": True}}}}, NotFoundError, "endCursor"),
        ({"data": {"y": {}}}, NotFoundError, "no x"),
    ],
)
def test_what_an_answer_without_records_means(
    graphql: GraphqlApi, answer: Any, kind: type[EtlError], match: str
) -> None:
    graphql.api.interfere = lambda asked, told: Told(json.dumps(answer).encode())
    with pytest.raises(kind, match=match):
        list(source(graphql).read(stream(), None))


def test_a_field_that_does_not_exist_is_named(graphql: GraphqlApi) -> None:
    with pytest.raises(NotFoundError, match="no_such_field"):
        list(source(graphql).read(stream(fields="no_such_field"), None))


def test_no_error_shows_the_token(graphql: GraphqlApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHQL_TOKEN", "the-token")
    graphql.api.interfere = lambda asked, told: Told(
        json.dumps({"errors": [{"message": f"{asked.headers['authorization']} is not known"}]}).encode()
    )
    with pytest.raises(EngineError, match=r"Bearer \*\*\* is not known"):
        list(source(graphql, auth={"bearer": {"env": "GRAPHQL_TOKEN"}}).read(stream(), None))


def throttle(available: float, cost: float = 100, rate: float = 100) -> dict[str, Any]:
    status = {"maximumAvailable": 1000, "currentlyAvailable": available, "restoreRate": rate}
    return {"cost": {"requestedQueryCost": cost, "throttleStatus": status}}


def test_the_next_page_waits_until_the_api_has_as_much_left_as_it_costs(graphql: GraphqlApi) -> None:
    graphql.api.records["x"] = rows(range(30))
    graphql.extensions = lambda: throttle(75)
    started = time.monotonic()
    assert ids(list(source(graphql).read(stream(), None))) == list(range(30))
    assert time.monotonic() - started >= 0.45, "two waits of a quarter of a second: none behind the last page"
    graphql.extensions = lambda: throttle(1000, rate=0.01)
    assert ids(list(source(graphql).read(stream(), None))) == list(range(30)), "there is enough: no wait of hours"


def test_a_page_that_was_throttled_is_asked_for_again_when_there_is_enough(graphql: GraphqlApi) -> None:
    graphql.api.records["x"] = rows(range(30))
    refused: list[float] = []

    def too_much(asked: Asked, told: Told) -> Told:
        if len(refused) < 2:
            refused.append(time.monotonic())
            error = {"message": "Throttled", "extensions": {"code": "THROTTLED"}}
            return Told(json.dumps({"errors": [error], "extensions": throttle(70)}).encode())
        return told

    graphql.api.interfere = too_much
    assert ids(list(source(graphql).read(stream(), None))) == list(range(30))
    assert refused[1] - refused[0] >= 0.28


def test_too_many_requests_are_waited_out(graphql: GraphqlApi) -> None:
    left = [Told(b"", 429, {"Retry-After": "0.3"}), Told(b"", 503)]
    graphql.api.interfere = lambda asked, told: left.pop(0) if left else told
    started = time.monotonic()
    assert ids(list(source(graphql).read(stream(), None))) == list(range(95))
    assert time.monotonic() - started >= 0.3


def test_a_plain_list_that_gets_shorter_is_noticed(graphql: GraphqlApi) -> None:
    def shorten(asked: Asked, told: Told) -> Told:
        if len(graphql.api.log) == 4:
            graphql.api.records["x"].pop(0)
        return told

    for options in ({"identity": ["id"]}, {"total": {"path": "$.data.x.totalCount"}}):
        graphql.api.records["x"] = rows(range(95))
        graphql.api.log.clear()
        graphql.api.interfere = shorten
        with pytest.raises(UnavailableError, match="changed while it was read"):
            list(source(graphql).read(stream("offset", in_flight=1, **options), None))


@pytest.mark.parametrize(
    "options",
    [{"pagination": {"relay": {}, "offset": {}}}, {"pagination": {}}, {"identity": ["id"]}, {"records": None}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give one of|identity|records"):
        stream(**options)
