from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from etl_assets.components.mistakes import did_you_mean, reported
from etl_assets.components.templates import resolved
from etl_resources.exceptions import ConfigurationError
from etl_resources.registry import known_types, source_type, target_type

TARGET_SUFFIX = "_target"
"""A connection `shop` is the resource `shop` where it is read, and `shop_target` where it is written."""


class ConnectionsAttributes(BaseModel):
    """`connections:` name -> `type` and the settings of that type (docs/sources.md, docs/targets.md)."""

    model_config = ConfigDict(extra="allow")


class Connections(dg.Component):
    """Connections to outside systems, by name. Secrets are names of environment variables: `password: {env: NAME}`."""

    def __init__(
        self,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        lake: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        self.connections = connections or {}
        self.lake = lake
        self.unknown = unknown

    @classmethod
    def get_model_cls(cls) -> type[BaseModel] | None:
        """Return the schema that the web UI and editors show."""
        return ConnectionsAttributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Connections:
        """Read `attributes:` of a `defs.yaml`."""
        raw = attributes.model_dump() if attributes is not None else {}
        return cls(**resolved(raw, context.resolution_context))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return a resource per connection and direction."""
        nothing: dict[str, Any] = {}
        resources = reported(lambda: self.resources(where=str(context.path)), nothing)
        return dg.Definitions(resources=resources)

    def resources(self, *, where: str) -> dict[str, Any]:
        """Return the resources.

        Raises:
            ConfigurationError: with every mistake of every connection.
        """
        found: dict[str, Any] = {}
        hints = {name: did_you_mean(name, ("connections", "lake")) for name in self.unknown}
        mistakes = [f"{name}: unknown key{hint}" for name, hint in hints.items()]
        for name, settings in self.connections.items():
            kind = dict(settings)
            type_name = kind.pop("type", None)
            directions = [
                (key, finder)
                for key, package, finder in (
                    (name, "sources", source_type),
                    (name + TARGET_SUFFIX, "targets", target_type),
                )
                if type_name in known_types(package)
            ]
            if not directions:
                known = sorted({*known_types("sources"), *known_types("targets")})
                mistakes.append(f"{name}: there is no type {type_name!r}{did_you_mean(str(type_name), known)}")
            for key, finder in directions:
                resource = finder(type_name, where=where)
                # Dagster's resources let unknown keys pass.
                unknown = [field for field in kind if field not in resource.model_fields]
                mistakes += [f"{name}.{x}: unknown key{did_you_mean(x, resource.model_fields)}" for x in unknown]
                try:
                    found[key] = resource(**kind)
                except ValidationError as error:
                    mistakes += _lines(name, error)
        if self.lake is not None:
            from etl_resources.lake import Lake

            found["lake"] = Lake(**self.lake)
        if mistakes:
            raise ConfigurationError("\n".join(dict.fromkeys(mistakes)), where=where, fix="see docs/sources.md")
        return found


def _lines(name: str, error: ValidationError) -> list[str]:
    details = error.errors(include_url=False, include_input=False)
    places = [".".join([name, *(str(part) for part in detail["loc"])]) for detail in details]
    said = [
        "unknown key" if d["type"] == "extra_forbidden" else d["msg"].removeprefix("Value error, ") for d in details
    ]
    return [f"{place}: {text}" for place, text in zip(places, said, strict=True)]
