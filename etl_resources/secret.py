from __future__ import annotations

import os
from typing import Any

import dagster as dg
from pydantic import model_validator

from etl_resources.exceptions import ConfigurationError


class Secret(dg.Config):
    """The *name* of an environment variable that holds a secret; written `{env: NAME}` in YAML.

    The value is read when a connection opens, never while definitions load, and is not part of the object: neither
    `repr`, Dagster's run configuration, metadata nor a log can show it.
    """

    env: str

    @model_validator(mode="before")
    @classmethod
    def _refuse_literals(cls, value: Any) -> Any:
        if isinstance(value, str):
            # Not shown: the literal may be the secret itself.
            raise ValueError("a secret is never written down: give {env: NAME_OF_A_VARIABLE} and set that variable")  # noqa: TRY004
        return value

    def reveal(self) -> str:
        """Return the secret.

        Raises:
            ConfigurationError: the variable is not set.
        """
        value = os.environ.get(self.env)
        if value is None:
            raise ConfigurationError(
                f"environment variable {self.env} is not set", fix=f"export {self.env}=... before starting"
            )
        return value
