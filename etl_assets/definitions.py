"""The one place where everything is put together."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from etl_assets.components.mistakes import collecting, did_you_mean, wrong_uses
from etl_assets.loading import load_defs_folder
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import ConfigurationError
from etl_resources.lake import Lake

STUB = "dagster/auto_created_stub_asset"
"""Metadata by which Dagster marks an asset that is only named as a dependency."""


def load(root: Path) -> dg.Definitions:
    """Load everything under `root/defs`.

    Raises:
        ConfigurationError: with every mistake of every pipeline, and every dependency that nothing produces.
    """
    with collecting() as (mistakes, uses):
        loaded = load_defs_folder(root)
        defaults: dict[str, object] = {"engine": DuckDB(memory_limit=os.environ.get("ETL_MEMORY_LIMIT", "2GB"))}
        if "lake" not in (loaded.resources or {}):
            defaults["lake"] = Lake(uri=os.environ.get("ETL_LAKE_URI", ".lake"))
        given = {**(loaded.resources or {}), **defaults}
        mistakes.extend(wrong_uses(uses, given))
        # Without these Dagster would stop at the first connection that is not there.
        defaults |= {use.resource: dg.ResourceDefinition.none_resource() for use in uses if use.resource not in given}
        complete = dg.Definitions.merge(loaded, dg.Definitions(resources=defaults, executor=dg.in_process_executor))
        mistakes.extend(missing_dependencies(complete))
    if mistakes:
        listed = "\n\n".join(mistakes)
        raise ConfigurationError(f"{len(mistakes)} mistakes in the definitions:\n\n{listed}")
    return complete


def missing_dependencies(loaded: dg.Definitions) -> list[str]:
    """Return a line per dependency that no asset produces; Dagster itself would take it for an external asset."""
    graph = loaded.resolve_asset_graph()
    stubs = {key for key in graph.get_all_asset_keys() if graph.get(key).metadata.get(STUB)}
    names = ["/".join(key.path) for key in graph.get_all_asset_keys() - stubs]
    lines = []
    for key in sorted(stubs):
        name = "/".join(key.path)
        users = ", ".join(sorted("/".join(child.path) for child in graph.get(key).child_keys))
        lines.append(f"{users} needs {name}, which nothing produces{did_you_mean(name, names)}")
    return lines


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the code location."""
    return load(Path(__file__).parent)
