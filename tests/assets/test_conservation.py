"""A row that gets lost at any stage is noticed, and nothing is published then.

Each test loses rows on purpose where they pass from one hand to the next.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_assets.account import RowAccount
from etl_assets.gold import Gold, GoldSpec
from etl_assets.publish import Publisher, PublishSpec
from etl_assets.references import references_of
from etl_assets.run import Run
from etl_resources.delta.handle import Handle
from etl_resources.delta.staging import Staging
from etl_resources.engines.duckdb import Session
from etl_resources.exceptions import RowsNotConservedError
from etl_resources.source import Batch, Incremental, Position, Snapshot, Stream, StreamOptions
from etl_resources.target import Counts, Load, TargetOptions
from tests.assets.doubles import ListSource, Table, new_run
from tests.assets.shop import Shop, SqliteTarget

FIRST = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}, {"id": None, "v": "bad"}]
SECOND = [{"id": 2, "v": "c"}, {"id": 3, "v": "d"}, {"id": None, "v": "bad"}]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


def versions(table: Table) -> dict[str, int | None]:
    """Return the versions of everything that a run may publish."""
    keys = (("bronze", "test", "things"), ("silver", "test", "things"), ("gold", "test", "total"))
    opened = {"/".join(key): table.lake.table(*key).open() for key in keys}
    return {name: handle.delta.count() if handle else None for name, handle in opened.items()}


def total(table: Table) -> Gold:
    sql = "SELECT id, v FROM silver.things"
    spec = GoldSpec("test", "total", lambda _: sql, references_of(sql, "test", where="test"))
    return Gold(table.lake, table.engine, spec)


@pytest.mark.parametrize("number", [0, 1])
def test_a_batch_that_a_source_counted_and_did_not_give(table: Table, number: int) -> None:
    table.source.give(FIRST, SECOND, [{"id": 9, "v": "z"}]).lose(number)
    with pytest.raises(RowsNotConservedError, match="3 rows lost: read 7, accounted for 4"):
        table.land()
    assert table.rows("bronze") == []


def test_the_last_batch_of_a_source_comes_with_the_next_run(table: Table) -> None:
    """Its position does not come either, so it is read again."""
    table.source.give(FIRST, SECOND).lose(1)
    assert table.land().account.read == 3
    table.source._lose.clear()
    assert table.land().account.read == 3
    assert len(table.rows("bronze")) == 6


class Whole(ListSource):
    """Gives a position with the last batch only, as sources do that cannot resume."""

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 0) -> Iterator[Batch]:
        rows = 0
        for number, data in enumerate(self._batches):
            rows += data.num_rows
            last = number == len(self._batches) - 1
            if number not in self._lose:
                yield Batch(data, rows, {"given": number} if last else None)


@pytest.mark.parametrize("capture", [Snapshot(), Incremental(cursor="id"), None])
def test_a_read_that_stops_before_its_end(table: Table, capture: Any) -> None:
    """Of a snapshot this would delete every key that was still to come."""
    from etl_assets.bronze import Bronze

    source = Whole().give(FIRST, SECOND).lose(1)
    bronze = Bronze(table.lake, "test", Stream("things", StreamOptions(type="list"), capture))
    with pytest.raises(RowsNotConservedError, match="ended after 3 records without the position"):
        bronze.land(source, new_run())
    assert table.rows("bronze") == []


def lose_written(monkeypatch: pytest.MonkeyPatch, *, table: str, batch: int = 0) -> None:
    """Let a batch get lost on its way into the files of a table."""
    write, seen = Staging.write, [0]

    def lossy(self: Staging, data: pa.RecordBatch) -> None:
        if table in self.store.location(""):
            seen[0] += 1
            if seen[0] == batch + 1:
                return
        write(self, data)

    monkeypatch.setattr(Staging, "write", lossy)


def lose_streamed(monkeypatch: pytest.MonkeyPatch, *, sql: str) -> None:
    """Let the first row of every batch get lost that comes out of a query."""
    stream = Session.stream

    def lossy(self: Session, query: str, rows: int = 1000) -> pa.RecordBatchReader:
        reader = stream(self, query, rows)
        if sql not in query:
            return reader
        return pa.RecordBatchReader.from_batches(reader.schema, (batch.slice(1) for batch in reader))

    monkeypatch.setattr(Session, "stream", lossy)


def test_a_batch_on_its_way_into_the_files_of_bronze(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.source.give(FIRST)
    lose_written(monkeypatch, table="bronze")
    with pytest.raises(RowsNotConservedError, match="3 rows lost: read 3, accounted for 0"):
        table.land()
    assert table.rows("bronze") == []


def test_a_file_of_bronze_that_cannot_be_written(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written behind the source: the error comes when it has ended at the latest, and nothing is left."""
    write = Staging.write

    def full(self: Staging, data: pa.RecordBatch) -> None:
        if "bronze" in self.store.location(""):
            raise OSError("No space left on device")
        write(self, data)

    table.source.give(FIRST)
    monkeypatch.setattr(Staging, "write", full)
    with pytest.raises(OSError, match="No space left"):
        table.land()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("etl-write-behind")]
    monkeypatch.setattr(Staging, "write", write)
    assert table.rows("bronze") == []
    assert table.land().account.inserted == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [(FIRST[:2], "1 rows lost: read 2, accounted for 1"), (SECOND, "2 rows were written instead of 3")],
    ids=["appended", "merged"],
)
def test_a_row_between_engine_and_silver(
    table: Table, monkeypatch: pytest.MonkeyPatch, change: list[dict[str, Any]], message: str
) -> None:
    table.load(FIRST) if change is SECOND else None
    before = versions(table)["silver/test/things"]
    table.source.give(change)
    table.land()
    lose_streamed(monkeypatch, sql="j.__action")
    with pytest.raises(RowsNotConservedError, match=message):
        table.refine()
    assert versions(table)["silver/test/things"] in (before, 0)
    monkeypatch.undo()
    table.refine()
    assert len(table.rows()) == (3 if change is SECOND else 2), "and the next run does it right"


