"""Wrong usage ends with 2, failures with 1, and both say what, where and how to fix it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from etl_resources.exceptions import ConfigurationError
from tests.assets.cli.conftest import Shop

BROKEN = """\
type: etl_assets.components.Pipeline
attributes:
  name: {name}
  streams:
    things:
      sauce: {{type: file, path: data/things.csv}}
      key: [id]
"""


def test_help_loads_neither_dagster_nor_a_data_library() -> None:
    """It answers at once: what takes seconds to import is imported by the command that needs it."""
    heavy = "{'dagster', 'pyarrow', 'duckdb', 'deltalake', 'pandas', 'ibis', 'sqlglot', 'pydantic'}"
    code = f"""
import sys
from etl_assets.cli.main import main
for words in ([], ["--help"], ["run", "--help"], ["errors", "--help"], ["demo", "--help"]):
    try:
        main(words)
    except SystemExit:
        pass
sys.exit(sorted({heavy} & set(sys.modules)) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_installed_command_ends_with_the_code_of_main(shop: Shop) -> None:
    ended = shop.installed("runn")
    assert ended.code == 2
    assert ended.out == ""
    assert "No such command 'runn'" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["run", "x", "--ful-refresh"],
        ["errors", "shwo"],
        ["errors", "discard", "orders"],
        ["history", "--limit", "x"],
    ],
)
def test_wrong_words_are_wrong_usage(shop: Shop, words: list[str]) -> None:
    ended = shop.etl(*words)
    assert ended.code == 2
    assert "--help" in ended.err


def test_outside_of_a_project_it_says_what_a_project_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from etl_assets.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["status"]) == 1


def test_the_project_is_found_from_below_and_by_its_variable(
    orders: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from etl_assets.cli.main import main

    monkeypatch.chdir(orders.root / "data" / "orders")
    assert main(["history", "--json"]) == 0
    below = capsys.readouterr().out
    assert Path.cwd() == orders.root / "data" / "orders", "the command leaves the process where it was"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ETL_PROJECT", str(orders.root))
    assert main(["history", "--json"]) == 0
    assert capsys.readouterr().out == below

    monkeypatch.setenv("ETL_PROJECT", str(tmp_path))
    assert main(["history"]) == 1
    assert "no project" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["run", "plan", "check", "status", "history", "stats"])
def test_a_misspelt_pipeline_is_told_with_what_was_meant(orders: Shop, verb: str) -> None:
    ended = orders.etl(verb, "ordres")
    assert ended.code == 2
    assert "did you mean 'orders'?" in ended.err
    assert ended.out == ""


def test_all_mistakes_of_all_pipelines_are_told_without_a_traceback(shop: Shop) -> None:
    shop.write("defs/one/defs.yaml", BROKEN.format(name="one"))
    shop.write("defs/two/defs.yaml", BROKEN.format(name="two"))
    ended = shop.etl("status")
    assert ended.code == 1
    assert "did you mean 'source'?" in ended.err
    assert "defs/one" in ended.err
    assert "defs/two" in ended.err
    assert "Traceback" not in ended.err


def test_yaml_that_cannot_be_read_is_told_with_its_file(shop: Shop) -> None:
    shop.write("defs/one/defs.yaml", "type: etl_assets.components.Pipeline\nattributes: {name: [\n")
    ended = shop.etl("status")
    assert ended.code == 1
    assert "defs/one/defs.yaml" in ended.err.replace("\\", "/")
    assert "Traceback" not in ended.err


def test_a_type_that_is_not_there_is_a_mistake_of_the_definitions(shop: Shop) -> None:
    shop.write("defs/one/defs.yaml", "type: etl_assets.components.Pipelin\nattributes: {}\n")
    ended = shop.etl("status")
    assert ended.code == 1
    assert "'etl_assets.components.Pipelin' - did you mean 'etl_assets.components.Pipeline'?" in ended.err
    assert "defs/one/defs.yaml" in ended.err
    assert "Traceback" not in ended.err


def test_a_file_that_cannot_be_read_hides_no_mistake_of_another(shop: Shop) -> None:
    shop.write("defs/one/defs.yaml", "type: etl_assets.components.Pipeline\nattributes: {name: [\n")
    shop.write("defs/two/defs.yaml", "type: etl_assets.components.Pipelin\nattributes: {}\n")
    shop.write("defs/three/defs.yaml", BROKEN.format(name="three"))
    ended = shop.etl("status")
    assert ended.code == 1
    assert "3 mistakes" in ended.err
    for told in ("defs/one/defs.yaml", "did you mean 'etl_assets.components.Pipeline'?", "did you mean 'source'?"):
        assert told in ended.err


CONNECTIONS = """
type: etl_assets.components.Connections
attributes:
  connections:
    shop: {type: postgres, host: localhost, database: shop, user: etl, sslmode: disable}
    files: {type: file}
"""
USES = """
type: etl_assets.components.Pipeline
attributes:
  name: uses
  streams:
    one: {source: {type: postgres, connection: shpo, table: one}, key: [id]}
    two: {source: {type: postgres, connection: files, table: two}, key: [id]}
    three: {source: {type: postgres, connection: shop, table: three}, key: [id]}
  publish:
    - {table: silver/one, target: {type: postgres, connection: nowhere, table: out}}
"""


def test_a_connection_that_is_not_there_is_a_mistake_of_the_stream(shop: Shop) -> None:
    shop.write("defs/connections/defs.yaml", CONNECTIONS)
    shop.write("defs/uses/defs.yaml", USES)
    ended = shop.etl("status")
    assert ended.code == 1
    assert "3 mistakes" in ended.err
    assert "stream one: there is no connection 'shpo' of type postgres - did you mean 'shop'?" in ended.err
    assert "stream two: the connection 'files' is of type file, not postgres" in ended.err
    assert "publish silver/one: there is no connection 'nowhere' of type postgres (known: shop)" in ended.err


def test_debug_shows_the_traceback(shop: Shop) -> None:
    shop.write("defs/one/defs.yaml", BROKEN.format(name="one"))
    with pytest.raises(ConfigurationError) as error:  # which Python shows with its traceback
        shop.etl("status", "--debug")
    assert "load_location" in [entry.name for entry in error.traceback]


def test_an_environment_sets_variables_that_are_not_set_and_shows_none(
    orders: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.write(".env.elsewhere", "ETL_LAKE_URI=other-lake\nTHE_TOKEN=t0p-secret\n")
    try:
        assert sum(one["silver_rows"] for one in orders.etl("status", "--json").data) > 0
        ended = orders.etl("doctor", "--json", "--env", "elsewhere")
        assert any("other-lake" in finding["text"] for finding in ended.data)
        assert "t0p-secret" not in ended.out + ended.err

        monkeypatch.setenv("ETL_LAKE_URI", "mine")
        ended = orders.etl("doctor", "--json", "--env", "elsewhere")
        assert any(finding["text"].endswith("/mine") for finding in ended.data)
    finally:
        monkeypatch.delenv("ETL_LAKE_URI", raising=False)
        monkeypatch.delenv("THE_TOKEN", raising=False)

    ended = orders.etl("status", "--env", "elsewere")
    assert ended.code == 2
    assert "known: elsewhere" in ended.err
