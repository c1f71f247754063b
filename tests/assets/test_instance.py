"""dagster.yaml and deploy/dagster.yaml: Dagster knows every key, and the embedded one needs no DAGSTER_HOME."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster._cli.asset import asset_materialize_command
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import ConfigurableClassData

from tests.soaking import some

PROJECT = Path(__file__).parents[2]
FILES = {"embedded": PROJECT / "dagster.yaml", "deploy": PROJECT / "deploy" / "dagster.yaml"}
SETTINGS: dict[str, dict[str, Any]] = {name: yaml.safe_load(path.read_text("utf-8")) for name, path in FILES.items()}

# Free of form for Dagster: the names in here are not its own.
OPEN = {"applyLimitPerUniqueValue"}


def _paths(node: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(key, str) and key not in OPEN:
            yield (*above, key)
        yield from _paths(value, (*above, key))


def _with_typo(settings: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(settings)
    node: Any = changed
    for key in path[:-1]:
        node = node[key]
    node[f"{path[-1]}x"] = node.pop(path[-1])
    return changed


def _check(settings: dict[str, Any], folder: Path) -> None:
    """Have Dagster read the settings, and make every class they name with its configuration; storage is not opened."""
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    ref = InstanceRef.from_dir(str(folder))
    for section in ("local_artifact_storage", "compute_logs", "run_coordinator"):
        if section in settings:
            data = ref._asdict()[f"{section}_data"]
            assert isinstance(data, ConfigurableClassData)
            data.rehydrate(as_type=object)


@pytest.fixture
def environment(monkeypatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    for name in ("HOST", "DATABASE", "USER", "PASSWORD"):
        monkeypatch.setenv(f"DAGSTER_PG_{name}", "x")
    monkeypatch.setenv("DAGSTER_PG_PORT", "1")


@pytest.mark.parametrize("name", FILES)
def test_dagster_reads_the_settings(name: str, tmp_path: Path, environment, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    _check(SETTINGS[name], tmp_path)


PATHS = sorted(((name, path) for name in FILES for path in _paths(SETTINGS[name])), key=lambda one: len(one[1]))


@pytest.mark.parametrize(("name", "path"), some(PATHS, 36))
def test_a_typo_in_any_key_is_an_error(
    name: str, path: tuple[str, ...], tmp_path: Path, environment, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dg.DagsterInvalidConfigError, match=str(path[-1])):
        _check(_with_typo(SETTINGS[name], path), tmp_path)


def test_the_embedded_instance_keeps_everything_beside_itself_without_dagster_home(tmp_path: Path, monkeypatch) -> None:
    """In a clean folder with nothing but the settings, a run of Dagster's command line is there afterwards."""
    shutil.copy(FILES["embedded"], tmp_path)
    module = "import dagster as dg\n\n@dg.asset\ndef one() -> None:\n    print('a line of the step')\n"
    (tmp_path / "tiny.py").write_text(
        module + "\ndefs = dg.Definitions(assets=[one], executor=dg.in_process_executor)\n"
    )
    for name in [name for name in os.environ if name.startswith("DAGSTER")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # and what the command puts there goes again

    ended = CliRunner().invoke(asset_materialize_command, ["-m", "tiny", "--select", "*"])

    assert ended.exit_code == 0, ended.output
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"dagster.yaml", "tiny.py", ".dagster"}
    assert list((tmp_path / ".dagster" / "compute_logs").rglob("*.out"))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
        assert instance.get_latest_materialization_event(dg.AssetKey("one")) is not None


def _run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, tags: dict[str, str]) -> str:
    @dg.job
    def nothing() -> None: ...

    return instance.create_run_for_job(nothing, status=status, tags=tags).run_id


def test_runs_that_went_down_with_their_code_server_are_closed_and_retried(tmp_path: Path) -> None:
    """Others are left alone: what is finished, what waits, and what the command line runs in its own process."""
    spec = importlib.util.spec_from_file_location("close_orphans", PROJECT / "deploy" / "close_orphans.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    status, launched = dg.DagsterRunStatus, {module.LAUNCHED: "{}"}
    retries = {"run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}}

    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=retries) as instance:
        cut = [_run(instance, state, launched) for state in (status.STARTING, status.STARTED)]
        cancelling = _run(instance, status.CANCELING, launched)
        kept = {_run(instance, state, launched): state for state in (status.NOT_STARTED, status.SUCCESS)}
        kept[_run(instance, status.STARTED, {})] = status.STARTED

        closed = module.close_orphans(instance)

        states = {run.run_id: run for run in instance.get_runs()}
        assert set(closed) == {*cut, cancelling}
        assert [states[run].status for run in cut] == [status.FAILURE] * 2
        assert [states[run].tags.get("dagster/will_retry") for run in cut] == ["true"] * 2
        assert states[cancelling].status == status.CANCELED
        assert {run: states[run].status for run in kept} == kept


def test_the_tag_of_launched_runs_is_the_one_dagster_gives_them() -> None:
    from dagster._core.storage.tags import GRPC_INFO_TAG

    assert f'LAUNCHED = "{GRPC_INFO_TAG}"' in (PROJECT / "deploy" / "close_orphans.py").read_text(encoding="utf-8")
