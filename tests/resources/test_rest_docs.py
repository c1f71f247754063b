"""docs/sources/rest.md and graphql.md: the examples are read, and run; the tables name the options that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_resources.http import HttpConnection
from etl_resources.http_settings import Authentication
from etl_resources.source import Incremental, Snapshot, Stream
from etl_resources.sources.graphql import GraphqlOptions, GraphqlPagination, GraphqlSource
from etl_resources.sources.rest import RestOptions, RestSource
from etl_resources.sources.rest_pagination import Pagination
from tests.servers.http_api import Told, running_api

DOCS = Path(__file__).parents[2] / "docs" / "sources"
KINDS: dict[str, tuple[type[RestSource] | type[GraphqlSource], type[RestOptions] | type[GraphqlOptions]]] = {
    "rest": (RestSource, RestOptions), "graphql": (GraphqlSource, GraphqlOptions),
}  # fmt: skip


def page(name: str) -> tuple[str, list[Any]]:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    return text, [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)]


ANSWERS: dict[str, Any] = {
    "/orders": {"meta": {"total": 1}, "data": {"items": [{"id": 1, "updated_at": "2024-01-01T00:00:00Z"}]}},
    "/regions": [{"code": "N"}, {"code": "S"}],
    "/": {"data": {"orders": {
        "edges": [{"node": {"id": "1", "updatedAt": "2024-01-01", "total": {"amount": 1, "currency": "EUR"}}}],
        "pageInfo": {"hasNextPage": False, "endCursor": None},
    }}},
}  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), [("rest", {"orders": 1, "regions": 2}), ("graphql", {"orders": 1})])
def test_the_examples_run(name: str, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "token")
    source_type, options_type = KINDS[name]
    connections, streams = page(name)[1][:2]
    ((_, written),) = connections["attributes"]["connections"].items()
    assert written.pop("type") == name
    source_type(**written)
    rows = {}
    with running_api() as api:
        for path, answer in ANSWERS.items():
            api.routes[path] = lambda asked, answer=answer: Told(json.dumps(answer).encode())  # type: ignore[misc]
        source = source_type(**{**written, "base_url": api.url, "allow_http": True})
        for stream, settings in streams["streams"].items():
            ((kind, capture),) = settings["capture"].items()
            how = Incremental(**capture) if kind == "incremental" else Snapshot(**capture)
            batches = source.read(Stream(stream, options_type(**settings["source"]), how), None)
            rows[stream] = sum(batch.data.num_rows for batch in batches)
    assert rows == expected


@pytest.mark.parametrize("name", KINDS)
def test_the_ways_of_pagination_and_authentication_are_those_there_are(name: str) -> None:
    ways = {"rest": Pagination, "graphql": GraphqlPagination}[name]
    *others, pagination = page(name)[1][2:]
    assert {next(iter(way)) for way in pagination} == set(ways.model_fields)
    for way in pagination:
        ways.model_validate(way)
    for listed in others:
        assert {next(iter(way)) for way in listed} == set(Authentication.model_fields)
        for way in listed:
            Authentication(**way)


@pytest.mark.parametrize("name", KINDS)
def test_every_option_is_in_the_table_with_its_default(name: str) -> None:
    text = page(name)[0]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    options = KINDS[name][1].model_fields
    assert set(options) - {"type", "connection"} <= named
    settings = set(HttpConnection.model_fields)
    assert named <= {*options, *settings}
    if name == "rest":
        assert settings <= named
        defaults = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, flags=re.MULTILINE))
        fields = {**HttpConnection.model_fields, **options}
        for option, default in defaults.items():
            assert str(fields[option].default).removesuffix(".0").lower() == default, option
