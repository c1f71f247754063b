"""Loads the `defs` folder without importing every Dagster integration that happens to be installed.

`dg.load_from_defs_folder` also lists, for the web UI, the components of all installed packages, and imports them for
it: with dagster-snowflake and dagster-aws that is 10 CPU seconds before every run, for components that nobody here
uses. This lists the project's own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.components.mistakes import did_you_mean, reported
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    from dagster.components.core.component_tree import ComponentTree

COMPONENTS = ["etl_assets.components"]


def load_defs_folder(root: Path) -> dg.Definitions:
    """Return the definitions of the project that `root` is in, with its component types for the web UI.

    A folder that Dagster could not read at all is reported beside the mistakes of the others, and left out.
    """
    from dagster.components.core.component_tree import ComponentTree

    tree = ComponentTree.for_project(path_within_project=root)
    folder = tree.defs_module_path
    files = {path: reported(partial(_documents, path), None) for path in sorted(folder.rglob("defs.yaml"))}
    if None not in files.values():
        return dg.Definitions.merge(tree.build_defs(folder), _component_types(tree))
    # Dagster reads all files or none. The others are looked at for their mistakes: the caller knows of one, and raises.
    for path, documents in files.items():
        for document in documents or ():
            reported(partial(_look_at, document, path), None)
    return dg.Definitions()


def _look_at(document: Mapping[str, Any], path: Path) -> None:
    """Raise the mistakes of one component, as far as they show without the rest of the project."""
    from dagster.components.resolved.context import ResolutionContext

    from etl_assets.components import Connections, Pipeline
    from etl_assets.components.templates import resolved

    attributes = resolved(document.get("attributes") or {}, ResolutionContext.default())
    if document.get("type") == "etl_assets.components.Pipeline":
        Pipeline(**attributes).definitions(path.parent)
    elif document.get("type") == "etl_assets.components.Connections":
        Connections(**attributes).resources(where=str(path.parent))


def _documents(path: Path) -> list[Mapping[str, Any]]:
    """Return the documents of a `defs.yaml`, all of component types that exist.

    Raises:
        ConfigurationError: it is not; says where.
    """
    import yaml

    try:
        # The loader in C is ten times as fast, and Dagster reads every file once more.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        documents = [document for document in yaml.load_all(path.read_text("utf-8"), loader) if document is not None]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the file is not YAML: {error}", where=str(path), fix="mend the file") from error
    for document in documents:
        if not isinstance(document, Mapping):
            raise ConfigurationError("the file holds no keys", where=str(path), fix="it begins with `type:`")
        if "type" in document:
            _check_type(document["type"], path)
    return documents


def _check_type(name: Any, path: Path) -> None:
    """See to it that a component type can be imported; a failure inside of its module is not hidden."""
    module, _, attribute = str(name).rpartition(".")
    try:
        found = hasattr(importlib.import_module(module), attribute) if module else False
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        found = False
    if not found:
        own = vars(importlib.import_module(COMPONENTS[0])).items()
        known = [f"{COMPONENTS[0]}.{key}" for key, value in own if isinstance(value, type)]
        raise ConfigurationError(
            f"there is no component type {name!r}{did_you_mean(str(name), known)}",
            where=str(path),
            fix=f"known: {', '.join(known)}",
        )


def _component_types(tree: ComponentTree) -> dg.Definitions:
    # The same three calls that load_from_defs_folder makes, over one package instead of all; the version is pinned.
    from dagster.components.core.load_defs import PLUGIN_COMPONENT_TYPES_JSON_METADATA_KEY
    from dagster.components.core.package_entry import discover_package_objects
    from dagster.components.core.snapshot import get_package_entry_snap
    from dagster_shared.serdes.objects.package_entry import json_for_all_components

    found = discover_package_objects(COMPONENTS)
    described = json_for_all_components([get_package_entry_snap(key, thing) for key, thing in found.items()])
    return dg.Definitions(metadata={PLUGIN_COMPONENT_TYPES_JSON_METADATA_KEY: described}, component_tree=tree)
