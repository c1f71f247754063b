"""Two runs of one pipeline at once, and backfills that overlap: no row twice, none lost, and a clear message."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from pydantic import PrivateAttr

from etl_assets.bronze import Bronze
from etl_assets.gold import Gold, GoldSpec
from etl_assets.references import references_of
from etl_assets.run import Run
from etl_assets.silver_replay import replay
from etl_resources.exceptions import ConcurrentCommitError
from etl_resources.lake import LakeTable
from etl_resources.source import Batch, Capabilities, Position, Source, Stream, StreamOptions, Window
from tests.assets.doubles import ListSource, Table, new_run
from tests.assets.shop import Shop
from tests.forks import Forks, forking, wait_for
from tests.soaking import some

__all__ = ["forking"]
DAY = timedelta(days=1)


def try_shop(folder: str, name: str, gate: str, batches: int) -> str:
    """Run the pipeline in another process; returns how it ended."""
    shop = Shop(folder)
    wait_for(gate)
    try:
        shop.run(name, batches)
    except ConcurrentCommitError as error:
        return str(error)
    return "done"


def test_two_runs_at_once_double_nothing_and_lose_nothing(tmp_path: Path, forks: Forks) -> None:
    folder, gate = tmp_path / "shop", tmp_path / "gate"
    folder.mkdir()
    runs = [forks.start(try_shop, folder=str(folder), name=f"r{n}", gate=str(gate), batches=2) for n in range(2)]
    gate.touch()
    outcomes = [run.result() for run in runs]
    for text in outcomes:
        assert text == "done" or ("nothing is lost or doubled" in text and "where:" in text), text
    shop, calm = Shop(str(folder)), Shop(str(tmp_path / "calm"))
    shop.run("last", 2)
    calm.folder.mkdir()
    calm.run("only", 2)
    assert shop.rows("bronze", "shop", "customers") == calm.rows("bronze", "shop", "customers")
    assert shop.table() == calm.table()
    assert shop.published(tokens=False) == calm.published(tokens=False)
    assert shop.errors(layers=("bronze", "silver")) == calm.errors(layers=("bronze", "silver"))


def test_a_run_that_starts_on_an_empty_lake_beside_another_loads_nothing_twice(tmp_path: Path) -> None:
    """The second began before the first had made the table; the table that it finds then is not its own."""
    table = Table(tmp_path)
    table.source.give([{"id": 1}], [{"id": 2}])
    late = OvertakenSource().overtaken(table.land).give([{"id": 1}], [{"id": 2}])
    with pytest.raises(ConcurrentCommitError, match="another run committed to bronze/test/things first"):
        table.bronze.land(late, new_run())
    assert [row["id"] for row in table.rows("bronze")] == [1, 2]


def test_a_run_that_is_overtaken_between_two_of_its_commits_stops(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.source.give(*[[{"id": number}] for number in range(1, 6)])

    def other_run() -> None:
        Bronze(table.lake, "test", table.stream, commit_rows=1).land(table.source, new_run())

    late = OvertakenSource().overtaken(other_run, after=2).give(*[[{"id": number}] for number in range(1, 6)])
    with pytest.raises(ConcurrentCommitError):
        Bronze(table.lake, "test", table.stream, commit_rows=1).land(late, new_run())
    assert [row["id"] for row in table.rows("bronze")] == [1, 2, 3, 4, 5]


class OvertakenSource(ListSource):
    """Lets something else happen after it has given some batches."""

    _happen: Any = PrivateAttr(default=None)
    _after: int = PrivateAttr(default=0)

    def overtaken(self, happen: Callable[[], Any], after: int = 0) -> OvertakenSource:
        self._happen, self._after = happen, after
        return self

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(super().read(stream, since, batch_rows=batch_rows)):
            if number == self._after:
                self._happen()
            yield batch


class Meanwhile(Run):
    """A run during which something else happens, once, at one of its boundaries."""

    def __init__(self, point: str, happen: Callable[[], Any]) -> None:
        super().__init__("overtaken")
        object.__setattr__(self, "waiting", {point: happen})

    def point(self, name: str) -> None:
        happen = self.waiting.pop(name, None)  # type: ignore[attr-defined]
        if happen is not None:
            happen()


BAD = [{"id": 1, "v": "a"}, {"id": None, "v": "keyless"}]
WORSE = [{"id": 2, "v": "b"}, {"id": None, "v": "keyless too"}]


@pytest.mark.parametrize(
    ("point", "more"),
    some(
        [
            ("silver:before_errors", False),
            ("silver:before_commit", True),
            ("silver:before_errors", True),
            ("silver:before_commit", False),
        ],
        2,
    ),
)
def test_a_refinement_that_is_overtaken_leaves_table_and_errors_to_the_faster_one(
    tmp_path: Path, point: str, more: bool
) -> None:
    """Also when the faster one has seen more: then the slower one must not take its errors for leftovers."""
    table = Table(tmp_path)
    table.source.give(BAD)
    table.land()

    def faster() -> None:
        if more:
            table.source.give(WORSE)
            table.land()
        table.refine()

    with pytest.raises(ConcurrentCommitError, match="nothing is lost or doubled"):
        table.silver.refine(Meanwhile(point, faster))
    batches = 2 if more else 1
    assert [row["id"] for row in table.rows()] == [1, 2][:batches]
    assert [(error["batch"], error["row"]) for error in table.errors()] == [(1, 1), (2, 1)][:batches]
    table.refine()
    assert len(table.errors()) == batches
    assert len(table.rows()) == batches


def test_what_a_slower_run_found_besides_is_found_again_when_its_turn_comes(tmp_path: Path) -> None:
    """Both work on number 1. The slower one has seen more and written its errors; the faster one commits its data."""
    table = Table(tmp_path)
    table.source.give(BAD)
    table.land()
    wrote, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        wrote.set()
        assert go_on.wait(60)

    def slower() -> None:
        table.source.give(WORSE)
        table.land()
        with pytest.raises(ConcurrentCommitError, match="nothing is lost or doubled"):
            table.silver.refine(Meanwhile("silver:before_commit", pause))

    thread = threading.Thread(target=slower)

    def overtake() -> None:
        thread.start()
        assert wrote.wait(60)

    table.silver.refine(Meanwhile("silver:before_errors", overtake))
    go_on.set()
    thread.join(60)
    assert [(error["batch"], error["row"]) for error in table.errors()] == [(1, 1)]
    table.refine()
    assert [(error["batch"], error["row"]) for error in table.errors()] == [(1, 1), (2, 1)]
    assert [row["id"] for row in table.rows()] == [1, 2]


@pytest.mark.parametrize("point", ["bronze:before_errors", "bronze:before_commit"])
def test_a_load_that_is_overtaken_leaves_rows_and_errors_to_the_faster_one(tmp_path: Path, point: str) -> None:
    shop = Shop(str(tmp_path))
    with pytest.raises(ConcurrentCommitError, match="nothing is lost or doubled"):
        shop.land(Meanwhile(point, lambda: shop.land(Run("faster"), 1)), 1)
    assert len(shop.errors()) == 1
    shop.land(Run("next"), 2)
    calm = Shop(str(tmp_path / "calm"))
    calm.land(Run("only"), 2)
    assert shop.rows("bronze", "shop", "customers") == calm.rows("bronze", "shop", "customers")
    assert shop.errors() == calm.errors()


def test_a_replay_that_is_overtaken_writes_nothing_and_closes_nothing(tmp_path: Path) -> None:
    table = Table(tmp_path, steps=[{"filter": {"rule": "r", "where": "v <> 'x'"}}])
    table.load(BAD)
    table.key = ("v",)
    with pytest.raises(ConcurrentCommitError):
        replay(table.silver, Meanwhile("silver:before_commit", lambda: table.load(WORSE)))
    assert len(table.errors()) == 1
    replay(table.silver, new_run())
    assert table.errors() == []
    assert {row["v"] for row in table.rows()} == {"a", "b", "keyless", "keyless too"}


def test_a_gold_table_of_older_inputs_is_not_put_over_one_of_newer_inputs(tmp_path: Path) -> None:
    table = Table(tmp_path)
    table.load([{"id": 1}])
    sql = "SELECT count(*) AS n FROM silver.things"
    spec = GoldSpec("test", "total", lambda _: sql, references_of(sql, "test", where="test"))
    gold = Gold(table.lake, table.engine, spec)

    def newer() -> None:
        table.load([{"id": 2}])
        gold.build(new_run())

    with pytest.raises(ConcurrentCommitError):
        gold.build(Meanwhile("gold:before_commit", newer))
    handle = gold.table.open()
    assert handle is not None
    assert handle.delta.to_pyarrow_table().to_pylist() == [{"n": 2}]


@pytest.mark.parametrize(
    ("landing", "refining"), some([("before_errors", "before_commit"), ("before_commit", "before_errors")], 1)
)
def test_a_compaction_at_any_boundary_of_a_run_changes_nothing(tmp_path: Path, landing: str, refining: str) -> None:
    table = Table(tmp_path)
    for number in range(2):
        table.load([{"id": number, "v": "old"}, {"id": None, "v": "bad"}])
    names = [("bronze", "test", "things"), ("silver", "test", "things"), ("ops", "errors"), ("ops", "accounts")]

    def compact() -> None:
        for name in names:
            table.lake.table(*name).optimize()

    table.source.give([{"id": 2, "v": "new"}, {"id": 0, "v": "2"}, {"id": None, "v": "bad"}])
    table.bronze.land(table.source, Meanwhile(f"bronze:{landing}", compact))
    table.silver.refine(Meanwhile(f"silver:{refining}", compact))
    assert [(row["id"], row["v"]) for row in table.rows()] == [(0, "2"), (1, "old"), (2, "new")]
    assert len(table.rows("bronze")) == 2 * 2 + 3
    assert len(table.errors()) == 2 + 1
    assert table.refine(full_refresh=True).account.read == 7
    assert len(table.rows()) == 3


FIRST = datetime(2024, 1, 1, tzinfo=UTC)
EVENTS = pa.schema([("id", pa.int64()), ("at", pa.timestamp("us", tz="UTC")), ("v", pa.string())])


class Events(Source):
    """Gives the events of one day: `events` of them, marked with the reading."""

    options_type: ClassVar[type[StreamOptions]] = StreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(windows=True)
    events: int
    mark: str

    def read_schema(self, stream: Stream) -> pa.Schema:
        return EVENTS

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 0) -> Iterator[Batch]:
        assert stream.window is not None
        day = (stream.window.start - FIRST).days
        rows = [
            {"id": day * 100 + n, "at": stream.window.start + timedelta(hours=n), "v": f"{day}-{n}-{self.mark}"}
            for n in range(self.events)
        ]
        yield Batch(pa.RecordBatch.from_pylist(rows, schema=EVENTS), self.events)


def load_day(folder: str, day: int, mark: str, events: int = 4) -> None:
    """Land and refine one day."""
    table = Table(Path(folder))
    window = Window("at", FIRST + day * DAY, FIRST + (day + 1) * DAY)
    stream = Stream("things", StreamOptions(type="events"), window=window)
    Bronze(table.lake, "test", stream).land(Events(events=events, mark=mark), Run(mark))
    table.silver.refine(Run(mark), window=window)


def try_days(folder: str, gate: str, days: list[int], mark: str) -> list[str]:
    """Backfill some days in another process, each until nobody is in the way; returns what was in the way."""
    wait_for(gate)
    messages = []
    for day in days:
        for _ in range(50):
            try:
                load_day(folder, day, mark)
            except ConcurrentCommitError as error:
                messages.append(str(error))
            else:
                break
        else:
            raise AssertionError(f"day {day} was never loaded")
    return messages


def test_backfills_that_overlap_leave_every_day_once(tmp_path: Path, forks: Forks) -> None:
    gate = tmp_path / "gate"
    plans = {"x": [0, 1], "y": [1, 2]}
    runs = [
        forks.start(try_days, folder=str(tmp_path), gate=str(gate), days=days, mark=mark)
        for mark, days in plans.items()
    ]
    gate.touch()
    messages = [message for run in runs for message in run.result()]
    assert all("nothing is lost or doubled" in message for message in messages)
    rows = Table(tmp_path).rows()
    assert [row["id"] for row in rows] == [day * 100 + n for day in range(3) for n in range(4)]
    for day in range(3):
        marks = {row["v"].split("-")[2] for row in rows if row["id"] // 100 == day}
        assert len(marks) == 1, "a day is all of one reading"


def test_a_batch_that_lands_after_bronze_was_opened_is_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger tells of it already; the rows of the batch are not in the table as it was opened."""
    table = Table(tmp_path)
    table.source.give([{"id": 1, "v": "a"}])
    table.land()
    opened = table.silver.bronze.open()
    table.source.give([{"id": 2, "v": "b"}, {"id": 3, "v": "c"}])
    table.land()
    newest = LakeTable.open

    def open_late(self: LakeTable, version: int | None = None) -> Any:
        return opened if self.name == table.silver.bronze.name else newest(self, version)

    with monkeypatch.context() as patched:
        patched.setattr(LakeTable, "open", open_late)
        assert table.refine().account.read == 1
    assert table.refine().account.read == 2
    assert [row["id"] for row in table.rows()] == [1, 2, 3]


def test_running_a_day_again_replaces_that_day_and_nothing_else(tmp_path: Path) -> None:
    for day in range(2):
        load_day(str(tmp_path), day, "first")
    load_day(str(tmp_path), 1, "second", events=2)
    rows = Table(tmp_path).rows()
    assert [row["v"] for row in rows if row["id"] // 100 != 1] == [f"0-{n}-first" for n in range(4)]
    assert [row["v"] for row in rows if row["id"] // 100 == 1] == ["1-0-second", "1-1-second"]
    ledger = Table(tmp_path).silver.ledger.rows("silver/test/things")
    assert [(row["inserted"], row["removed"]) for row in ledger] == [(4, 0), (4, 0), (2, 4)]
