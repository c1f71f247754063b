from __future__ import annotations

import pytest

from etl_resources.exceptions import ConfigurationError
from etl_resources.extras import client


def test_a_client_that_is_not_installed_names_the_extra_that_brings_it() -> None:
    with pytest.raises(ConfigurationError, match=r"pip install 'etl-platform\[shop\]'") as caught:
        client("no_such_client.dbapi", extra="shop")
    assert "no_such_client is not installed" in caught.value.what


def test_a_client_that_is_there_and_lacks_something_is_another_error(tmp_path, monkeypatch) -> None:
    (tmp_path / "half_a_client.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        client("half_a_client", extra="shop")


def test_a_client_that_is_installed_is_given() -> None:
    assert client("json.decoder", extra="shop").JSONDecoder
