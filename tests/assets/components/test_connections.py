"""Connections and their secrets."""

from __future__ import annotations

from typing import Any

import pytest

from etl_assets.components import Connections
from etl_resources.exceptions import ConfigurationError
from etl_resources.secret import Secret

SHOP = {"type": "postgres", "host": "db", "database": "shop", "user": "etl", "password": {"env": "SHOP_PASSWORD"}}


def test_a_connection_is_a_source_and_a_target() -> None:
    found = Connections({"shop": SHOP}).resources(where="test")

    assert set(found) == {"shop", "shop_target"}


def test_a_secret_is_in_no_repr_and_in_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "t0p-secret")

    found = Connections({"shop": SHOP}).resources(where="test")

    assert Secret(env="SHOP_PASSWORD").reveal() == "t0p-secret"
    shown = "".join(repr(resource) + str(resource.model_dump()) for resource in found.values())
    assert "t0p-secret" not in shown


def test_a_secret_that_is_written_down_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as error:
        Connections({"shop": {**SHOP, "password": "hunter2"}}).resources(where="test")

    assert "never written down" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match="NOT_SET_ANYWHERE is not set"):
        Secret(env="NOT_SET_ANYWHERE").reveal()


@pytest.mark.parametrize(
    ("connections", "expected"),
    [
        ({"shop": {**SHOP, "hots": "db"}}, "shop.hots: unknown key - did you mean 'host'?"),
        ({"shop": {**SHOP, "type": "postgre"}}, "there is no type 'postgre' - did you mean 'postgres'?"),
        ({"a": {"type": "x"}, "b": {"type": "y"}}, "b: there is no type 'y'"),
    ],
)
def test_mistakes_are_told_with_what_was_meant(connections: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        Connections(connections).resources(where="test")

    assert expected in str(error.value)
