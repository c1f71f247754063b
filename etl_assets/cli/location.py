"""The definitions of a project: pipelines by name, tables by the names that people write."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.cli.project import settings
from etl_assets.cli.usage import WrongUsage, unknown
from etl_resources.exceptions import ConfigurationError, EtlError

if TYPE_CHECKING:
    from etl_assets.components.context import PipelineContext
    from etl_assets.components.log_assets import LogAssets
    from etl_assets.components.stream_assets import StreamAssets
    from etl_resources.engines.duckdb import DuckDB
    from etl_resources.lake import Lake

LAYERS = ("bronze", "silver", "gold", "publish")
_PLAIN = re.compile(r"(?P<up>\+?)(?P<name>[\w*.-]+(/[\w*.-]+)*)(?P<down>\+?)")


def load_location(root: Path) -> Location:
    """Import the module that the project names (`code_location_target_module`) and load its definitions.

    Raises:
        ConfigurationError: the module is not there, or holds no definitions; or what the definitions themselves raise.
    """
    from dagster.components.definitions import LazyDefinitions

    name = settings(root).get("code_location_target_module", "etl_assets.definitions")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise ConfigurationError(
            f"there is no module {name}", where=str(root / "pyproject.toml"), fix="mend code_location_target_module"
        ) from error
    found = [value for value in vars(module).values() if isinstance(value, dg.Definitions | LazyDefinitions)]
    if not found:
        raise ConfigurationError(f"module {name} holds no definitions", fix="see etl_assets/definitions.py for how to")
    loaded = _loaded(found[0], root) if isinstance(found[0], LazyDefinitions) else found[0]
    assert isinstance(loaded, dg.Definitions)  # noqa: S101 - @dg.definitions saw to it
    return Location(loaded)


def _loaded(definitions: Any, root: Path) -> Any:
    """Load definitions; what Dagster cannot read at all becomes a mistake of the user's that says where to look."""
    from dagster_shared.error import DagsterError
    from yaml import YAMLError

    try:
        return definitions()
    except YAMLError as error:
        raise ConfigurationError(f"a file is not YAML: {error}", where=str(root), fix="mend the file") from error
    except DagsterError as error:
        if isinstance(error.__cause__, EtlError):
            raise error.__cause__ from error
        raise ConfigurationError(
            str(error), where=str(root), fix="mend the definitions; `dg check defs` shows which file it is"
        ) from error


@dataclass(frozen=True)
class Location:
    """What the project defines."""

    definitions: dg.Definitions

    @cached_property
    def graph(self) -> Any:
        """The asset graph."""
        return self.definitions.resolve_asset_graph()

    @cached_property
    def contexts(self) -> dict[str, PipelineContext]:
        """The pipelines that the Pipeline component made, by name."""
        from etl_assets.components.pipeline import Pipeline

        tree = self.definitions.component_tree
        components = tree.get_all_components(Pipeline) if tree is not None else []
        found = [component.context for component in components if component.context is not None]
        return {context.name: context for context in sorted(found, key=lambda context: context.name)}

    @cached_property
    def names(self) -> list[str]:
        """All pipelines: those of the component, and groups of assets written in Python."""
        groups = {self.graph.get(key).group_name for key in self.graph.materializable_asset_keys}
        return sorted(groups | set(self.contexts))

    def check_name(self, pipeline: str) -> None:
        """Raise WrongUsage for a pipeline that is not there."""
        if pipeline not in self.names:
            raise unknown("pipeline", pipeline, self.names)

    def context(self, pipeline: str) -> PipelineContext:
        """Return a pipeline of the component.

        Raises:
            WrongUsage: there is none of that name, or it is a group of assets written in Python.
        """
        self.check_name(pipeline)
        if pipeline not in self.contexts:
            raise WrongUsage(f"{pipeline} is a group of assets written in Python, of which only Dagster knows the way")
        return self.contexts[pipeline]

    def keys(self, pipeline: str) -> list[dg.AssetKey]:
        """Return the tables of a pipeline that can be materialized, in the order in which they depend on each other."""
        own = dg.AssetSelection.groups(pipeline).materializable().resolve(self.graph)
        return [key for key in self.graph.toposorted_asset_keys if key in own]

    def select(self, pipeline: str, selections: Sequence[str]) -> list[dg.AssetKey]:
        """Return the tables of a pipeline that are selected, all if `selections` is empty, in order.

        Raises:
            WrongUsage: a selection is no selection, or selects nothing.
        """
        self.check_name(pipeline)
        keys = self.keys(pipeline)
        if not selections:
            return keys
        chosen: set[dg.AssetKey] = set()
        for text in selections:
            found = self._selection(pipeline, text).resolve(self.graph) & set(keys)
            if not found:
                raise unknown(f"table in {pipeline}", text, [short_name(key, pipeline) for key in keys])
            chosen |= found
        return [key for key in keys if key in chosen]

    def _selection(self, pipeline: str, text: str) -> dg.AssetSelection:
        plain = _PLAIN.fullmatch(text)
        if plain is None:
            from dagster._core.definitions.asset_selection import DagsterInvalidAssetSelectionError

            try:
                return dg.AssetSelection.from_string(text)
            except DagsterInvalidAssetSelectionError as error:
                raise WrongUsage(
                    f"{text!r} is no selection",
                    fix='write a table (silver/sales), a layer (silver), or Dagster\'s syntax (key:"silver/*/sales")',
                ) from error
        patterns = [f'{plain["up"]}key:"{pattern}"{plain["down"]}' for pattern in _patterns(pipeline, plain["name"])]
        return dg.AssetSelection.from_string(" or ".join(patterns))

    def resource(self, name: str) -> Any:
        """Return a resource of the definitions, e.g. `lake`; None: there is none."""
        return (self.definitions.resources or {}).get(name)

    @property
    def lake(self) -> Lake:
        """The lake."""
        lake: Lake = self.resource("lake")
        return lake

    @property
    def engine(self) -> DuckDB:
        """The engine."""
        engine: DuckDB = self.resource("engine")
        return engine

    def streams(self, pipeline: str) -> list[StreamAssets]:
        """Return the streams of a pipeline."""
        from etl_assets.components.stream_assets import StreamAssets

        context = self.context(pipeline)
        return [StreamAssets(context, name, model) for name, model in context.model.streams.items()]

    def logs(self, pipeline: str) -> list[LogAssets]:
        """Return the change logs that streams of a pipeline follow.

        Raises:
            WrongUsage: none does.
        """
        from etl_assets.components.log_assets import logs_of

        found = logs_of(self.context(pipeline), self.streams(pipeline))
        if not found:
            raise WrongUsage(
                f"no stream of {pipeline} follows a change log", fix="capture: {log: {}} makes one follow it"
            )
        return found


def short_name(key: dg.AssetKey, pipeline: str) -> str:
    """Return the key without the name of the pipeline, as people write it: `silver/sales`."""
    path = key.path
    return f"{path[0]}/{'/'.join(path[2:])}" if len(path) > 2 and path[1] == pipeline else "/".join(path)


def _patterns(pipeline: str, name: str) -> list[str]:
    """Return the keys that a plain name may stand for: a layer, a table of any layer, or a whole key."""
    parts = name.split("/")
    if len(parts) == 1 and name in LAYERS:
        return [f"{name}/{pipeline}/*"]
    if len(parts) == 1:
        return [f"*/{pipeline}/{name}", name]
    if len(parts) == 2:
        return [f"{parts[0]}/{pipeline}/{parts[1]}", name]
    return [name]
