"""Incremental reads of an API: what is new, once, however records share their cursors or come late."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl_assets.bronze import Bronze
from etl_resources.exceptions import ConfigurationError
from etl_resources.lake import Lake
from etl_resources.source import Batch, Incremental, Position, Stream
from etl_resources.sources.rest import RestOptions, RestSource
from tests.assets.doubles import new_run
from tests.servers.http_api import Api, running_api

START = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def running() -> Iterator[Api]:
    with running_api() as api:
        yield api


@pytest.fixture
def api(running: Api) -> Api:
    running.log.clear()
    running.records.clear()
    running.interfere = lambda asked, told: told
    return running


def put(api: Api, number: int, seconds: float | None, **more: Any) -> None:
    moment = None if seconds is None else f"{START + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"
    record = json.dumps({"id": number, "modified_at": moment, **more}).encode()
    api.records.setdefault("x", []).append((moment, record))


def stream(**options: Any) -> Stream:
    given = {
        "path": "/offset/x", "records": "$.data.items[*]", "params": {"since": "{cursor}"}, "look_back": 10,
        "pagination": {"offset": {"size": 10}}, "cursor_format": "iso_seconds", **options,
    }  # fmt: skip
    return Stream("x", RestOptions.model_validate(given), Incremental(cursor="modified_at"))


def read(api: Api, since: Position | None, **options: Any) -> tuple[list[int], int, Position | None]:
    """Return the ids that came, how many were recognised, and the position behind them."""
    source = RestSource(base_url=api.url, allow_http=True)
    batches: list[Batch] = list(source.read(stream(**options), since))
    ids = [i for b in batches for i in b.data.column("id").to_pylist()]
    assert batches == [] or batches[-1].rows_read == len(ids) + sum(b.repeated for b in batches)
    return ids, sum(b.repeated for b in batches), (batches[-1].position if batches else since)


def test_records_with_the_same_cursor_are_neither_lost_nor_doubled(api: Api) -> None:
    for number in range(25):
        put(api, number, 100)
    first, _, position = read(api, None)
    assert first == list(range(25))
    assert read(api, position)[0] == [], "and there is nothing new"
    put(api, 25, 100)
    put(api, 26, 101)
    ids, repeated, position = read(api, position)
    assert (ids, repeated) == ([25, 26], 25)
    assert api.log[-1].query["since"] == "2024-05-01T00:01:30Z"
    assert read(api, position)[0] == []


def test_a_record_that_was_committed_late_is_read_within_the_look_back(api: Api) -> None:
    put(api, 0, 100)
    put(api, 1, 120)
    _, _, position = read(api, None)
    put(api, 2, 112)
    put(api, 3, 105)
    api.records["x"].sort()
    ids, repeated, _ = read(api, position)
    assert ids == [2], "and what is later than promised is not"
    assert repeated == 1


def test_a_record_that_was_changed_without_another_cursor_is_new(api: Api) -> None:
    put(api, 0, 100, name="old")
    _, _, position = read(api, None)
    api.records["x"].clear()
    put(api, 0, 100, name="new")
    assert read(api, position)[0] == [0]


def test_a_key_that_comes_up_later_does_not_make_old_records_new(api: Api) -> None:
    put(api, 0, 100)
    _, _, position = read(api, None)
    put(api, 1, 101, colour="red")
    ids, repeated, _ = read(api, position)
    assert (ids, repeated) == ([1], 1)


def test_records_without_a_cursor_are_read_once(api: Api) -> None:
    put(api, 0, None)
    put(api, 1, 100)
    ids, _, position = read(api, None)
    assert ids == [0, 1]
    put(api, 2, 500)
    put(api, 3, None)
    ids, _, position = read(api, position)
    assert ids == [2, 3]
    assert read(api, position)[0] == []


def test_a_time_in_the_future_does_not_hide_what_comes_before_it(api: Api) -> None:
    year = 366 * 86_400
    ahead = (datetime.now(UTC) - START).total_seconds() + year
    put(api, 0, 100)
    put(api, 1, ahead)
    ids, _, position = read(api, None)
    assert ids == [0, 1]
    now = (datetime.now(UTC) - START).total_seconds()
    put(api, 2, now + 1)
    api.records["x"].sort()
    ids, _, position = read(api, position)
    assert ids == [2]
    time.sleep(0.01)
    assert read(api, position)[0] == []


@pytest.mark.parametrize(
    ("form", "asked"),
    [("iso", "2024-05-01T00:03:10.000000Z"), ("iso_seconds", "2024-05-01T00:03:10Z"), ("date", "2024-05-01"),
     ("epoch", "1714521790"), ("epoch_ms", "1714521790000")],
)  # fmt: skip
def test_the_cursor_is_written_as_the_api_wants_it(api: Api, form: str, asked: str) -> None:
    """And whatever its precision, nothing comes twice."""
    for number in range(3):
        put(api, number, number * 100)
    _, _, position = read(api, None, cursor_format=form)
    api.log.clear()
    api.interfere = lambda request, told: api._listing(  # the server takes no notice of the cursor
        type(request)("GET", request.path, {k: v for k, v in request.query.items() if k != "since"}, {}, b"")
    )
    assert read(api, position, cursor_format=form)[0] == []
    assert api.log[0].query["since"] == asked
    put(api, 3, 300)
    assert read(api, position, cursor_format=form)[0] == [3]


def test_the_first_read_asks_from_where_it_is_told(api: Api) -> None:
    put(api, 0, 100)
    read(api, None)
    assert "since" not in api.log[0].query, "a parameter without its cursor is left out"
    api.log.clear()
    read(api, None, initial="2024-01-01")
    assert api.log[0].query["since"] == "2024-01-01"


def test_more_records_at_the_boundary_than_can_be_kept_is_an_error_and_no_loss(api: Api) -> None:
    for number in range(25):
        put(api, number, 100)
    with pytest.raises(ConfigurationError, match="more than 24 records") as caught:
        read(api, None, look_back_records=24)
    assert "look_back" in caught.value.fix
    assert read(api, None, look_back_records=25)[0] == list(range(25))


def test_what_cannot_be_ordered_is_no_cursor(api: Api) -> None:
    api.records["x"] = [("a", b'{"id": 1, "modified_at": "yesterday"}')]
    with pytest.raises(ConfigurationError, match="cannot be a cursor"):
        read(api, None)
    api.records["x"] = [("a", b'{"id": 1, "modified_at": {"at": 1}}')]
    with pytest.raises(ConfigurationError, match="cannot be a cursor"):
        read(api, None)


def test_many_runs_over_a_listing_that_is_written_to_all_the_time(api: Api, tmp_path: Path) -> None:
    """Every version of every record is in bronze, once, though many share their moment with others."""
    import random

    rng, bronze = random.Random(5), Bronze(Lake(uri=str(tmp_path)), "p", stream(commit_pages=2, read_ahead=0))
    source, versions, seconds = RestSource(base_url=api.url, allow_http=True), set(), 0
    for _ in range(5):
        for _ in range(rng.randrange(0, 40)):
            number, seconds = rng.randrange(30), seconds + rng.choice([0, 0, 0, 1, 3])
            version = len(versions)
            put(api, number, seconds - rng.choice([0, 0, 5]), version=version)
            versions.add(version)
        api.records["x"].sort(key=lambda r: r[0])
        bronze.land(source, new_run())
    handle = bronze.table.open()
    assert handle is not None
    landed = Counter(handle.delta.to_pyarrow_table().column("version").to_pylist())
    assert set(landed) == versions
    assert set(landed.values()) == {1}
