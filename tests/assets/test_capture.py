"""The streams of one log land together: every event once, each table at its own position, nothing forgotten."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from etl_assets.errors import Budget, ErrorTable
from etl_resources.change_log import Boundary
from etl_resources.exceptions import (
    ConcurrentCommitError,
    ErrorBudgetExceededError,
    LogLostError,
    RowsNotConservedError,
    UnavailableError,
)
from etl_resources.resilience import Policy
from tests.assets.log_double import Captured, Event, ListLog


def change(stream: str, op: str, key: int | None, name: str | None = None, **more: Any) -> Event:
    return {"stream": stream, "op": op, "id": key, "name": name, **more}


@pytest.fixture
def log() -> ListLog:
    return ListLog("a", "b")


@pytest.fixture
def captured(tmp_path: Path, log: ListLog) -> Captured:
    return Captured(tmp_path, log)


def test_the_first_load_and_the_log_join(captured: Captured, log: ListLog) -> None:
    log.commit(change("a", "insert", 1, "one"), logged=False)
    captured.follow()
    log.commit(change("a", "update", 1, "uno"), change("b", "insert", 5))
    landed = captured.follow()
    assert captured.events("a", "id, name, _op") == [(1, "one", "read"), (1, "uno", "update")]
    assert captured.events("b", "id, _op") == [(5, "insert")]
    assert str(landed["a"].account) == "inserted 1"


def test_every_tick_is_a_commit_of_the_tables_that_changed(captured: Captured, log: ListLog) -> None:
    captured.follow()
    for number in range(4):
        log.commit(change("a", "insert", number))
    ticks: list[Any] = []
    landed = captured.follow(after=lambda boundary, busy: ticks.append((dict(boundary.positions)["a"], list(busy))))
    assert ticks == [({"pos": pos}, ["a"]) for pos in (10, 20, 30, 40)]
    assert len(landed["a"].batches) == 4
    # The table that did not change has one commit, which moves its position along.
    assert len(landed["b"].batches) == 1
    assert captured.capture().positions() == {"a": {"pos": 40}, "b": {"pos": 40}}
    assert log.acknowledged[-1] == captured.capture().positions()


def test_the_far_end_is_told_only_what_the_lake_holds(captured: Captured, log: ListLog) -> None:
    captured.follow()
    log.acknowledged.clear()
    log.commit(change("a", "insert", 1)).commit(change("a", "insert", 2))
    captured.follow()
    # While the run goes on, the idle table holds it back; its commit comes with the end.
    assert [positions["b"]["pos"] for positions in log.acknowledged] == [5, 5, 20]


def test_tables_at_different_positions_take_only_what_they_lack(captured: Captured, log: ListLog) -> None:
    captured.follow()
    log.commit(change("a", "insert", 1), change("b", "insert", 2)).commit(change("a", "delete", 1))
    captured.follow("a")
    assert log.acknowledged[-1] == {"a": {"pos": 20}, "b": {"pos": 5}}
    landed = captured.follow()
    assert captured.events("a") == [(1, "insert", 10, 0), (1, "delete", 20, 0)]
    assert captured.events("b") == [(2, "insert", 10, 1)]
    assert str(landed["a"].account) == "filtered:delivered_before 2"


def test_events_that_get_lost_on_the_way_are_noticed(captured: Captured, log: ListLog) -> None:
    captured.follow()
    log.commit(change("a", "insert", 1)).commit(change("a", "insert", 2))
    log.per_tick = 2
    log.lose.add(20)
    with pytest.raises(RowsNotConservedError, match="1 rows lost: read 2"):
        captured.follow()
    assert captured.events("a") == []
    log.lose.clear()
    captured.follow()
    assert len(captured.events("a")) == 2


def test_a_log_that_ends_in_the_middle_is_noticed(
    captured: Captured, log: ListLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured.follow()
    log.commit(change("a", "insert", 1))
    read = ListLog.read
    monkeypatch.setattr(
        ListLog, "read", lambda self, since: (x for x in read(self, since) if not isinstance(x, Boundary))
    )
    with pytest.raises(RowsNotConservedError, match="without a boundary"):
        captured.follow()
    assert captured.events("a") == []


def test_two_runs_at_once(captured: Captured, log: ListLog) -> None:
    captured.follow()
    log.commit(change("a", "insert", 1))
    log.commit(change("a", "insert", 2))
    done: list[int] = []

    def first(boundary: Boundary, busy: Any) -> None:
        if not done:
            done.append(1)
            captured.follow()

    with pytest.raises(ConcurrentCommitError):
        captured.follow(after=first)
    assert [row[0] for row in captured.events("a")] == [1, 2]
    assert captured.capture().positions() == {"a": {"pos": 20}, "b": {"pos": 20}}


def test_deletes_of_a_gap_are_found_once_the_table_was_read_anew(captured: Captured, log: ListLog) -> None:
    log.commit(*(change("a", "insert", key, "old") for key in (1, 2, 3)))
    captured.follow()
    log.commit(change("a", "delete", 1)).commit(change("a", "insert", 4))
    log.forgotten = 2
    with pytest.raises(LogLostError):
        captured.follow()
    landed = captured.follow(resnapshot_lost=True)
    assert [row[:2] for row in captured.events("a", "id, _op, _origin") if row[2] == "resnapshot"] == [(1, "delete")]
    assert sorted(row[0] for row in captured.events("a") if row[1] == "read" and row[2] == 35) == [2, 3, 4]
    assert str(landed["a"].account) == "inserted 4"
    log.commit(change("a", "update", 2, "new"))
    assert str(captured.follow()["a"].account) == "inserted 1"


def test_reading_anew_does_not_go_round_in_circles(captured: Captured, log: ListLog) -> None:
    log.commit(change("a", "insert", 1))
    captured.follow()
    log.commit(change("a", "insert", 2))
    log.forgotten = 99
    for _ in range(2):
        with pytest.raises(LogLostError):
            captured.follow(resnapshot_lost=True)


def test_a_sweep_that_was_killed_is_made_up_for(
    captured: Captured, log: ListLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.commit(*(change("a", "insert", key) for key in (1, 2)))
    captured.follow()
    log.commit(change("a", "delete", 1), logged=False).commit(change("a", "update", 2))

    def die(self: Any, name: str, began: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("etl_assets.capture._Following._sweep", die)
        with pytest.raises(KeyboardInterrupt):
            captured.follow(fresh=True)
    assert (1, "delete") not in captured.events("a", "id, _op")
    captured.follow()
    assert (1, "delete") in captured.events("a", "id, _op")
    before = len(captured.events("a"))
    captured.follow()
    assert len(captured.events("a")) == before


def test_a_sweep_lets_alone_what_a_truncation_has_emptied(captured: Captured, log: ListLog) -> None:
    log.commit(change("a", "insert", 1))
    captured.follow()
    log.commit(change("a", "truncate", None))
    captured.follow()
    captured.follow(fresh=True)
    assert "resnapshot" not in [row[0] for row in captured.events("a", "_origin")]


def test_a_column_whose_type_leaves_its_family_goes_on_under_another_name(captured: Captured, log: ListLog) -> None:
    log.commit(change("a", "insert", 1, "one"))
    captured.follow()
    log.row = pa.schema([("id", pa.int64()), ("name", pa.list_(pa.string())), ("big", pa.string())])
    before = {"id": 1, "name": ["one"]}
    log.commit(change("a", "update", 1, ["uno"], before=before))  # type: ignore[arg-type]
    log.rows["a"].clear()
    captured.follow("a")
    assert captured.events("a", "name, name__v2, _before.name__v2") == [("one", None, None), (None, ["uno"], ["one"])]


def test_a_new_column_of_the_source_is_added(captured: Captured, log: ListLog) -> None:
    log.commit(change("a", "insert", 1, "one", before={"id": 1}))
    captured.follow()
    log.row = pa.schema([*log.row, ("extra", pa.int32())])
    log.commit(change("a", "insert", 2, "two", extra=7, before={"id": 2, "extra": 6}))
    captured.follow()
    assert captured.events("a", "id, extra, _before.extra") == [(1, None, None), (2, 7, 6)]


def test_an_event_that_cannot_be_decoded_waits_for_a_later_one_of_its_key(captured: Captured, log: ListLog) -> None:
    captured.follow()
    log.commit(change("a", "insert", 1, bad="no number"), change("a", "insert", 2, bad="nor this"))
    landed = captured.follow()
    assert str(landed["a"].account) == "rejected:unreadable 2"
    errors = ErrorTable(captured.lake)
    with captured.engine.session() as session:
        assert errors.open_counts(session) == {"bronze/test/a": 2}
    log.commit(change("a", "update", 2, "fine"))
    captured.follow()
    with captured.engine.session() as session:
        still = session.execute(f"SELECT raw FROM {errors.current(session)}")
    assert [row[0] for row in still] == [b'{"key": {"id": 1}, "pos": 10}']


def test_too_many_of_them_stop_the_run_before_anything_of_the_tick_is_committed(tmp_path: Path, log: ListLog) -> None:
    captured = Captured(tmp_path, log, budget=Budget(max_rows=0))
    captured.follow()
    log.commit(change("a", "insert", 1), change("a", "insert", 2, bad="no number"))
    with pytest.raises(ErrorBudgetExceededError):
        captured.follow()
    assert captured.events("a") == []


QUICK = Policy(attempts=3, first_wait=0.0)


def broken(what: str = "the wire is cut") -> UnavailableError:
    return UnavailableError(what)


def test_a_log_that_breaks_off_is_read_on_from_what_is_committed(
    captured: Captured, log: ListLog, caplog: pytest.LogCaptureFixture
) -> None:
    """What was staged of the look that broke off comes again, and is there once."""
    captured.follow()
    for number in range(4):
        log.commit(change("a", "insert", number), change("b", "insert", number))
    log.resilience, log.reads = QUICK, 0
    log.breaks = [(0, broken()), (2, broken()), (2, broken("again"))]
    landed = captured.follow()
    assert log.reads == 4
    assert [row[0] for row in captured.events("a")] == [row[0] for row in captured.events("b")] == [0, 1, 2, 3]
    # Nothing came twice to bronze, not even as something to be left out.
    assert str(landed["a"].account) == str(landed["b"].account) == "inserted 4"
    assert "the wire is cut" in caplog.text


def test_a_log_that_breaks_off_for_good_ends_the_run(captured: Captured, log: ListLog) -> None:
    captured.follow()
    log.commit(change("a", "insert", 1)).commit(change("a", "insert", 2))
    log.resilience, log.reads = QUICK, 0
    log.breaks = [(1, broken(f"break {n}")) for n in range(9)]
    # Once behind a commit, and then three times without coming to another.
    with pytest.raises(UnavailableError, match="break 3"):
        captured.follow()
    assert log.reads == 4
    assert [row[0] for row in captured.events("a")] == [1], "what was whole before the break is kept"
    log.breaks = []
    captured.follow()
    assert [row[0] for row in captured.events("a")] == [1, 2]


def test_a_log_that_breaks_off_behind_every_boundary_is_not_read_for_ever(captured: Captured, log: ListLog) -> None:
    captured.follow()
    for number in range(9):
        log.commit(change("a", "insert", number))
    log.resilience, log.reads = QUICK, 0
    log.breaks = [(number, broken()) for number in range(1, 9)]
    with pytest.raises(UnavailableError):
        captured.follow()
    assert log.reads == 3
    assert [row[0] for row in captured.events("a")] == [0, 1, 2]


def test_only_a_log_is_asked_again_and_only_where_that_may_help(captured: Captured, log: ListLog) -> None:
    captured.follow()
    log.commit(change("a", "insert", 1))
    log.resilience, log.reads = QUICK, 0

    def lake_is_away(*_: Any) -> None:
        raise UnavailableError("the lake is away")

    with pytest.raises(UnavailableError, match="lake"):
        captured.follow(after=lake_is_away)
    assert log.reads == 1
    log.commit(change("a", "insert", 2))
    log.breaks = [(1, RowsNotConservedError("a defect"))]
    with pytest.raises(RowsNotConservedError):
        captured.follow()
    assert log.reads == 2
    captured.follow()
    assert [row[0] for row in captured.events("a")] == [1, 2]


def test_a_continuous_run_ends_in_time_however_often_its_log_breaks_off(
    captured: Captured, log: ListLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured.follow()
    clock = [0.0]
    monkeypatch.setattr("etl_assets.capture.time", SimpleNamespace(monotonic=lambda: clock[0]))
    log.lasts = 5.0
    for number in range(5):
        log.commit(change("a", "insert", number))
    log.resilience = QUICK
    log.breaks = [(2, broken())]

    def pass_time(*_: Any) -> None:
        clock[0] += 2.0

    captured.follow(after=pass_time)
    assert [row[0] for row in captured.events("a")] == [0, 1], "it went on after its time"


def test_only_what_is_lost_is_read_anew(captured: Captured, log: ListLog) -> None:
    log.commit(change("a", "insert", 1), change("b", "insert", 1))
    captured.follow()
    log.commit(change("a", "insert", 2), change("b", "insert", 2))
    log.lost = ("b", "somebody else's")
    with pytest.raises(LogLostError):
        captured.follow()
    captured.follow(resnapshot_lost=True)
    assert [row[:2] for row in captured.events("a")] == [(1, "read"), (2, "insert")]
    assert [row[:2] for row in captured.events("b")] == [(1, "read"), (1, "read"), (2, "read")]


def test_an_event_that_cannot_be_decoded_is_made_up_for_in_the_same_tick(captured: Captured, log: ListLog) -> None:
    """By a later event, and not by an earlier one."""
    captured.follow()
    log.commit(change("a", "insert", 1, bad="x"), change("a", "insert", 2), change("a", "insert", 3, bad="x"))
    log.commit(change("a", "update", 1, "fine"), change("a", "update", 2, bad="x"))
    log.per_tick = 2
    captured.follow()
    with captured.engine.session() as session:
        open_ones = session.execute(f"SELECT raw FROM {ErrorTable(captured.lake).current(session)} ORDER BY raw")
    assert [row[0] for row in open_ones] == [b'{"key": {"id": 2}, "pos": 20}', b'{"key": {"id": 3}, "pos": 10}']