def test_rows_on_their_way_into_the_files_of_a_new_table(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were judged and counted before."""
    table.source.give(FIRST)
    table.land()
    lose_written(monkeypatch, table="silver")
    with pytest.raises(RowsNotConservedError, match="0 rows were written, but the account says 2"):
        table.refine()
    assert table.rows() == []
    assert not list(Path(table.silver.table.uri).glob("*.parquet"))


def test_a_row_on_its_way_into_a_rebuilt_table(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.load(FIRST)
    lose_written(monkeypatch, table="silver")
    with pytest.raises(RowsNotConservedError):
        table.refine(full_refresh=True)
    assert len(table.rows()) == 2


def test_a_bronze_file_that_silver_does_not_see(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.source.give(FIRST)
    table.land()
    table.source.give(SECOND)
    table.land()
    files = Handle.files
    monkeypatch.setattr(Handle, "files", lambda self, *options: files(self, *options)[1:])
    with pytest.raises(RowsNotConservedError, match="3 rows lost: read 6, accounted for 3"):
        table.refine()
    assert versions(table)["silver/test/things"] is None


def test_a_silver_file_that_a_merge_does_not_see(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a row that is there looks new; the merge, which lists the files in another way, finds it."""
    table.load(FIRST)
    table.load([{"id": 5, "v": "e"}])
    files = Handle.files
    table.source.give([{"id": 1, "v": "x"}, {"id": 5, "v": "y"}, {"id": 6, "v": "new"}])
    table.land()
    monkeypatch.setattr(
        Handle, "files", lambda self, *options: files(self, *options)[int(self.table.key[0] == "silver") :]
    )
    with pytest.raises(RowsNotConservedError, match="and 1 that are to be inserted; nothing was committed"):
        table.refine()
    monkeypatch.undo()
    assert [row["v"] for row in table.rows()] == ["a", "b", "e"]
    table.refine()
    assert [row["v"] for row in table.rows()] == ["x", "b", "y", "new"]


def test_a_rejected_row_on_its_way_into_the_errors(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.source.give(FIRST)
    table.land()
    lose_streamed(monkeypatch, sql="AS error_id")
    with pytest.raises(RowsNotConservedError, match="1 rows were rejected, but 0 were kept as errors"):
        table.refine()
    assert versions(table)["silver/test/things"] == 0
    assert table.errors() == []


def test_an_unreadable_record_on_its_way_into_the_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(str(tmp_path))
    lose_written(monkeypatch, table="ops/errors")
    with pytest.raises(RowsNotConservedError, match="1 rows were rejected, but 0 were kept as errors"):
        shop.land(Run("r"), 1)
    assert shop.rows("bronze", "shop", "customers") == []


@pytest.mark.parametrize("kind", ["VIEW", "TABLE"])
def test_a_judgement_that_drops_rows(table: Table, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Where rows stream past, and where they are held."""
    table.load([{"id": 9, "v": "z"}]) if kind == "TABLE" else None
    before = versions(table)["silver/test/things"]
    table.source.give([{"id": 1, "v": "a"}, {"id": 2, "v": "b"}, {"id": 3, "v": "c"}])
    table.land()
    execute = Session.execute

    def lossy(self: Session, sql: str) -> Any:
        if f"{kind} judged" in sql:
            sql = f"CREATE OR REPLACE TEMP {kind} judged AS SELECT * FROM ({sql.partition(' AS ')[2]}) WHERE id <> 1"
        return execute(self, sql)

    monkeypatch.setattr(Session, "execute", lossy)
    with pytest.raises(RowsNotConservedError, match="1 rows lost: read 3, accounted for 2"):
        table.refine()
    assert versions(table)["silver/test/things"] == before


def test_a_row_between_engine_and_gold(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.load(FIRST)
    total(table).build(new_run())
    table.load(SECOND)
    lose_streamed(monkeypatch, sql="FROM built")
    with pytest.raises(RowsNotConservedError, match="1 rows lost: read 3, accounted for 2"):
        total(table).build(new_run())
    assert versions(table)["gold/test/total"] == 2


def test_an_input_file_that_gold_does_not_see(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.load(FIRST)
    table.load([{"id": 9, "v": "z"}])
    files = Handle.files
    monkeypatch.setattr(Handle, "files", lambda self, *options: files(self, *options)[1:])
    with pytest.raises(RowsNotConservedError, match=r"(?s)rows lost.*reading silver.things"):
        total(table).build(new_run())


def publisher(shop: Shop) -> Publisher:
    spec = PublishSpec("shop", "totals", ("gold", "shop", "totals"), TargetOptions(type="sqlite"), "replace")
    return Publisher(shop.lake, shop.engine, spec)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that has been published once, with more to publish; for copies."""
    shop = Shop(str(tmp_path_factory.mktemp("built")))
    shop.run("first", 1)
    shop.run("second", 2, end="gold")
    return shop.folder


@pytest.fixture
def shop(built: Path, tmp_path: Path) -> Shop:
    """A copy of it."""
    return Shop(str(shutil.copytree(built, tmp_path, dirs_exist_ok=True)))


def test_a_row_between_engine_and_target(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops the target's own transaction."""
    before = shop.published()
    lose_streamed(monkeypatch, sql="SELECT")
    with pytest.raises(RowsNotConservedError, match="but the account says"):
        publisher(shop).publish(shop.target, Run("r"))
    assert shop.published() == before
    monkeypatch.undo()
    publisher(shop).publish(shop.target, Run("r"))
    assert shop.published() != before


class Forgetful(SqliteTarget):
    """Reads everything and counts less, or takes rows back without handing them over."""

    forgets: str

    def _replace(self, base: Any, load: Load, rows: list[dict[str, Any]]) -> Counts:
        if self.forgets == "rows":
            return super()._replace(base, load, rows[1:])
        if self.forgets == "refused":
            import dataclasses

            load = dataclasses.replace(load, on_refused=lambda _: None)
        return super()._replace(base, load, rows)

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> Counts:
        counts = super().write(load, batches)
        if self.forgets == "counts":
            return Counts(read=counts.read, inserted=counts.inserted)
        return counts


@pytest.mark.parametrize(
    ("forgets", "message"),
    [("rows", "1 rows lost"), ("refused", "refused 3 rows and handed 0"), ("counts", "3 rows lost")],
)
def test_a_target_that_accounts_for_less_is_told_of(shop: Shop, forgets: str, message: str) -> None:
    """It has committed by then: nobody but the target could have known."""
    target = Forgetful(path=shop.target.path, forgets=forgets)
    with pytest.raises(RowsNotConservedError, match=message):
        publisher(shop).publish(target, Run("r"))
    assert len(shop.accounts()["publish/shop/totals"]) == 1, "no account says that all is well"


def test_an_account_says_on_which_side_rows_are_missing() -> None:
    with pytest.raises(RowsNotConservedError, match="2 rows lost: read 5, accounted for 3"):
        RowAccount(read=5, inserted=2, filtered={"a": 1}).check(where="t")
    with pytest.raises(RowsNotConservedError, match="1 rows too many: read 2, accounted for 3"):
        RowAccount(read=2, updated=2, rejected={"a": 1}).check(where="t")
