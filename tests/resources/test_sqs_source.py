"""Reading SQS: deleted after the commit, recognised when it comes again, let go of when a run fails."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from etl_assets.bronze import Bronze
from etl_assets.landing import Landed
from etl_assets.run import Run
from etl_resources.exceptions import ConfigurationError, CredentialsRejectedError, NotFoundError, UnavailableError
from etl_resources.lake import Lake
from etl_resources.resilience import Policy
from etl_resources.source import Batch, Incremental, Stream
from etl_resources.sources.sqs import SqsSource, SqsStreamOptions
from etl_resources.sources.sqs_known import Known
from tests.servers.proxy import free_port, wire_to
from tests.servers.s3 import shared_s3
from tests.servers.sqs import Sqs, shared_sqs

QUICK = Policy(timeout=2, silence=8, attempts=2, first_wait=0.05)


@pytest.fixture(scope="module")
def sqs() -> Sqs:
    return shared_sqs()


@pytest.fixture
def queue(sqs: Sqs, request: pytest.FixtureRequest) -> str:
    return sqs.queue(request.node.name[:70].replace("[", "_").replace("]", ""))


def source(sqs: Sqs, **settings: Any) -> SqsSource:
    return SqsSource(**{**sqs.settings, "resilience": QUICK, **settings})


def stream(queue: str, **options: Any) -> Stream:
    return Stream("events", SqsStreamOptions(**{"type": "sqs", "queue": queue, "idle_seconds": 0.2, **options}))


def bodies(first: int, rows: int) -> list[str]:
    return [json.dumps({"n": n}) for n in range(first, first + rows)]


def land(folder: Path, sqs: Sqs, wanted: Stream, **settings: Any) -> Landed:
    return Bronze(Lake(uri=str(folder)), "test", wanted).land(source(sqs, **settings), Run("run"))


def landed(folder: Path) -> list[int]:
    handle = Lake(uri=str(folder)).table("bronze", "test", "events").open()
    assert handle is not None
    return sorted(handle.delta.to_pyarrow_table().column("n").to_pylist())


def values(batches: list[Batch]) -> list[int]:
    return sorted(n for b in batches for n in b.data.column("n").to_pylist())


def test_what_was_committed_is_deleted_and_nothing_else(sqs: Sqs, queue: str, tmp_path: Path) -> None:
    sqs.send(queue, bodies(0, 90))
    account = land(tmp_path, sqs, stream(queue, max_messages=40)).account
    assert (account.read, landed(tmp_path)) == (90, list(range(90)))
    assert sqs.depth(queue) == (0, 0)


def test_a_full_refresh_is_refused_that_would_lose_what_the_queue_has_forgotten(
    sqs: Sqs, queue: str, tmp_path: Path
) -> None:
    sqs.send(queue, bodies(0, 3))
    land(tmp_path, sqs, stream(queue))
    sqs.send(queue, bodies(3, 2))
    bronze = Bronze(Lake(uri=str(tmp_path)), "test", stream(queue))
    with pytest.raises(ConfigurationError, match="what the source has forgotten"):
        bronze.land(source(sqs), Run("run"), full_refresh=True)
    assert landed(tmp_path) == [0, 1, 2]
    land(tmp_path, sqs, stream(queue))
    assert landed(tmp_path) == [0, 1, 2, 3, 4]


def test_attributes_are_columns(sqs: Sqs, queue: str) -> None:
    attributes = {"trace": {"DataType": "Binary", "BinaryValue": b"\x01\xff"}}
    [sent] = sqs.send(queue, ['{"n": 1}'], MessageAttributes=attributes)
    [batch] = source(sqs).read(stream(queue), None)
    [row] = batch.data.to_pylist()
    assert abs(row.pop("sqs_sent_at").timestamp() - time.time()) < 60
    assert row == {
        "n": 1, "sqs_message_id": sent, "sqs_receive_count": 1, "sqs_group": None, "sqs_sequence": None,
        "sqs_attributes": [{"name": "trace", "type": "Binary", "value": b"\x01\xff"}], "_origin": queue,
    }  # fmt: skip


def test_a_reader_that_stops_early_leaves_the_rest_to_others_at_once(sqs: Sqs, queue: str) -> None:
    sqs.send(queue, bodies(0, 60))
    batches: Any = source(sqs).read(stream(queue, visibility_seconds=3600), None, batch_rows=20)
    next(batches)
    batches.close()
    assert sqs.depth(queue) == (60, 0)
    assert values(list(source(sqs).read(stream(queue), None))) == list(range(60))


def test_committed_and_not_deleted_they_are_recognised_when_they_come_again(
    sqs: Sqs, queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that dies between commit and acknowledgement doubles nothing, and the next one deletes what it left."""
    sqs.send(queue, bodies(0, 40))
    with monkeypatch.context() as patch:

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(SqsSource, "acknowledge", die)
        with pytest.raises(KeyboardInterrupt):
            land(tmp_path, sqs, stream(queue, max_messages=20))
    assert len(landed(tmp_path)) == 20
    sqs.send(queue, bodies(40, 5))
    account = land(tmp_path, sqs, stream(queue)).account
    assert account.filtered == {"delivered_before": 20}
    assert landed(tmp_path) == list(range(45))
    assert sqs.depth(queue) == (0, 0)


