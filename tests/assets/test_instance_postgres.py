"""deploy/: the instance on PostgreSQL, and its processes, started by the commands of the systemd units."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from tests.servers.postgres import PostgresServer
from tests.servers.proxy import free_port

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"

SHOP = """
import time
import dagster as dg

@dg.asset
def sales() -> None:
    time.sleep(1.5)

def requests(context):
    for key in ("first", "second"):
        yield dg.RunRequest(run_key=key, tags={"etl/pipeline": "shop"})

two_at_once = dg.SensorDefinition(
    name="two_at_once", target=[sales], evaluation_fn=requests, default_status=dg.DefaultSensorStatus.RUNNING
)
defs = dg.Definitions(assets=[sales], sensors=[two_at_once], executor=dg.in_process_executor)
"""


@pytest.fixture
def home(tmp_path: Path, postgres_server: PostgresServer, postgres_database: str, monkeypatch) -> Path:
    """A DAGSTER_HOME as deploy/README.md has it made."""
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    for name, value in {
        "DAGSTER_HOME": str(tmp_path),
        "DAGSTER_PG_HOST": "127.0.0.1",
        "DAGSTER_PG_PORT": str(postgres_server.port),
        "DAGSTER_PG_DATABASE": postgres_database,
        "DAGSTER_PG_USER": "postgres",
        "DAGSTER_PG_PASSWORD": "quoted: @/?#",
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def _commands(unit: str, replaced: dict[str, str]) -> list[list[str]]:
    """What a unit runs, with the paths and ports of this test in the place of those of the page."""
    lines = (DEPLOY / "systemd" / f"etl-{unit}.service").read_text(encoding="utf-8").splitlines()
    commands = [
        shlex.split(line.partition("=")[2]) for line in lines if line.startswith(("ExecStartPre=", "ExecStart="))
    ]
    programs = Path(sys.executable).parent
    return [
        [str(programs / Path(program).name), *[replaced.get(word, word) for word in words]]
        for program, *words in commands
    ]


@contextmanager
def _service(unit: str, home: Path, replaced: dict[str, str]) -> Iterator[None]:
    *before, main = _commands(unit, replaced)
    for command in before:
        subprocess.run(command, cwd=PROJECT, check=True, timeout=60)
    with (home / f"{unit}.log").open("wb") as log:
        process = subprocess.Popen(main, cwd=home, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _finished_runs(instance: dg.DagsterInstance, number: int, home: Path) -> list[dg.RunRecord]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        records = list(instance.get_run_records(ascending=True))
        if len(records) == number and all(record.dagster_run.is_finished for record in records):
            return records
        time.sleep(0.3)
    raise AssertionError("\n".join(log.read_text(errors="replace")[-3000:] for log in home.glob("*.log")))


def _launched(instance: dg.DagsterInstance, run_id: str) -> float:
    (event,) = instance.all_logs(run_id, of_type=dg.DagsterEventType.PIPELINE_STARTING)
    return event.timestamp


@pytest.mark.soak
def test_one_run_of_a_pipeline_at_a_time_on_postgres(home: Path) -> None:
    """A sensor asks for two runs of one pipeline at once: the second waits for the first, though there is
    room for eight. Both are read back from PostgreSQL."""
    port = str(free_port())
    (home / "shop.py").write_text(SHOP, encoding="utf-8")
    workspace = (DEPLOY / "workspace.yaml").read_text(encoding="utf-8")
    assert "port: 4000" in workspace
    (home / "workspace.yaml").write_text(workspace.replace("port: 4000", f"port: {port}"), encoding="utf-8")
    replaced = {
        "4000": port,
        "etl_assets.definitions": "shop",
        "/opt/etl": str(home),
        "/opt/etl/deploy/workspace.yaml": str(home / "workspace.yaml"),
    }

    with ExitStack() as services:
        services.enter_context(_service("code", home, replaced))
        services.enter_context(_service("daemon", home, replaced))
        instance = services.enter_context(dg.DagsterInstance.get())
        first, second = sorted(_finished_runs(instance, 2, home), key=lambda record: record.start_time)

        assert {record.dagster_run.status for record in (first, second)} == {dg.DagsterRunStatus.SUCCESS}
        assert second.create_timestamp.timestamp() < first.start_time
        assert _launched(instance, second.dagster_run.run_id) >= first.end_time
        assert instance.get_latest_materialization_event(dg.AssetKey("sales")) is not None

    with psycopg.connect(
        host="127.0.0.1", port=os.environ["DAGSTER_PG_PORT"], dbname=os.environ["DAGSTER_PG_DATABASE"], user="postgres"
    ) as connection:
        stored = connection.execute("SELECT count(*) FROM runs WHERE status = 'SUCCESS'").fetchone()
    assert stored == (2,)
    assert not list(home.rglob("*.db")), "something went to SQLite"
