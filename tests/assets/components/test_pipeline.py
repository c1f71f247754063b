"""A pipeline as a user writes it: what is refused, and that all of it is told at once."""

from __future__ import annotations

import shutil
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from etl_assets.components import Pipeline
from etl_assets.components.mistakes import collecting, reported
from etl_assets.definitions import missing_dependencies
from etl_resources.engines.duckdb import DuckDB
from etl_resources.exceptions import ConfigurationError
from etl_resources.lake import Lake

CONTRACT = """
    apiVersion: v3.1.0
    kind: DataContract
    id: things
    version: 1.0.0
    status: active
    schema:
      - name: things
        properties:
          - {name: id, logicalType: integer, primaryKey: true, primaryKeyPosition: 1, required: true}
          - {name: name, logicalType: string, description: What it is called.}
          - {name: amount, logicalType: number, physicalType: 'DECIMAL(10,2)', logicalTypeOptions: {minimum: 0}}
"""
PIPELINE = """
    name: shop
    owners: ["team:data"]
    schedule: "@daily"
    streams:
      things:
        source: {type: file, path: FOLDER/things.csv}
        key: [id]
        steps:
          - trim: [name]
          - filter: {rule: no_tests, where: "name IS DISTINCT FROM 'test'"}
        contract: things.odcs.yaml
    gold:
      totals: {sql: totals.sql}
      named: {from: silver/things, steps: [{group_by: {by: [name], aggregates: {total: {sum: amount}}}}]}
    publish:
      - {table: gold/totals, target: {type: file, path: FOLDER/out, format: csv}}
"""