def test_poison_goes_to_the_error_list_and_out_of_the_queue(sqs: Sqs, queue: str, tmp_path: Path) -> None:
    sqs.send(queue, ['{"n": 1}', "poison", '{"n": 2}'])
    account = land(tmp_path, sqs, stream(queue)).account
    assert account.rejected == {"unreadable": 1}
    assert landed(tmp_path) == [1, 2]
    assert sqs.depth(queue) == (0, 0)


def test_messages_stay_invisible_for_as_long_as_the_lake_takes(sqs: Sqs, queue: str) -> None:
    sqs.send(queue, bodies(0, 5))
    batches = source(sqs).read(stream(queue, visibility_seconds=3, max_messages=5), None)
    next(batches)
    for _ in range(7):
        time.sleep(0.5)
        assert sqs.depth(queue) == (0, 5), "visible to others before it was committed"
    batches.close()  # type: ignore[attr-defined]
    assert sqs.depth(queue) == (5, 0)


def test_a_fifo_queue_is_read_in_order_to_its_end(sqs: Sqs, tmp_path: Path) -> None:
    """It gives no more of a group while some of it is in flight: those are committed first."""
    sqs.queue("orders.fifo")
    sqs.send("orders.fifo", bodies(0, 35), group="customer-1")
    account = land(tmp_path, sqs, stream("orders.fifo")).account
    handle = Lake(uri=str(tmp_path)).table("bronze", "test", "events").open()
    assert handle is not None
    rows = sorted(handle.delta.to_pyarrow_table().to_pylist(), key=lambda row: row["_seq"])
    assert account.read == 35
    assert [row["n"] for row in rows] == list(range(35))
    assert {row["sqs_group"] for row in rows} == {"customer-1"}
    assert all(row["sqs_sequence"] for row in rows)


def test_a_cut_connection_is_made_again_and_nothing_is_lost_or_doubled(sqs: Sqs, queue: str, tmp_path: Path) -> None:
    sqs.send(queue, bodies(0, 100))
    wanted = stream(queue, max_messages=30, receivers=1, visibility_seconds=3)
    with wire_to(sqs.port, cut_after=25_000) as wire:
        with pytest.raises(UnavailableError):
            land(tmp_path, sqs, wanted, endpoint=f"http://127.0.0.1:{wire.port}")
        wire.cut_after = None
    assert len(landed(tmp_path)) < 100
    _expire(sqs, queue)  # what the broken run could not release comes back when its time is over
    land(tmp_path, sqs, wanted)
    assert landed(tmp_path) == list(range(100))


def _expire(sqs: Sqs, queue: str) -> None:
    """Wait until what a broken run has left is visible."""
    deadline = time.monotonic() + 15
    while sqs.depth(queue)[1] and time.monotonic() < deadline:
        time.sleep(0.3)


def test_a_stalled_queue_is_an_error(sqs: Sqs, queue: str) -> None:
    sqs.send(queue, bodies(0, 30))
    hasty = Policy(timeout=2, silence=1, attempts=1)
    with wire_to(sqs.port, stall_after=3000) as wire, pytest.raises(UnavailableError):
        list(source(sqs, endpoint=f"http://127.0.0.1:{wire.port}", resilience=hasty).read(stream(queue), None))


def test_what_is_wrong_is_said(sqs: Sqs, queue: str) -> None:
    with pytest.raises(NotFoundError, match="no_such_queue"):
        source(sqs).latest(stream("no_such_queue"))
    with pytest.raises(UnavailableError, match="Could not connect"):
        source(sqs, endpoint=f"http://127.0.0.1:{free_port()}").ping()
    with pytest.raises(UnavailableError):
        source(sqs, endpoint="http://no-such-host.invalid").ping()
    with pytest.raises(ConfigurationError, match="leave `capture` out"):
        list(source(sqs).read(Stream("s", stream(queue).options, Incremental(cursor="x")), None))
    sqs.send(queue, bodies(0, 3))
    assert source(sqs).latest(stream(queue)) == {"waiting": 3}


def test_refused_keys_are_said_to_be_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SQS_SECRET", "hunter2-hunter2")
    refused = SqsSource(
        region="us-east-1", endpoint=shared_s3(open_requests=1).options["endpoint"], resilience=QUICK,
        access_key_id={"env": "TEST_SQS_SECRET"}, secret_access_key={"env": "TEST_SQS_SECRET"},  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(CredentialsRejectedError) as caught:
        refused.ping()
    assert "hunter2" not in f"{caught.value!r}{caught.value}{refused!r}"


def test_known_messages_outlive_runs_that_do_not_meet_them() -> None:
    """A killed run leaves messages that are invisible for a while: the next commit must not forget them."""
    first = Known(clock=lambda: 1000.0)
    first.handed(["a", "b"])
    left = json.loads(json.dumps(first.dump()))
    second = Known(left, clock=lambda: 2000.0)
    second.handed(["c"])
    second.committed()
    second.deleted(["c"])
    assert all(Known(second.dump()).seen(name) for name in "abc")
    second.deleted(["a"])
    second.handed(["d"])
    second.committed()
    third = Known(second.dump(), clock=lambda: 3000.0)
    assert [third.seen(name) for name in "abcd"] == [False, True, False, True]
    assert Known(left, clock=lambda: 1000.0 + 15 * 86_400).dump() == []
