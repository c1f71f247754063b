"""GraphQL in the conformance suite: a Relay connection read by its edges, over a real executor of queries."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import pyarrow as pa

from etl_resources.http_settings import Authentication
from etl_resources.resilience import Policy
from etl_resources.secret import Secret
from etl_resources.source import Incremental, Stream
from etl_resources.sources.graphql import GraphqlOptions, GraphqlSource
from tests.conformance.cases import TypeCase
from tests.conformance.harness import Opened, SourceHarness
from tests.conformance.implementations.rest import json_received, records_of
from tests.servers.http_api import Told, running_api
from tests.servers.http_api_graphql import GraphqlApi
from tests.servers.proxy import wire_to

_TOKEN = "CONFORMANCE_GRAPHQL_TOKEN"
_QUERY = """query ($after: String, $since: Any) {{
  {name}(first: 500, after: $after, since: $since) {{
    edges {{ node {{ {fields} }} }} pageInfo {{ hasNextPage endCursor }}
  }}
}}"""


class GraphqlHarness(SourceHarness):
    name: ClassVar[str] = "graphql"
    soak: ClassVar[frozenset[str]] = frozenset({"bounded_memory"})
    source_type = GraphqlSource
    types_in_one = True
    memory_rows = (2_500, 10_000)  # the executor of the test server takes its time
    away_rows = 6_000

    def start(self) -> None:
        self._stack = ExitStack()
        self.api = self._stack.enter_context(running_api())
        self.graphql = GraphqlApi(self.api)
        self.api.routes["/refused"] = lambda asked: Told(json.dumps({"error": "no"}).encode(), 401)

    def stop(self) -> None:
        self._stack.close()

    def _open(
        self, name: str, fields: list[str], cursor: str = "id", path: str = "/graphql", **settings: Any
    ) -> Opened:
        options = GraphqlOptions.model_validate({
            "path": path, "query": _QUERY.format(name=name, fields=" ".join(fields)),
            "variables": {"since": "{cursor}"}, "records": f"$.data.{name}.edges[*]", "pagination": {"relay": {}},
            "look_back": 0,
        })  # fmt: skip
        source = GraphqlSource(**{"base_url": self.api.url, "allow_http": True, **settings})
        return source, Stream(name, options, Incremental(cursor=cursor))

    def fill(self, name: str, data: pa.Table) -> Opened:
        self.api.records[name] = records_of(data)
        self.graphql._schemas.clear()
        return self._open(name, data.column_names if data.num_rows else ["id"])

    def extend(self, name: str, data: pa.Table) -> None:
        self.api.records[name] += records_of(data)

    def received(self, case: TypeCase) -> pa.Array:
        return json_received(case)

    def missing(self) -> Opened:
        return self._open("no_such_stream", ["id"])

    def missing_column(self, name: str, data: pa.Table) -> Opened:
        self.fill(name, data)
        return self._open(name, data.column_names, cursor="no_such_field")

    def wrong_credentials(self) -> Opened:
        os.environ[_TOKEN] = "not the token"
        return self._open("refused", ["id"], path="/refused", auth=Authentication(bearer=Secret(env=_TOKEN)))

    @contextmanager
    def goes_away(self, name: str, data: pa.Table) -> Iterator[Opened]:
        """The wire breaks in the middle, and never comes back."""
        self.fill(name, data)
        with wire_to(self.api.port, cut_after=400_000) as wire:
            patience = Policy(attempts=2, first_wait=0.01, timeout=5, silence=5)
            url = f"http://127.0.0.1:{wire.port}"
            yield self._open(name, data.column_names, base_url=url, resilience=patience)


SOURCES = [GraphqlHarness]
