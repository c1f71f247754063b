"""Clients of outside systems that are installed with an extra."""

from __future__ import annotations

import importlib
from types import ModuleType

from etl_resources.exceptions import ConfigurationError


def client(module: str, *, extra: str) -> ModuleType:
    """Import the client library of a system.

    Raises:
        ConfigurationError: it is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the client is there and lacks something else
        raise ConfigurationError(
            f"the package {module.partition('.')[0]} is not installed",
            fix=f"pip install 'etl-platform[{extra}]'",
        ) from error