Ran = tuple[Path, dg.ExecuteInProcessResult]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A folder whose pipeline has run once, and what came of it; those that change its data come behind the others."""
    folder = filled(tmp_path_factory.mktemp("ran"))
    return folder, run(folder, definitions(folder))


def filled(tmp_path: Path) -> Path:
    (tmp_path / "things.csv").write_text("id,name,amount\n1, a ,1.50\n2,test,1\n3,b,-1\n4,c,x\n5,d,2.25\n")
    (tmp_path / "things.odcs.yaml").write_text(textwrap.dedent(CONTRACT))
    (tmp_path / "totals.sql").write_text("SELECT count(*) AS things, sum(amount) AS amount FROM silver.things;\n")
    return tmp_path


def attributes(folder: Path, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(textwrap.dedent(PIPELINE).replace("FOLDER", str(folder))), **changes}


def definitions(folder: Path, **changes: Any) -> dg.Definitions:
    return Pipeline(**attributes(folder, **changes)).definitions(folder)


def complete(folder: Path, defs: dg.Definitions) -> dg.Definitions:
    resources = {"lake": Lake(uri=str(folder / "lake")), "engine": DuckDB(memory_limit="500MB", threads=1)}
    return dg.Definitions.merge(defs, dg.Definitions(resources=resources, executor=dg.in_process_executor))


def run(folder: Path, defs: dg.Definitions, **options: Any) -> dg.ExecuteInProcessResult:
    whole = complete(folder, defs)
    with dg.DagsterInstance.ephemeral() as instance:
        return whole.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, raise_on_error=False, **options
        )


def metadata(result: dg.ExecuteInProcessResult, key: str) -> dict[str, Any]:
    found = [
        event.materialization
        for event in result.all_events
        if event.is_step_materialization and event.materialization.asset_key.to_user_string() == key
    ]
    return {name: entry.value for name, entry in found[-1].metadata.items()}


def test_every_row_is_accounted_for_from_source_to_target(ran: Ran) -> None:
    folder, result = ran

    assert result.success
    assert metadata(result, "bronze/shop/things")["row account"] == "read 5 = inserted 5"
    silver = metadata(result, "silver/shop/things")
    assert silver["rows/read"] == 5
    assert silver["rows/inserted"] == 2
    assert silver["rows/filtered"] == 1
    assert silver["rows/rejected"] == 2
    assert silver["dagster/row_count"] == 2
    gold = metadata(result, "gold/shop/totals")
    assert gold["rows withheld upstream"] == 2
    assert metadata(result, "publish/shop/totals")["rows/inserted"] == 1
    published = list((folder / "out").rglob("*.csv"))
    assert len(published) == 1
    assert "3.75" in published[0].read_text()


def test_lineage_leads_from_the_published_column_to_the_source_column(ran: Ran) -> None:
    _, result = ran

    steps = {
        "publish/shop/totals": ("amount", "gold/shop/totals", "amount"),
        "gold/shop/totals": ("amount", "silver/shop/things", "amount"),
        "silver/shop/things": ("name", "bronze/shop/things", "name"),
        "bronze/shop/things": ("name", "source/file/shop/things", "name"),
    }
    for key, (column, parent, parent_column) in steps.items():
        deps = metadata(result, key)["dagster/column_lineage"].deps_by_column[column]
        assert [(dep.asset_key.to_user_string(), dep.column_name) for dep in deps] == [(parent, parent_column)]


@pytest.mark.soak
def test_a_second_run_reads_nothing_and_publishes_nothing_twice(ran: Ran) -> None:
    folder, _ = ran

    again = run(folder, definitions(folder))

    assert again.success
    assert metadata(again, "bronze/shop/things")["rows/read"] == 0
    assert metadata(again, "silver/shop/things")["rows/read"] == 0
    assert metadata(again, "silver/shop/things")["dagster/row_count"] == 2


def test_a_check_says_how_many_rows_its_rule_keeps_out(ran: Ran) -> None:
    _, result = ran

    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["range_amount"].passed
    assert checks["range_amount"].metadata["rejected"].value == 1


def test_checks_columns_and_owners_are_on_the_assets(folder: Path) -> None:
    graph = complete(folder, definitions(folder)).resolve_asset_graph()

    checks = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    for table in ("bronze/shop/things", "silver/shop/things", "gold/shop/totals", "publish/shop/totals"):
        assert (table, "rows_are_conserved") in checks
        assert graph.get(dg.AssetKey(table.split("/"))).owners == ["team:data"]


def test_full_refresh_reads_the_source_again_and_loses_nothing(ran: Ran) -> None:
    folder, _ = ran
    (folder / "things.csv").write_text("id,name,amount\n1,z,9\n")

    result = run(folder, definitions(folder), tags={"etl/full_refresh": "true"})

    assert result.success
    assert metadata(result, "silver/shop/things")["dagster/row_count"] == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stream": {}}, "stream: unknown key - did you mean 'streams'?"),
        ({"schedule": "@hourlyy"}, "'@hourlyy' is no cron expression - did you mean '@hourly'?"),
        ({"streams": {"t": {"source": {"type": "file", "path": "x"}, "key": []}}}, "streams.t.key"),
        (
            {"streams": {"t": {"source": {"type": "fiel", "path": "x"}, "key": ["a"]}}},
            "there is no source of type 'fiel'\n  where: pipeline shop, stream t\n  fix:   did you mean 'file'?",
        ),
        (
            {"streams": {"t": {"source": {"type": "file", "paht": "x"}, "key": ["a"]}}},
            "paht: unknown key - did you mean 'path'?",
        ),
        (
            {"streams": {"t": {"source": {"type": "file", "path": "x"}, "key": ["a"], "steps": [{"trimm": ["a"]}]}}},
            "trim",
        ),
        (
            {"streams": {"t": {"source": {"type": "file", "path": "x"}, "key": ["a"], "contract": "no.yaml"}}},
            "there is no contract no.yaml",
        ),
        ({"gold": {"g": {"sql": "missing.sql"}}}, "there is no file missing.sql"),
        ({"gold": {"g": {}}}, "exactly one of sql"),
        ({"publish": [{"table": "gold/totals", "target": {"type": "file", "path": "x"}, "mode": "upsert"}]}, "key"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_was_meant(
    folder: Path, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        definitions(folder, **changes)

    assert expected in str(error.value)


def test_gold_may_read_only_the_lake(folder: Path) -> None:
    (folder / "totals.sql").write_text("SELECT * FROM read_csv('/etc/passwd')")

    with pytest.raises(ConfigurationError, match="no table of the lake"):
        definitions(folder)


def test_all_mistakes_of_all_pipelines_are_told_together(folder: Path) -> None:
    with collecting() as (mistakes, _):
        for name in ("one", "two"):
            wrong = attributes(folder, name=name, gold={"a": {"sql": "no_a.sql"}, "b": {"sql": "no_b.sql"}})
            reported(lambda wrong=wrong: Pipeline(**wrong).definitions(folder), None)  # type: ignore[misc]

    told = "\n".join(mistakes)
    assert told.count("no_a.sql") >= 2
    assert told.count("no_b.sql") >= 2


def test_a_table_that_nothing_produces_is_a_mistake_and_not_an_external_asset(folder: Path) -> None:
    (folder / "totals.sql").write_text("SELECT * FROM silver.thingz")

    lines = missing_dependencies(complete(folder, definitions(folder)))

    assert lines == [
        "gold/shop/totals needs silver/shop/thingz, which nothing produces - did you mean 'silver/shop/things'?"
    ]


def test_a_schedule_of_a_partitioned_pipeline_runs_the_newest_complete_day(folder: Path) -> None:
    stream = {
        "source": {"type": "file", "path": "x.csv"},
        "key": ["id"],
        "partitions": {"daily": {"start": "2024-01-01", "column": "day"}},
    }
    repository = complete(
        folder, definitions(folder, streams={"days": stream}, gold={}, publish=[])
    ).get_repository_def()
    schedule = repository.get_schedule_def("shop_schedule")
    at = datetime(2024, 1, 20, 6, tzinfo=UTC)

    with dg.DagsterInstance.ephemeral() as instance:
        tick = schedule.evaluate_tick(
            dg.build_schedule_context(instance, scheduled_execution_time=at, repository_def=repository)
        )

    assert [request.partition_key for request in tick.run_requests or []] == ["2024-01-19"]


def test_a_lake_that_was_made_anew_is_published_again(ran: Ran) -> None:
    folder, _ = ran
    shutil.rmtree(folder / "lake")
    (folder / "things.csv").write_text("id,name,amount\n1,z,8\n")

    result = run(folder, definitions(folder))

    assert metadata(result, "publish/shop/totals")["rows/read"] == 1
    assert "8.00" in next(folder.joinpath("out").rglob("*.csv")).read_text()
