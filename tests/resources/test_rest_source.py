"""The source `rest`: pages of every kind, all the way into bronze, over wires and listings that do not hold still."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_assets.bronze import Bronze
from etl_resources.exceptions import (
    ConfigurationError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.lake import Lake
from etl_resources.resilience import Policy
from etl_resources.source import Batch, Capture, Incremental, Snapshot, Stream
from etl_resources.sources.rest import RestOptions, RestSource
from etl_resources.sources.rest_listing import ListingChangedError
from tests.assets.doubles import new_run
from tests.servers.http_api import Api, Asked, Told, running_api
from tests.servers.proxy import wire_to
from tests.soaking import some

QUICK = Policy(attempts=3, first_wait=0.01, longest_wait=0.01, timeout=2, silence=1)
WAYS: dict[str, dict[str, Any]] = {
    "offset": {"offset": {"size": 10}},
    "page": {"page": {"size": 10}},
    "cursor": {"cursor": {"path": "$.meta.next"}},
    "header": {"cursor": {"header": "X-Next"}},
    "link": {"link": {}},
    "next": {"next_url": {"path": "$.meta.next"}},
}
BY_ID = Incremental(cursor="id")


@pytest.fixture(scope="module")
def running() -> Iterator[Api]:
    with running_api() as api:
        yield api


@pytest.fixture
def api(running: Api) -> Api:
    running.log.clear()
    running.routes.clear()
    running.records = {"x": rows(range(95))}
    running.allowed, running.zipped, running.largest = None, False, 1_000_000
    running.interfere = lambda asked, told: told
    return running


def rows(ids: Any) -> list[tuple[Any, bytes]]:
    return [(i, json.dumps({"id": i, "at": {"n": [i]}}).encode()) for i in ids]


def source(api: Api, **settings: Any) -> RestSource:
    return RestSource(**{"base_url": api.url, "allow_http": True, "resilience": QUICK, **settings})


def stream(way: str = "offset", capture: Capture | None = BY_ID, **options: Any) -> Stream:
    given = {
        "path": f"/{way}/x", "records": "$.data.items[*]", "params": {"since": "{cursor}", "size": "10"},
        "pagination": WAYS.get(way), "look_back": 0, **options,
    }  # fmt: skip
    return Stream("x", RestOptions.model_validate(given), capture)


def ids(batches: list[Batch]) -> list[int]:
    return [i for b in batches if b.data.num_rows for i in b.data.column("id").to_pylist()]


def in_bronze(bronze: Bronze) -> list[int]:
    handle = bronze.table.open()
    return [] if handle is None else handle.delta.to_pyarrow_table().column("id").to_pylist()


def at(number: int, act: Callable[[], None]) -> Callable[[Asked, Told], Told]:
    """Act when the answer to the request of this number has been made."""
    count = Counter[str]()

    def interfere(asked: Asked, told: Told) -> Told:
        count["asked"] += 1
        if count["asked"] == number:
            act()
        return told

    return interfere


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_kind_of_pages_comes_whole_and_in_order(api: Api, way: str, zipped: bool) -> None:
    api.zipped = zipped
    for size in (11,) if zipped else (0, 1, 10, 11, 41):
        api.records["x"] = rows(range(size))
        assert ids(list(source(api).read(stream(way), None))) == list(range(size))


@pytest.mark.parametrize("total", [{"path": "$.meta.total"}, {"header": "X-Total-Count"}])
def test_a_known_total_saves_the_request_behind_the_end(api: Api, total: dict[str, str]) -> None:
    list(source(api).read(stream(total=total, in_flight=8), None))
    assert len(api.log) == 10
    assert source(api).estimate(stream(total=total), None) is not None
    estimate = source(api).estimate(stream(total=total), None)
    assert estimate is not None
    assert estimate.rows == 95


def test_pages_are_asked_for_at_the_same_time_and_never_more_than_allowed(api: Api) -> None:
    import threading
    import time

    now, most, lock = [0], [0], threading.Lock()
    fetched = RestSource.client

    class Counting:
        def __init__(self, client: Any) -> None:
            self.client, self.follow = client, client.follow

        def fetch(self, *arguments: Any) -> Any:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.02)
            try:
                return self.client.fetch(*arguments)
            finally:
                with lock:
                    now[0] -= 1

    from contextlib import contextmanager

    class Watched(RestSource):
        @contextmanager
        def client(self) -> Iterator[Any]:
            with fetched(self) as client:
                yield Counting(client)

    watched = Watched(base_url=api.url, allow_http=True)
    assert ids(list(watched.read(stream(in_flight=3), None))) == list(range(95))
    assert most == [3]


def test_a_post_asks_for_pages_in_its_body(api: Api) -> None:
    asked = stream(method="POST", body={"since": "{cursor}", "filter": {"who": "me"}}, params={})
    assert ids(list(source(api).read(asked, None))) == list(range(95))
    assert {a.method for a in api.log} == {"POST"}
    assert all(json.loads(a.body)["filter"] == {"who": "me"} for a in api.log)


def test_nested_records_are_structs_and_new_keys_are_found_late(api: Api) -> None:
    api.records["x"] = [*rows(range(20)), (20, b'{"id": 20, "at": {"n": [1], "late": {"deep": true}}, "new": 1.5}')]
    batches = list(source(api).read(stream(), None, batch_rows=10))
    assert batches[0].data.schema.field("at").type == pa.struct([("n", pa.list_(pa.int64()))])
    last = batches[-1].data.to_pylist()[-1]
    assert last == {"id": 20, "at": {"n": [1], "late": {"deep": True}}, "new": 1.5}
    assert batches[-1].position is not None
    assert batches[-1].position["schema"]["new"] == "float64"
    api.records["x"] = rows([21])
    (later,) = source(api).read(stream(), batches[-1].position)
    assert later.data.schema.names == ["id", "at", "new"], "types are kept in the position"
    assert source(api).read_schema(stream()).names == ["id", "at"]


def test_a_record_that_cannot_be_read_is_set_aside_with_its_page_and_line(api: Api) -> None:
    api.records["x"][13] = (13, b'{"id": 13,\n "at": nonsense}')
    api.records["x"][57] = (57, b"null")
    api.records["x"][60] = (60, b'{"id": "sixty"}')
    batches = list(source(api).read(stream(capture=Snapshot(), columns={"id": "int64"}), None))
    assert sorted(ids(batches)) == [i for i in range(95) if i not in (13, 57, 60)]
    bad = [record for b in batches if b.unreadable for record in b.unreadable.to_pylist()]
    assert [record["raw"] for record in bad] == [api.records["x"][n][1] for n in (13, 57, 60)]
    assert {record["origin"] for record in bad} == {f"{api.url}/offset/x"}
    assert batches[-1].rows_read == 95


@pytest.mark.parametrize(
    ("told", "kind", "match"),
    [
        (Told(b"<html>log in</html>", headers={"Content-Type": "text/html"}), EngineError, "text/html"),
        (Told(b""), UnavailableError, "empty"),
        (Told(b'{"data": {"items": [{"id": 1}, {"id"'), UnavailableError, "cut off"),
        (Told(b'{"data": {"items": [{"id": 1}]'), UnavailableError, "cut off"),
        (Told(b'{"data": {"items": [{"id": 1}]}'), UnavailableError, "cut off"),
        (Told(b'{"data": {"rows": []}}'), NotFoundError, "no items"),
        (Told(b'{"data": {"items": {}}}'), ConfigurationError, "not an array"),
        (Told(b'{"data": {"items": [{"id": 1, "_row": 2}]}}'), ConfigurationError, "_row"),
    ],
)
def test_an_answer_that_is_no_page_is_an_error_and_not_the_end(
    api: Api, told: Told, kind: type[EtlError], match: str
) -> None:
    api.interfere = lambda asked, usual: told
    with pytest.raises(kind, match=match) as caught:
        list(source(api).read(stream("cursor"), None))
    assert "stream x" in caught.value.where


def test_half_a_page_is_asked_for_again(api: Api) -> None:
    """Cut off within valid HTTP: only the JSON tells."""
    count = Counter[str]()

    def half(asked: Asked, told: Told) -> Told:
        count[str(asked.query)] += 1
        return Told(told.body[: len(told.body) // 2]) if count[str(asked.query)] == 1 else told

    api.interfere = half
    assert ids(list(source(api).read(stream(), None))) == list(range(95))


@pytest.mark.parametrize("way", ["offset", "cursor"])
def test_a_wire_that_breaks_now_and_then_loses_and_doubles_nothing(api: Api, way: str) -> None:
    with wire_to(api.port) as wire:
        api.interfere = at(5, wire.break_now)
        read = list(source(api, base_url=f"http://127.0.0.1:{wire.port}").read(stream(way), None))
    assert ids(read) == list(range(95))


@pytest.mark.parametrize("way", some(["offset", "cursor", "link", "page", "header", "next"], 3))
def test_a_run_that_was_broken_off_goes_on_where_bronze_was_committed(api: Api, way: str, tmp_path: Path) -> None:
    """The server is gone in the middle, and comes back at another port."""
    asked = stream(way, commit_pages=2, read_ahead=0)
    bronze = Bronze(Lake(uri=str(tmp_path)), "p", asked)
    with wire_to(api.port) as wire:
        connection = source(api, base_url=f"http://127.0.0.1:{wire.port}", hosts=[api.url])

        def die() -> None:
            wire.refuse = True
            wire.break_now()

        if way in ("link", "next"):
            api.interfere = at(6, lambda: api.routes.update({f"/{way}/x": lambda asked: Told(b"", 503)}))
        else:
            api.interfere = at(6, die)
        with pytest.raises(UnavailableError):
            bronze.land(connection, new_run())
        landed = in_bronze(bronze)
        assert 0 < len(landed) < 95
        wire.refuse = False
        api.routes.clear()
        api.log.clear()
        api.interfere = lambda asked, told: told
        bronze.land(connection, new_run())
    assert sorted(in_bronze(bronze)) == list(range(95))
    assert len(api.log) < 12, "the pages that were committed are not read again"
    assert bronze.land(source(api), new_run()).account.inserted == 0


def test_a_snapshot_that_broke_off_leaves_nothing(api: Api, tmp_path: Path) -> None:
    asked = stream(capture=Snapshot(), commit_pages=1)
    bronze = Bronze(Lake(uri=str(tmp_path)), "p", asked)
    api.interfere = at(6, lambda: api.routes.update({"/offset/x": lambda asked: Told(b"", 500)}))
    with pytest.raises(UnavailableError):
        bronze.land(source(api), new_run())
    assert in_bronze(bronze) == []
    api.routes.clear()
    bronze.land(source(api), new_run())
    assert sorted(in_bronze(bronze)) == list(range(95))


def drop(api: Api, *places: int) -> Callable[[], None]:
    return lambda: api.records.update(x=[r for n, r in enumerate(api.records["x"]) if n not in places])


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "total": ({"total": {"path": "$.meta.total"}}, "there were 95 records, and now there are 94"),
    "overlap": ({"identity": ["id"]}, "does not begin with the record"),
}


@pytest.mark.parametrize(
    ("check", "capture"),
    some([("total", BY_ID), ("overlap", Snapshot()), ("total", Snapshot()), ("overlap", BY_ID)], 2),
)
def test_a_listing_that_gets_shorter_while_it_is_read_is_read_from_its_beginning(
    api: Api, check: str, capture: Capture, tmp_path: Path
) -> None:
    """A record that is deleted moves all behind it forward, and the first of the next page is skipped: not silently."""
    options, match = CHANGES[check]
    asked = stream(capture=capture, in_flight=1, commit_pages=1, read_ahead=0, **options)
    bronze = Bronze(Lake(uri=str(tmp_path)), "p", asked)
    api.interfere = at(4, drop(api, 0))
    with pytest.raises(ListingChangedError, match=match) as caught:
        bronze.land(source(api), new_run())
    assert "run again" in caught.value.fix
    assert isinstance(capture, Snapshot) == (in_bronze(bronze) == [])
    bronze.land(source(api), new_run())
    assert set(in_bronze(bronze)) >= set(range(1, 95)), "nothing is lost"


def test_without_a_check_the_same_change_would_be_a_loss(api: Api) -> None:
    """The test above can fail."""
    api.interfere = at(4, drop(api, 0))
    assert 40 not in ids(list(source(api).read(stream(in_flight=1), None)))


def test_a_listing_that_changed_back_is_not_taken_for_the_same(api: Api, tmp_path: Path) -> None:
    """The next run must not go on in the middle, whatever the count says by then."""
    asked = stream(in_flight=1, commit_pages=1, read_ahead=0, total={"path": "$.meta.total"})
    bronze = Bronze(Lake(uri=str(tmp_path)), "p", asked)
    api.interfere = at(4, drop(api, 0))
    with pytest.raises(ListingChangedError):
        bronze.land(source(api), new_run())
    api.records["x"] += rows([95])
    api.log.clear()
    bronze.land(source(api), new_run())
    assert api.log[0].query.get("offset") == "0"
    assert set(in_bronze(bronze)) == set(range(96))


def test_a_count_that_does_not_agree_is_an_error(api: Api) -> None:
    for way in ("offset", "page", "cursor"):
        api.interfere = lambda asked, told: Told(told.body.replace(b'"total": 95', b'"total": 97'))
        with pytest.raises(UnavailableError, match=r"95|5 of 10"):
            list(source(api).read(stream(way, total={"path": "$.meta.total"}), None))


def test_a_listing_that_grows_is_read_to_its_new_end(api: Api) -> None:
    api.interfere = at(4, lambda: api.records["x"].extend(rows(range(95, 130))))
    for way in ("offset", "page", "cursor"):
        api.records["x"] = rows(range(95))
        api.interfere = at(4, lambda: api.records["x"].extend(rows(range(95, 130))))
        assert ids(list(source(api).read(stream(way, total={"path": "$.meta.total"}, in_flight=1), None))) == list(
            range(130)
        )


def test_a_server_that_gives_smaller_pages_than_asked_for_does_not_end_the_listing(api: Api) -> None:
    api.largest = 7
    for options in ({}, {"total": {"path": "$.meta.total"}}, {"more": "$.meta.more"}):
        with pytest.raises(ListingChangedError, match="7 of 10") as caught:
            list(source(api).read(stream(**options), None))
        assert "size: 7" in caught.value.fix
        assert ids(list(source(api).read(stream("page", **options), None))) == list(range(95)), "numbered by the server"


def test_a_page_that_is_short_in_the_middle_is_not_taken_for_the_end(api: Api) -> None:
    def short(asked: Asked, told: Told) -> Told:
        if asked.query.get("offset") != "30":
            return told
        page = json.loads(told.body)
        page["data"]["items"] = page["data"]["items"][:6]
        return Told(json.dumps(page).encode())

    api.interfere = short
    with pytest.raises(ListingChangedError, match="6 of 10"):
        list(source(api).read(stream(), None))


def test_a_page_that_begins_as_the_one_before_ended_shows_that_something_was_inserted(api: Api) -> None:
    api.interfere = at(4, lambda: api.records["x"].insert(0, rows([-1])[0]))
    with pytest.raises(ListingChangedError, match="begins with the record"):
        list(source(api).read(stream("page", identity=["id"], in_flight=1), None))


@pytest.mark.parametrize("way", ["cursor", "next", "link"])
def test_pages_that_lead_to_themselves_do_not_go_on_for_ever(api: Api, way: str) -> None:
    first: list[Told] = []

    def same(asked: Asked, told: Told) -> Told:
        first.append(told)
        return first[min(1, len(first) - 1)]

    api.interfere = same
    with pytest.raises(EngineError, match="for ever"):
        list(source(api).read(stream(way), None))


def test_a_next_page_on_another_host_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REST_KEY", "the-key")
    with running_api() as other:
        other.records["x"] = rows(range(95, 99))
        body = api.answer(Asked("GET", "/next/x", {"size": "10"}, {}, b""))
        assert body is not None
        moved = body.body.replace(api.url.encode(), other.url.encode())
        api.interfere = lambda asked, told: Told(moved)
        key = {"api_key": {"query": "key", "value": {"env": "REST_KEY"}}}
        with pytest.raises(ConfigurationError, match="another host"):
            list(source(api, auth=key).read(stream("next"), None))
        assert not other.log


def test_a_key_that_the_api_repeats_in_its_addresses_is_not_kept(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REST_KEY", "the-key")
    api.allowed = lambda asked: asked.query.get("key") == "the-key"
    key = {"api_key": {"query": "key", "value": {"env": "REST_KEY"}}}
    for way in ("next", "link"):
        batches = list(source(api, auth=key).read(stream(way, commit_pages=1), None, batch_rows=10))
        assert ids(batches) == list(range(95))
        assert "the-key" in api.log[1].query.values()
        assert "url" in json.dumps(batches[1].position)
        assert "the-key" not in json.dumps([b.position for b in batches])


def test_where_the_count_should_be_and_is_not(api: Api) -> None:
    with pytest.raises(NotFoundError, match=r"no number at \$.meta.count"):
        list(source(api).read(stream(total={"path": "$.meta.count"}), None))
    with pytest.raises(NotFoundError, match=r"neither true nor false at \$.meta.next"):
        list(source(api).read(stream(more="$.meta.next"), None))


def test_a_mark_that_the_server_has_forgotten_begins_the_listing_anew(api: Api, tmp_path: Path) -> None:
    asked = stream("cursor", commit_pages=2, read_ahead=0)
    bronze = Bronze(Lake(uri=str(tmp_path)), "p", asked)
    api.interfere = at(6, lambda: api.routes.update({"/cursor/x": lambda asked: Told(b"", 503)}))
    with pytest.raises(UnavailableError):
        bronze.land(source(api), new_run())
    api.routes.clear()
    api.interfere = lambda asked, told: Told(b"expired", 410) if "cursor" in asked.query else told
    with pytest.raises(NotFoundError):
        bronze.land(source(api), new_run())
    api.interfere = lambda asked, told: told
    bronze.land(source(api), new_run())
    assert set(in_bronze(bronze)) == set(range(95))


def test_a_partition_asks_for_its_days_and_keeps_nothing_else(api: Api) -> None:
    from datetime import UTC, datetime

    from etl_resources.source import Window

    api.records["x"] = [(None, json.dumps({"id": n, "day": f"2024-01-{n:02d}"}).encode()) for n in range(1, 31)]
    options = stream(capture=None, params={"from": "{start}", "to": "{end}"}).options
    window = Window("day", datetime(2024, 1, 5, tzinfo=UTC), datetime(2024, 1, 8, tzinfo=UTC))
    batches = list(source(api).read(Stream("x", options, window=window), None))
    assert ids(batches) == [5, 6, 7]
    assert [b.position for b in batches] == [None] * len(batches)
    assert api.log[0].query["from"] == "2024-01-05T00:00:00Z"


@pytest.mark.parametrize(
    "options",
    [
        {"pagination": {"offset": {}, "link": {}}}, {"pagination": {}}, {"pagination": {"cursor": {}}}, {"body": {}},
        {"method": "POST"}, {"total": {}}, {"unknown": 1}, {"columns": {"id": "number"}},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(api: Api, options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, ConfigurationError)):
        list(source(api).read(stream(**options), None))
