"""A GraphQL endpoint `/graphql` of the HTTP API: graphql-core runs the queries over the records of the API.

For each of them there is a field with `first`, `after` (Relay), `offset`, `cursor` (plain) and `since`. Values are of a
scalar that hands JSON on as it is, nested objects included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from graphql import GraphQLError, GraphQLScalarType, build_schema, graphql_sync

from etl_resources.files.json_types import json_text
from tests.servers.http_api import Api, Asked, Told

_TYPES = """
scalar Any
type PageInfo {{ hasNextPage: Boolean!, endCursor: String }}
{types}
type Query {{ {fields} }}
"""
_TYPE = """
type {name} {{ {columns}, broken: Any }}
type {name}Edge {{ cursor: String!, node: {name} }}
type {name}Connection {{
  nodes: [{name}]!, edges: [{name}Edge]!, pageInfo: PageInfo!, totalCount: Int!, nextCursor: String
}}
"""
_FIELD = "{name}(first: Int, after: String, offset: Int, cursor: String, since: Any): {name}Connection"


class GraphqlApi:
    """Serves the records of an API; `cost` may add to the answer's `extensions`."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.extensions: Callable[[], dict[str, Any]] = dict
        self._schemas: dict[tuple[str, ...], Any] = {}
        api.routes["/graphql"] = self._answer

    def _answer(self, asked: Asked) -> Told:
        sent = json.loads(asked.body)
        names = tuple(sorted(self.api.records))
        if names not in self._schemas:
            self._schemas[names] = self._schema()
        result = graphql_sync(
            self._schemas[names], sent["query"], _Root(self.api), variable_values=sent.get("variables")
        )
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = [error.formatted for error in result.errors]
        if extensions := self.extensions():
            answer["extensions"] = extensions
        return Told(json_text(answer).encode())

    def _schema(self) -> Any:
        columns: dict[str, list[str]] = {}
        for name, rows in self.api.records.items():
            columns[name] = list(json.loads(rows[0][1])) if rows else ["id"]
        types = "".join(
            _TYPE.format(name=name, columns=", ".join(f"{c}: Any" for c in found)) for name, found in columns.items()
        )
        fields = ", ".join(_FIELD.format(name=name) for name in columns)
        schema = build_schema(_TYPES.format(types=types, fields=fields or "nothing: Any"))
        scalar = schema.type_map["Any"]
        assert isinstance(scalar, GraphQLScalarType)
        scalar.serialize = lambda value: value  # type: ignore[method-assign]
        return schema


class _Root:
    """Resolves the fields of the query."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def __getattr__(self, name: str) -> Any:
        rows = self._api.records[name]

        def resolve(info: Any, first: int = 100, after: str | None = None, offset: int | None = None,
                    cursor: str | None = None, since: Any = None) -> dict[str, Any]:  # fmt: skip
            found = rows if since is None else [r for r in rows if r[0] >= type(r[0])(since)]
            start = offset if offset is not None else int(after or cursor or 0)
            end = start + min(first, self._api.largest)
            nodes = [_node(text) for _, text in found[start:end]]
            more = end < len(found)
            return {
                "nodes": nodes, "edges": [{"cursor": str(start + n + 1), "node": x} for n, x in enumerate(nodes)],
                "pageInfo": {"hasNextPage": more, "endCursor": str(start + len(nodes))}, "totalCount": len(found),
                "nextCursor": str(end) if more else None,
            }  # fmt: skip

        return resolve


def _node(text: bytes) -> Any:
    node = json.loads(text, parse_float=Decimal)
    if node is not None:
        node["broken"] = _break
    return node


def _break(info: Any) -> Any:
    raise GraphQLError("this field cannot be told", extensions={"code": "SOME_CODE"})
