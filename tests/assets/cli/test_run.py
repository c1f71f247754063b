"""`etl run`: through Dagster, with an account, and with an end that says what happened."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager

import dagster as dg
import pytest

from tests.assets.cli.conftest import Ended, Shop

# One stream by day, one whole, two that fail in different ways.
DAYS = """\
type: etl_assets.components.Pipeline
attributes:
  name: days
  streams:
    visits:
      source: {type: file, path: data/visits.csv}
      partitions: {daily: {start: "2024-01-01", column: day}}
      key: [id]
      steps: [{cast: {day: date}}]
    places:
      source: {type: file, path: data/places.csv}
      key: [id]
"""
FAILING = """\
type: etl_assets.components.Pipeline
attributes:
  name: failing
  streams:
    absent:
      source: {type: file, path: data/nowhere.csv}
      key: [id]
    strict:
      source: {type: file, path: data/strict.csv}
      key: [id]
      steps: [{cast: {id: int64}}]
      errors: {max_rows: 0}
"""


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("days"))
    made.write("defs/days/defs.yaml", DAYS)
    made.write("defs/failing/defs.yaml", FAILING)
    made.write("data/visits.csv", "id,day\n1,2024-01-01\n2,2024-01-02\n3,2024-01-02\n")
    made.write("data/places.csv", "id,name\n1,Here\n")
    made.write("data/strict.csv", "id\n1\nx\n")
    return made


@contextmanager
def instance_of(shop: Shop) -> Iterator[dg.DagsterInstance]:
    # Its folders are relative to where it is started, as for `dagster dev`.
    with chdir(shop.root), dg.DagsterInstance.from_config(str(shop.root)) as instance:
        yield instance


def test_the_closing_table_and_the_lines_of_progress(orders: Shop) -> None:
    first = orders.first
    assert first is not None
    assert "every one accounted for" in first.out
    assert "silver/orders" in first.out
    assert "etl errors list orders" in first.out
    lines = first.err.splitlines()
    assert any("bronze/orders: 9 rows read" in line and "after the start" in line for line in lines)
    assert any(line.startswith("gold/revenue: done, 5 rows in") for line in lines)


def test_a_second_run_reads_nothing_and_says_so_in_json(orders: Shop) -> None:
    ended = orders.etl("run", "orders", "--json")
    assert ended.code == 0
    assert ended.data["status"] == "success"
    tables = {table["table"]: table for table in ended.data["tables"]}
    assert list(tables) == [
        "bronze/orders/orders",
        "silver/orders/orders",
        "gold/orders/revenue",
        "publish/orders/revenue",
    ]
    assert tables["silver/orders/orders"]["read"] == 0
    assert tables["silver/orders/orders"]["rows"] == 6
    assert ended.data["open_errors"] == {"silver/orders/orders": 1}


def test_every_figure_of_a_full_refresh_adds_up(orders: Shop) -> None:
    ended = orders.etl("run", "orders", "--full-refresh", "--json")
    silver = next(table for table in ended.data["tables"] if table["table"] == "silver/orders/orders")
    fates = ("inserted", "updated", "deleted", "unchanged", "superseded", "filtered", "rejected")
    assert silver["read"] == 9 == sum(silver[fate] for fate in fates)
    assert (silver["superseded"], silver["filtered"], silver["rejected"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("silver/orders", ["silver/orders/orders"]),
        ("silver/orders/orders", ["silver/orders/orders"]),
        ("gold", ["gold/orders/revenue"]),
        ("revenue", ["gold/orders/revenue", "publish/orders/revenue"]),
        ("silver/orders+", ["silver/orders/orders", "gold/orders/revenue", "publish/orders/revenue"]),
        ("+gold/revenue", ["bronze/orders/orders", "silver/orders/orders", "gold/orders/revenue"]),
        ('key:"gold/orders/*"', ["gold/orders/revenue"]),
    ],
)
def test_a_selection_in_anybodys_words(orders: Shop, selection: str, expected: list[str]) -> None:
    ended = orders.etl("plan", "orders", "--select", selection, "--json")
    assert [step["table"] for step in ended.data["steps"]] == expected


@pytest.mark.parametrize("selection", ["silver/order", "platinum", "key:("])
def test_a_selection_of_nothing_is_wrong_usage(orders: Shop, selection: str) -> None:
    ended = orders.etl("run", "orders", "--select", selection)
    assert ended.code == 2
    assert selection in ended.err


GOLD = dg.AssetKey(["gold", "orders", "revenue"])


def started(instance: dg.DagsterInstance, **tags: str) -> str:
    """Return a run of gold that has started and does not go on."""
    run = instance.create_run_for_job(_job(GOLD), asset_selection={GOLD}, tags=tags)
    instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", job_name=run.job_name), run_id=run.run_id)
    return run.run_id


def _job(key: dg.AssetKey) -> dg.JobDefinition:
    @dg.asset(key=key)
    def made() -> None: ...

    return dg.Definitions(assets=[made]).resolve_implicit_global_asset_job_def()


@pytest.fixture(scope="module")
def gold(orders: Shop) -> tuple[str, Ended]:
    """A run of the command that died, and one of gold after it."""
    with instance_of(orders) as instance:
        dead = started(instance, **{"etl/pipeline": "orders", "etl/command": "etl"})
    return dead, orders.etl("run", "orders", "--select", "gold", "--json")


def test_the_run_is_dagsters_own(orders: Shop, gold: tuple[str, Ended]) -> None:
    _, ended = gold
    with instance_of(orders) as instance:
        run = instance.get_run_by_id(ended.data["run_id"])
        assert run is not None
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert run.tags["etl/pipeline"] == "orders"
        assert run.tags["etl/select"] == "gold"
        assert run.asset_selection == {GOLD}
        found = instance.fetch_materializations(GOLD, limit=1).records[0]
        assert found.run_id == run.run_id


def test_a_run_that_died_is_closed(orders: Shop, gold: tuple[str, Ended]) -> None:
    dead, ended = gold
    assert ended.code == 0
    with instance_of(orders) as instance:
        closed = instance.get_run_by_id(dead)
        assert closed is not None
        assert closed.status == dg.DagsterRunStatus.FAILURE


def test_a_run_that_dagster_started_is_waited_for(orders: Shop) -> None:
    with instance_of(orders) as instance:
        alive = started(instance)
        ended = orders.etl("run", "orders", "--select", "gold")
        assert ended.code == 1
        assert alive in ended.err
        instance.delete_run(alive)


def test_every_table_that_failed_is_told_in_the_words_of_its_error(days: Shop) -> None:
    ended = days.etl("run", "failing")
    assert ended.code == 1
    assert "bronze/failing/absent" in ended.out
    assert "no file data/nowhere.csv" in ended.out
    assert "missing: ok" in ended.out, "how to fix it"
    assert "silver/failing/strict" in ended.out
    assert "1 of 2 rows were rejected, 0 rows are allowed" in ended.out
    assert "not run" in ended.out, "silver/absent"
    assert "Traceback" not in ended.out + ended.err
    assert "dagster" not in ended.out.lower()


def test_failures_in_json_have_what_where_and_fix_apart(days: Shop) -> None:
    ended = days.etl("run", "failing", "--json")
    assert ended.code == 1
    assert ended.data["status"] == "failed"
    failure = next(one for one in ended.data["failures"] if one["kind"] == "NotFoundError")
    assert failure["what"] == "no file data/nowhere.csv"
    assert failure["where"] == "stream absent"
    assert failure["fix"]


def test_a_pipeline_by_day_asks_which_day(days: Shop) -> None:
    ended = days.etl("run", "days")
    assert ended.code == 2
    assert "which day?" in ended.err
    for date, said in (
        ("2023-12-31", "has no day"),
        ("20240101", "YYYY-MM-DD"),
        ("2999-01-01", "days from 2024-01-01"),
    ):
        ended = days.etl("run", "days", "--date", date)
        assert ended.code == 2
        assert said in ended.err
    ended = days.etl("run", "days", "--select", "places", "--date", "2024-01-01")
    assert ended.code == 2
    assert "leave --date out" in ended.err


def test_a_day_replaces_itself_and_what_is_not_by_day_rides_along(days: Shop) -> None:
    def visits(date: str) -> dict[str, int]:
        ended = days.etl("run", "days", "--date", date, "--json")
        assert ended.code == 0, ended.out
        return {table["table"]: table["rows"] for table in ended.data["tables"]}

    assert visits("2024-01-02")["silver/days/visits"] == 2
    days.write("data/visits.csv", "id,day\n1,2024-01-01\n4,2024-01-02\n")
    again = visits("2024-01-02")
    assert again["silver/days/visits"] == 1
    assert again["silver/days/places"] == 1
    with instance_of(days) as instance:
        assert instance.get_runs(limit=1)[0].tags["dagster/partition"] == "2024-01-02"


def test_two_runs_of_one_pipeline_at_once_are_refused(orders: Shop) -> None:
    from filelock import FileLock

    with FileLock(orders.root / ".dagster" / "locks" / "orders.lock"):
        ended = orders.etl("run", "orders")
    assert ended.code == 1
    assert "orders is running already" in ended.err


@pytest.mark.parametrize("place", ["in a step", "between two steps"])
def test_an_interruption_wherever_it_comes_is_a_stop(place: str) -> None:
    from dagster._core.events import DagsterEventType, JobFailureData, RunFailureReason, StepFailureData
    from dagster._core.execution.plan.objects import ErrorSource

    from etl_assets.cli.outcome import Outcome

    data: object = StepFailureData(error=None, user_failure_data=None, error_source=ErrorSource.INTERRUPT)
    kind = DagsterEventType.STEP_FAILURE
    if place == "between two steps":
        data = JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
        kind = DagsterEventType.PIPELINE_FAILURE
    event = dg.DagsterEvent(kind.value, job_name="j", step_key="bronze", event_specific_data=data)  # type: ignore[arg-type]
    key = dg.AssetKey(["bronze"])
    outcome = Outcome("run", {"bronze": [key]})
    outcome.add(event, 1.0)
    assert outcome.failures == []
    assert outcome.tables[key].status == ("stopped" if place == "in a step" else "not run")
    if place == "between two steps":
        assert outcome.status == "canceled"


def test_a_run_that_is_stopped_is_recorded_as_canceled(orders: Shop) -> None:
    os.mkfifo(orders.root / "data" / "orders" / "slow.csv")  # a file that nobody writes: reading it takes for ever

    def stop() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if instance.get_runs(limit=1)[0].status == dg.DagsterRunStatus.STARTED:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.1)

    try:
        with instance_of(orders) as instance:
            before = instance.get_runs(limit=1)[0].run_id
            stopping = threading.Thread(target=stop)
            stopping.start()
            ended = orders.etl("run", "orders")
            stopping.join()
            assert ended.code == 1, ended
            assert "Stopped." in ended.out
            assert "Traceback" not in ended.out + ended.err
            newest = instance.get_runs(limit=1)[0]
            assert newest.run_id != before
            assert newest.status == dg.DagsterRunStatus.CANCELED
    finally:
        (orders.root / "data" / "orders" / "slow.csv").unlink()
