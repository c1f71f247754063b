"""Columns that a change log leaves out are filled from its earlier events, and never from anywhere else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from etl_assets.silver_changes import completed, truncated_at
from etl_resources.engines.duckdb import DuckDB

ROW = pa.struct([("id", pa.int64()), ("big", pa.string()), ("n", pa.int64())])
SCHEMA = pa.schema(
    [
        ("id", pa.int64()), ("big", pa.string()), ("n", pa.int64()), ("_op", pa.string()), ("_pos", pa.int64()),
        ("_seq", pa.int64()), ("_unchanged", pa.list_(pa.string())), ("_before", ROW), ("_batch", pa.int64()),
        ("_row", pa.int64()),
    ]
)  # fmt: skip


def event(op: str, pos: int, key: int | None, big: str | None = None, *, was: int | None = None, **more: Any) -> Any:
    """Return an event; `big` None is a NULL that was given, "?" is not given."""
    left_out = big == "?"
    return {
        "id": key, "big": None if left_out else big, "n": more.get("n"), "_op": op, "_pos": pos,
        "_seq": more.get("seq", 0), "_unchanged": ["big"] if left_out else None,
        "_before": None if was is None else {"id": was}, "_batch": more.get("batch", 1),
    }  # fmt: skip


def fill(events: list[dict[str, Any]], above: int = 0) -> tuple[dict[int, Any], set[int]]:
    """Return `_pos` -> value after filling of the events of batches above a number, and those that stay incomplete."""
    rows = [{**row, "_row": number} for number, row in enumerate(events)]
    with DuckDB().session() as session:
        session.connection.register("log", pa.Table.from_pylist(rows, schema=SCHEMA))
        relation = f"(SELECT * FROM log WHERE _batch > {above})"
        sql = completed(session, relation, lambda: "log", ["id"])
        values = dict(session.execute(f"SELECT _pos, big FROM {sql}"))
        missing = {at for (at,) in session.execute("SELECT l._pos FROM incomplete i JOIN log l USING (_batch, _row)")}
        return values, missing


def test_a_value_that_was_left_out_is_that_of_the_event_before() -> None:
    events = [event("insert", 1, 7, "a"), event("insert", 2, 8, "b"), event("update", 3, 7, "?")]
    assert fill(events) == ({1: "a", 2: "b", 3: "a"}, set())


def test_it_is_found_in_earlier_batches_too() -> None:
    events = [event("read", 1, 7, "a"), event("update", 2, 7, "?", batch=2), event("update", 3, 7, "?", batch=3)]
    assert fill(events, above=2) == ({3: "a"}, set())


def test_a_null_that_was_given_is_a_value() -> None:
    events = [event("insert", 1, 7, "a"), event("update", 2, 7, None), event("update", 3, 7, "?")]
    assert fill(events) == ({1: "a", 2: None, 3: None}, set())


def test_an_event_whose_value_nobody_gave_is_named_and_not_null_in_silence() -> None:
    assert fill([event("insert", 1, 8, "b"), event("update", 2, 7, "?")]) == ({1: "b", 2: None}, {2})


def test_a_snapshot_row_ranks_before_the_events_of_its_position() -> None:
    events = [event("update", 5, 7, "?", batch=1), event("read", 5, 7, "a", seq=-1)]
    values, missing = fill(events[:1])
    assert missing == {5}
    rows = [{**row, "_row": number} for number, row in enumerate(events)]
    with DuckDB().session() as session:
        session.connection.register("log", pa.Table.from_pylist(rows, schema=SCHEMA))
        sql = completed(session, "log", lambda: "log", ["id"])
        assert session.execute(f"SELECT big FROM {sql} WHERE _op = 'update'") == [("a",)]
    assert values == {5: None}


def test_a_changed_key_takes_the_value_of_the_old_one_and_not_of_an_earlier_life_of_the_new_one() -> None:
    events = [
        event("insert", 1, 2, "earlier life"), event("delete", 2, 2), event("insert", 3, 1, "mine"),
        event("delete", 4, 1, seq=0), event("update", 4, 2, "?", was=1, seq=1), event("update", 5, 2, "?"),
    ]  # fmt: skip
    values, missing = fill(events)
    assert values[5] == "mine"
    assert missing == set()


@pytest.mark.parametrize("steps", [2, 5])
def test_a_key_may_be_changed_many_times(steps: int) -> None:
    events = [event("insert", 1, 0, "mine")]
    for step in range(1, steps + 1):
        events += [event("delete", step * 10, step - 1), event("update", step * 10, step, "?", was=step - 1, seq=1)]
    events.append(event("update", 999, steps, "?", batch=2))
    assert fill(events, above=1) == ({999: "mine"}, set())


def test_keys_that_change_places_keep_their_values() -> None:
    events = [
        event("insert", 1, 1, "one"), event("insert", 2, 2, "two"),
        event("delete", 3, 1, seq=0), event("update", 3, -1, "?", was=1, seq=1),
        event("delete", 3, 2, seq=2), event("update", 3, 1, "?", was=2, seq=3),
        event("delete", 3, -1, seq=4), event("update", 3, 2, "?", was=-1, seq=5),
        event("update", 4, 1, "?", batch=2), event("update", 5, 2, "?", batch=2),
    ]  # fmt: skip
    assert fill(events, above=1) == ({4: "two", 5: "one"}, set())


def test_the_last_truncation_is_found() -> None:
    rows = [event("insert", 1, 1, "a"), event("truncate", 2, None), event("truncate", 4, None, seq=3)]
    with DuckDB().session() as session:
        table = pa.Table.from_pylist([{**row, "_row": n} for n, row in enumerate(rows)], schema=SCHEMA)
        session.connection.register("log", table)
        assert truncated_at(session, "log") == (4, 3)
        assert truncated_at(session, "(SELECT * FROM log WHERE _pos < 2)") is None
