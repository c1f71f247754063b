"""Finds sources and targets by the `type` a user writes, which is the name of the module."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from typing import Any

from etl_resources.exceptions import ConfigurationError
from etl_resources.source import Source
from etl_resources.target import Target


@functools.cache
def known_types(kind: str) -> list[str]:
    """Return the types of `kind` (`sources` or `targets`) that exist."""
    package = importlib.import_module(f"etl_resources.{kind}")
    return sorted(
        module.name
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_") and not module.name.count("_")
    )


def source_type(name: Any, *, where: str) -> type[Source]:
    """Return the source class of a type.

    Raises:
        ConfigurationError: there is none; names the nearest.
    """
    found: type[Source] = _find("sources", name, "SOURCE", where)
    return found


def target_type(name: Any, *, where: str) -> type[Target]:
    """Return the target class of a type; raises as `source_type`."""
    found: type[Target] = _find("targets", name, "TARGET", where)
    return found


def _find(kind: str, name: Any, attribute: str, where: str) -> Any:
    known = known_types(kind)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigurationError(
            f"there is no {kind[:-1]} of type {name!r}", where=where, fix=f"{hint}known: {', '.join(known)}"
        )
    return getattr(importlib.import_module(f"etl_resources.{kind}.{name}"), attribute)
