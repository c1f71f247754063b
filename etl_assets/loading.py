"""Loads the `defs` folder without importing every Dagster integration that happens to be installed.

`dg.load_from_defs_folder` also lists, for the web UI, the components of all installed packages, and imports them for
it: with dagster-snowflake and dagster-aws that is 10 CPU seconds before every run, for components that nobody here
uses. This lists the project's own.
"""

from __future__ import annotations

from pathlib import Path

import dagster as dg

COMPONENTS = ["etl_assets.components"]


def load_defs_folder(root: Path) -> dg.Definitions:
    """Return the definitions of the project that `root` is in, with its component types for the web UI."""
    from dagster.components.core.component_tree import ComponentTree

    tree = ComponentTree.for_project(path_within_project=root)
    return dg.Definitions.merge(tree.build_defs(tree.defs_module_path), _component_types(tree))


def _component_types(tree: object) -> dg.Definitions:
    # The same three calls that load_from_defs_folder makes, over one package instead of all; the version is pinned.
    from dagster.components.core.load_defs import PLUGIN_COMPONENT_TYPES_JSON_METADATA_KEY
    from dagster.components.core.package_entry import discover_package_objects
    from dagster.components.core.snapshot import get_package_entry_snap
    from dagster_shared.serdes.objects.package_entry import json_for_all_components

    found = discover_package_objects(COMPONENTS)
    described = json_for_all_components([get_package_entry_snap(key, thing) for key, thing in found.items()])
    return dg.Definitions(metadata={PLUGIN_COMPONENT_TYPES_JSON_METADATA_KEY: described}, component_tree=tree)  # type: ignore[arg-type]
