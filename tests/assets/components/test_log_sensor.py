"""The sensor of a change log over a real PostgreSQL: it looks, asks for runs, and spares the source what it must."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from etl_assets.components import Pipeline
from etl_assets.pausing import pause, resume
from etl_resources.engines.duckdb import DuckDB
from etl_resources.lake import Lake
from etl_resources.resilience import Policy
from etl_resources.sources.postgres import PostgresSource
from tests.servers.postgres import PostgresServer
from tests.soaking import some

BRONZE, SILVER = "bronze/sensed/orders", "silver/sensed/orders"


class Sensed:
    """A table, a pipeline that follows its log, and the instance that both live in."""

    def __init__(self, folder: Path, server: PostgresServer, instance: dg.DagsterInstance) -> None:
        self.folder, self.server, self.instance = folder, server, instance
        self.database = server.database()
        self.client = server.connect(self.database)
        self.client.execute("CREATE TABLE orders (id int PRIMARY KEY, v int); INSERT INTO orders VALUES (1, 1), (2, 2)")
        self.follow()

    def follow(self, port: int | None = None, **log: Any) -> None:
        """Define the pipeline, with settings of the log."""
        stream = {
            "source": {"type": "postgres", "connection": "shop", "table": "orders"},
            "capture": {"log": {"slot": f"sensed_{self.database}", **log}}, "key": ["id"],
        }  # fmt: skip
        source = PostgresSource(
            **self.server.settings(self.database, **({"port": port} if port else {})), resilience=Policy(attempts=1)
        )
        self.resources = {
            "lake": Lake(uri=str(self.folder)), "engine": DuckDB(memory_limit="500MB", threads=1), "shop": source,
        }  # fmt: skip
        self.definitions = dg.Definitions.merge(
            Pipeline(name="sensed", streams={"orders": stream}).definitions(self.folder),
            dg.Definitions(resources=self.resources, executor=dg.in_process_executor),
        )
        self.repository = self.definitions.get_repository_def()

    def tick(self) -> Any:
        context = dg.build_sensor_context(
            instance=self.instance, repository_def=self.repository, resources=self.resources
        )
        return self.definitions.resolve_sensor_def("sensed_shop_capture").evaluate_tick(context)

    def asked(self) -> list[str]:
        """Return the tables that a run is asked for; it never has a key that would keep another run from starting."""
        requests = self.tick().run_requests or []
        assert all(request.run_key is None for request in requests)
        return sorted("/".join(key.path) for request in requests for key in request.asset_selection or ())

    def skipped(self) -> str:
        """Return why no run is asked for."""
        done = self.tick()
        assert not done.run_requests
        return str(done.skip_message)

    def run(self) -> bool:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(table.split("/")) for table in (BRONZE, SILVER)]
        return job.execute_in_process(
            instance=self.instance, asset_selection=keys, raise_on_error=False, tags={"etl/pipeline": "sensed"}
        ).success

    def slots(self) -> int:
        found = self.client.execute("SELECT FROM pg_replication_slots WHERE database = current_database()")
        return len(found.fetchall())

    def drop_slot(self) -> None:
        self.client.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
        )

    def write_much(self) -> None:
        """Let the slot hold back some megabytes, of a table that nobody follows."""
        self.client.execute("CREATE TABLE other AS SELECT repeat('x', 100) AS x FROM generate_series(1, 20000)")


@pytest.fixture
def sensed(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Sensed]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Sensed(tmp_path, postgres_server, instance)
        yield made
        made.drop_slot()
        made.client.close()


def test_a_run_is_asked_for_where_there_is_something_to_do_and_only_there(sensed: Sensed) -> None:
    assert sensed.asked() == [BRONZE, SILVER], "it was never read"
    assert sensed.slots() == 0, "a look has set something up"
    assert sensed.run()
    # What our own run wrote into the log, its heartbeat, is nothing new: else runs would follow one another for ever.
    for _ in range(2):
        assert sensed.skipped() == "nothing is new"
    sensed.client.execute("UPDATE orders SET v = 7 WHERE id = 1")
    assert sensed.asked() == [BRONZE, SILVER]
    assert sensed.asked() == [BRONZE, SILVER], "the run that was asked for may have crashed"
    assert sensed.run()
    assert sensed.skipped() == "nothing is new"


def test_no_run_is_asked_for_while_the_pipeline_runs_or_rests(sensed: Sensed) -> None:
    assert sensed.run()
    sensed.client.execute("UPDATE orders SET v = 7 WHERE id = 1")
    run = sensed.instance.create_run_for_job(
        sensed.definitions.resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus.STARTED, tags={"etl/pipeline": "sensed"},
    )  # fmt: skip
    assert run.run_id[:8] in sensed.skipped()
    sensed.instance.report_run_failed(run)
    pause(sensed.instance, "sensed_shop", "moving house")
    assert sensed.skipped() == "paused: moving house"
    resume(sensed.instance, "sensed_shop")
    assert sensed.asked() == [BRONZE, SILVER]


@pytest.mark.parametrize("settings", some([{}, {"mode": "continuous", "lasts": 0.1}], 1))
def test_a_log_that_is_lost_starts_no_run_that_would_fail(sensed: Sensed, settings: dict[str, Any]) -> None:
    sensed.follow(**settings)
    assert sensed.run()
    sensed.drop_slot()
    assert "is gone: read the streams anew" in sensed.skipped()
    sensed.follow(on_lost="resnapshot", **settings)
    assert sensed.asked() == [BRONZE, SILVER]
    assert sensed.run()
    assert sensed.slots() == 1


def test_a_continuous_run_is_followed_by_the_next(sensed: Sensed) -> None:
    sensed.follow(mode="continuous", lasts=0.1)
    assert sensed.run()
    assert sensed.asked() == [BRONZE, SILVER]


@pytest.mark.parametrize("rests", [True, False])
def test_a_slot_that_holds_back_too_much_is_dropped_while_nothing_runs(sensed: Sensed, rests: bool) -> None:
    """The user has said so; without that it is only said, and kept."""
    assert sensed.run()
    sensed.write_much()
    if rests:
        pause(sensed.instance, "sensed_shop")
    sensed.follow(max_retained=100_000)
    done = sensed.tick()
    assert bool(done.run_requests) is not rests
    assert not rests or "more than `max_retained`" in str(done.skip_message)
    assert sensed.slots() == 1
    sensed.follow(max_retained=100_000, drop_beyond_cap=True)
    said = sensed.skipped()
    assert "was dropped: it held back" in said
    assert "etl capture resnapshot" in said
    assert said.startswith("paused") is rests
    assert sensed.slots() == 0
    assert "was dropped" not in sensed.skipped()


@pytest.mark.soak
def test_after_a_slot_was_dropped_the_run_that_reads_anew_ends_well(sensed: Sensed) -> None:
    assert sensed.run()
    sensed.write_much()
    sensed.follow(max_retained=100_000, drop_beyond_cap=True)
    assert "was dropped" in sensed.skipped()
    sensed.follow(max_retained=100_000, drop_beyond_cap=True, on_lost="resnapshot")
    assert sensed.run()
    assert sensed.skipped() == "nothing is new"


def test_a_server_that_cannot_be_asked_is_told_and_starts_no_run(sensed: Sensed) -> None:
    assert sensed.run()
    sensed.follow(port=1)
    assert "shop cannot be looked at" in sensed.skipped()
