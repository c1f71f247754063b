"""The sensor of a pipeline over files in a folder: looks, asks for the tables that are concerned, reads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from etl_assets.components import Pipeline
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import ConfigurationError
from etl_resources.lake import Lake


def pipeline(folder: Path, **changes: Any) -> dg.Definitions:
    streams = {
        name: {"source": {"type": "file", "path": f"{folder}/{name}.csv"}, "key": ["id"], "steps": []}
        for name in ("customers", "orders")
    }
    (folder / "all.sql").write_text("SELECT * FROM silver.orders")
    attributes = {
        "name": "shop", "watch": {"seconds": 30}, "streams": streams, "gold": {"all_orders": {"sql": "all.sql"}},
    } | changes  # fmt: skip
    resources = {"lake": Lake(uri=str(folder / "lake")), "engine": DuckDB(memory_limit="500MB", threads=1)}
    return dg.Definitions.merge(
        Pipeline(**attributes).definitions(folder),
        dg.Definitions(resources=resources, executor=dg.in_process_executor),
    )


class Watched:
    """A pipeline, its sensor, and the instance that they live in."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder, self.instance, self.cursor = folder, instance, None
        self.definitions = pipeline(folder)
        self.repository = self.definitions.get_repository_def()

    def tick(self) -> Any:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=self.repository,
        )  # fmt: skip
        sensor = self.definitions.resolve_sensor_def("shop_watch")
        done = sensor.evaluate_tick(context)
        self.cursor = done.cursor
        return done

    def asked(self) -> list[str]:
        requests = self.tick().run_requests or []
        assert len(requests) <= 1
        return sorted("/".join(key.path) for request in requests for key in request.asset_selection or ())

    def run(self, *tables: str, **options: Any) -> bool:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(table.split("/")) for table in tables]
        return job.execute_in_process(
            instance=self.instance, asset_selection=keys, raise_on_error=False, tags={"etl/pipeline": "shop"}, **options
        ).success


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    for name in ("customers", "orders"):
        (tmp_path / f"{name}.csv").write_text("id\n1\n")
    with dg.DagsterInstance.ephemeral() as instance:
        yield Watched(tmp_path, instance)


EVERYTHING = [
    "bronze/shop/customers",
    "bronze/shop/orders",
    "gold/shop/all_orders",
    "silver/shop/customers",
    "silver/shop/orders",
]


def test_only_what_is_concerned_is_asked_for(watched: Watched) -> None:
    assert watched.asked() == EVERYTHING
    assert watched.run(*EVERYTHING)
    assert watched.asked() == [], "nothing is new"
    (watched.folder / "orders.csv").write_text("id\n1\n2\n")
    assert watched.asked() == ["bronze/shop/orders", "gold/shop/all_orders", "silver/shop/orders"]


def test_a_look_reads_nothing(watched: Watched) -> None:
    watched.asked()
    assert not (watched.folder / "lake").exists()


def test_a_run_that_failed_is_asked_for_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    from etl_assets.components import sensors

    clock = [sensors.time.time()]
    monkeypatch.setattr(sensors.time, "time", lambda: clock[0])
    assert watched.asked() == EVERYTHING
    (watched.folder / "orders.csv").unlink()
    assert not watched.run(*EVERYTHING)
    assert watched.asked() == [], "at first it waits"
    (watched.folder / "orders.csv").write_text("id\n1\n")
    clock[0] += 61
    assert "bronze/shop/orders" in watched.asked()


def test_a_pipeline_that_is_running_is_not_started_again(watched: Watched) -> None:
    run = watched.instance.create_run_for_job(
        watched.definitions.resolve_implicit_global_asset_job_def(),
        status=dg.DagsterRunStatus.STARTED, tags={"etl/pipeline": "shop"},
    )  # fmt: skip
    done = watched.tick()
    assert not done.run_requests
    assert run.run_id[:8] in (done.skip_message or "")
    watched.instance.report_run_failed(run)
    assert watched.asked() == EVERYTHING


def test_a_source_that_cannot_be_looked_at_is_told_and_the_others_are(watched: Watched) -> None:
    (watched.folder / "customers.csv").unlink()
    assert watched.asked() == ["bronze/shop/orders", "gold/shop/all_orders", "silver/shop/orders"]
    assert "customers cannot be looked at: no file" in (watched.tick().skip_message or "")


def test_partitions_are_not_watched(tmp_path: Path) -> None:
    stream = {
        "source": {"type": "file", "path": "x.csv"}, "key": ["id"],
        "partitions": {"daily": {"start": "2024-01-01", "column": "day"}},
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match="none of the streams can be watched"):
        pipeline(tmp_path, streams={"days": stream}, gold={})
