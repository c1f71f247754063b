"""New objects by what S3 tells a queue: loaded once, however often they are told of, and at last if they never are."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etl_assets.bronze import Bronze, Landed
from etl_resources.exceptions import ConfigurationError, CredentialsRejectedError, NotFoundError, UnavailableError
from etl_resources.files import notifications
from etl_resources.files.s3_events import written
from etl_resources.lake import Lake
from etl_resources.resilience import Policy
from etl_resources.source import Incremental, Snapshot, Source, Stream
from etl_resources.sources import sqs_reading
from etl_resources.sources.file import FileOptions, FileSource
from tests.assets.doubles import new_run
from tests.servers.proxy import free_port, wire_to
from tests.servers.s3_events import NotifyingBucket, Way, notifying_bucket
from tests.servers.sqs import shared_sqs
from tests.soaking import some


class Landing:
    """A bucket that tells, and the bronze table that is loaded from it."""

    def __init__(self, folder: Path, bucket: NotifyingBucket, way: Way) -> None:
        self.bucket, self.lake, self.way = bucket, Lake(uri=str(folder)), way

    def options(self, path: str = "in/**/*.csv", **settings: Any) -> FileOptions:
        told: Any = {"queue_url": self.bucket.queue_url, "idle_seconds": 0.05, "visibility_seconds": 3, **settings}
        return FileOptions(path=f"s3://{self.bucket.name}/{path}", missing="ok", notifications=told)

    def source(self, **changes: Any) -> FileSource:
        server = self.bucket.sqs.server
        given = {"options": server.options, "secrets": server.secrets, "client_options": server.client_options}
        return FileSource(**{**given, **changes})

    def bronze(self, commit_rows: int = 2_000_000, **settings: Any) -> Bronze:
        return Bronze(self.lake, "test", Stream("rows", self.options(**settings)), commit_rows=commit_rows)

    def land(self, source: Source | None = None, **settings: Any) -> Landed:
        return self.bronze(**settings).land(source or self.source(), new_run())

    def begin(self) -> None:
        """Load a first file, by the listing that the first read is; what comes then is told."""
        self.put("in/0.csv", 0)
        self.land()
        self.bucket.tell(self.way)

    def put(self, key: str, *numbers: int) -> None:
        self.bucket.put(key, "".join(["n\n", *(f"{n}\n" for n in numbers)]).encode())

    @property
    def waiting(self) -> tuple[int, int]:
        """How many messages wait, and how many are held."""
        return self.bucket.sqs.depth(self.bucket.queue)

    @property
    def rows(self) -> list[int]:
        handle = self.lake.table("bronze", "test", "rows").open()
        assert handle is not None
        return sorted(int(n) for n in handle.delta.to_pyarrow_table(columns=["n"]).column("n").to_pylist())


@pytest.fixture
def landing(tmp_path: Path, request: pytest.FixtureRequest) -> Landing:
    way: Way = getattr(request, "param", "s3")
    name = f"told-{way.replace('_', '-')}-{abs(hash(request.node.name)):x}"
    return Landing(tmp_path, notifying_bucket(shared_sqs(), name), way)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty queue is not waited for, and one that is away not for long."""
    monkeypatch.setattr(sqs_reading, "LONGEST_POLL", 0)
    monkeypatch.setattr(notifications, "POLICY", Policy(timeout=2, silence=1, attempts=2, first_wait=0.05))


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The listings that were made."""
    from etl_resources.files.storage import Storage

    made: list[str] = []
    real = Storage.find

    def find(self: Storage, pattern: str, **settings: Any) -> Any:
        made.append(pattern)
        return real(self, pattern, **settings)

    monkeypatch.setattr(Storage, "find", find)
    return made  # type: ignore[return-value]


class Killed(BaseException):
    """What no code may catch."""


def dying(source: FileSource, monkeypatch: pytest.MonkeyPatch) -> FileSource:
    """Die when something has been committed, before any message was deleted."""

    def die(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(FileSource, "acknowledge", die)
    return source


@pytest.mark.parametrize("landing", some(["sns", "event_bridge", "s3"], 2), indirect=True)
def test_what_is_told_is_read_as_what_is_listed_and_then_deleted(landing: Landing, listings: list[str]) -> None:
    """Also keys that have to be quoted; the test event, deletions, and objects of other names are no news."""
    landing.begin()
    listings.clear()
    landing.put("in/a b/ü+%20&1.csv", 1)
    landing.put("in/2.csv", 2)
    landing.put("in/_SUCCESS", 99)
    landing.put("elsewhere/3.csv", 99)
    account = landing.land().account
    assert (landing.rows, account.read, listings) == ([0, 1, 2], 2, [])
    assert landing.waiting == (0, 0)
    handle = landing.lake.table("bronze", "test", "rows").open()
    assert handle is not None
    origins = handle.delta.to_pyarrow_table(columns=["_origin"]).column("_origin").to_pylist()
    assert f"s3://{landing.bucket.name}/in/a b/ü+%20&1.csv" in origins
    assert landing.land(list_every_hours=0).account.read == 0, "a listing knows them by the same names and tags"


def test_the_first_read_lists_and_its_messages_are_recognised_by_the_next(landing: Landing) -> None:
    landing.bucket.tell("s3")
    landing.put("in/1.csv", 1)
    landing.land()
    assert landing.rows == [1]
    assert landing.waiting == (2, 0), "they are no part of it"
    assert landing.land().batches == (), "nothing new: nothing is committed"
    assert (landing.rows, landing.waiting) == ([1], (0, 0))


def test_an_object_that_is_told_twice_is_loaded_once_and_one_that_changed_again(landing: Landing) -> None:
    landing.begin()
    landing.put("in/1.csv", 1)
    landing.put("in/1.csv", 1)
    assert landing.land().account.read == 1
    landing.put("in/1.csv", 1)
    landing.put("in/0.csv", 7)
    assert landing.land().account.read == 1
    assert (landing.rows, landing.waiting) == ([0, 1, 7], (0, 0))


def test_an_object_that_was_deleted_meanwhile_is_no_error(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether before it was looked at, or between that and its turn."""
    from etl_resources.files import reading

    landing.begin()
    for n in (1, 2, 3):
        landing.put(f"in/{n}.csv", n)
    landing.bucket.delete("in/2.csv")
    real = reading._read_file

    def read_file(info: Any, *others: Any) -> Any:
        if info.path.endswith("3.csv"):
            landing.bucket.delete("in/3.csv")
        return real(info, *others)

    monkeypatch.setattr(reading, "_read_file", read_file)
    landing.land()
    assert landing.rows == [0, 1]
    assert landing.waiting == (1, 0), "the message of the last deletion"


def test_what_is_no_notification_goes_to_the_error_list_once(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the run dies behind the commit, and the message comes again."""
    landing.begin()
    foreign = json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
                                       "s3": {"bucket": {"name": "other"}, "object": {"key": "k"}}}]})  # fmt: skip
    landing.bucket.sqs.send(landing.bucket.queue, ["poison", '{"hello": 1}', foreign])
    landing.put("in/1.csv", 1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        landing.land(dying(landing.source(), patch))
    assert landing.waiting != (0, 0)
    assert landing.land().account.rejected == {}, "told once"
    assert (landing.rows, landing.waiting) == ([0, 1], (0, 0))
    errors = landing.lake.table("ops", "errors").open()
    assert errors is not None
    found = errors.delta.to_pyarrow_table().to_pylist()
    assert len(found) == 3
    assert "of another bucket: other/k" in str(found)


def test_dead_between_commit_and_deletion_doubles_nothing(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.begin()
    for n in range(1, 6):
        landing.put(f"in/{n}.csv", n)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        landing.land(dying(landing.source(), patch), max_messages=2)
    assert sum(landing.waiting) == 6
    landing.put("in/6.csv", 6)
    landing.land()
    assert (landing.rows, landing.waiting) == ([0, 1, 2, 3, 4, 5, 6], (0, 0))


def test_dead_in_the_middle_of_a_round_loses_nothing(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit in the middle deletes no message, and does not know those whose files are still to come."""
    from etl_resources.files import reading

    landing.begin()
    for n in range(1, 6):
        landing.put(f"in/{n}.csv", *range(n * 100, n * 100 + 50))
    real, read = reading._read_file, FileSource.read

    def read_file(info: Any, *others: Any) -> Any:
        if info.path.endswith("4.csv"):
            raise Killed
        return real(info, *others)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "_read_file", read_file)
        patch.setattr(FileSource, "read", lambda *given: read(*given, batch_rows=50))
        with pytest.raises(Killed):
            landing.bronze(commit_rows=1).land(landing.source(), new_run())
    assert 50 < len(landing.rows) < 200, "some of the round is in the lake"
    assert sum(landing.waiting) == 6, "no message is gone"
    landing.land()
    assert landing.rows == sorted([0, *(n * 100 + k for n in range(1, 6) for k in range(50))])
    assert landing.waiting == (0, 0)


def test_what_nobody_told_of_is_found_by_the_next_listing(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.begin()
    landing.bucket.silence()
    landing.put("in/1.csv", 1)
    assert landing.land().batches == ()
    real = time.time
    monkeypatch.setattr(notifications.time, "time", lambda: real() + 25 * 3600)
    landing.land()
    assert landing.rows == [0, 1]


def test_a_listing_that_finds_nothing_is_remembered(landing: Landing, listings: list[str]) -> None:
    """Else every run that follows would list."""
    landing.begin()
    landing.land(list_every_hours=0)
    listings.clear()
    landing.put("in/1.csv", 1)
    landing.land()
    assert (landing.rows, listings) == ([0, 1], [])


def test_a_stream_that_was_listed_so_far_goes_on_with_notifications(landing: Landing) -> None:
    landing.put("in/1.csv", 1)
    landing.bucket.tell("s3")
    listed = FileOptions(path=landing.options().path)
    Bronze(landing.lake, "test", Stream("rows", listed)).land(landing.source(), new_run())
    landing.put("in/2.csv", 2)
    assert landing.land().account.read == 1
    Bronze(landing.lake, "test", Stream("rows", listed)).land(landing.source(), new_run())
    assert (landing.rows, landing.waiting) == ([1, 2], (0, 0))


def test_a_full_refresh_reads_everything_and_takes_no_message(landing: Landing) -> None:
    landing.begin()
    landing.put("in/1.csv", 1)
    landing.bronze().land(landing.source(), new_run(), full_refresh=True)
    assert landing.rows == [0, 0, 1], "what was there is read anew"
    assert landing.waiting == (2, 0)


def test_messages_are_held_for_as_long_as_the_lake_takes_and_given_back_by_a_run_that_fails(landing: Landing) -> None:
    landing.begin()
    landing.put("in/1.csv", 1)
    position = landing.bronze().position()
    batches: Any = landing.source().read(Stream("rows", landing.options()), position)
    next(batches)
    for _ in range(7):
        time.sleep(0.5)
        assert landing.waiting == (0, 2), "visible to others before it was committed"
    batches.close()
    assert landing.waiting == (2, 0)


def test_types_of_json_hold_between_rounds(landing: Landing) -> None:
    """What the first round has found, the second keeps; what does not fit it is told."""
    given: dict[str, Any] = {"path": "in/*.ndjson", "max_messages": 1}
    landing.bucket.put("in/0.ndjson", b'{"n": 1}\n')
    landing.land(**given)
    landing.bucket.tell("s3")
    landing.bucket.put("in/1.ndjson", b'{"n": 2, "m": "x"}\n')
    landing.bucket.put("in/2.ndjson", b'{"n": "no number"}\n{"n": 3}\n')
    account = landing.land(**given).account
    assert account.rejected == {"unreadable": 1}
    assert landing.rows == [1, 2, 3]


def test_a_sensor_sees_what_waits_and_a_plan_does_not_take_it(landing: Landing) -> None:
    landing.begin()
    stream = Stream("rows", landing.options())
    before = landing.source().latest(stream)
    assert landing.source().latest(stream) == before
    landing.put("in/1.csv", 1)
    assert landing.source().latest(stream) != before
    assert landing.source().estimate(stream, landing.bronze().position()) is None
    listed = landing.source().estimate(stream, None)
    assert listed is not None
    assert len(listed.items) == 2
    assert landing.waiting == (2, 0)


def test_a_queue_that_goes_away_fails_the_run_and_loses_nothing(landing: Landing) -> None:
    landing.begin()
    landing.put("in/1.csv", 1)
    path = landing.bucket.queue_url.split("/", 3)[3]
    with pytest.raises(UnavailableError, match="Could not connect"):
        landing.land(queue_url=f"http://127.0.0.1:{free_port()}/{path}")
    with wire_to(landing.bucket.sqs.port, stall_after=100) as wire, pytest.raises(UnavailableError):
        landing.land(queue_url=f"http://127.0.0.1:{wire.port}/{path}")
    deadline = time.monotonic() + 10
    while landing.waiting[1] and time.monotonic() < deadline:
        time.sleep(0.2)
    landing.land()
    assert (landing.rows, landing.waiting) == ([0, 1], (0, 0))


def test_what_is_wrong_is_said(landing: Landing) -> None:
    landing.begin()
    with pytest.raises(NotFoundError):
        landing.land(queue_url=landing.bucket.queue_url + "-no-such")
    unknown = {"options": {"endpoint": "http://127.0.0.1:1"}}
    with pytest.raises(ConfigurationError, match="which region"):
        landing.source(**unknown).latest(Stream("rows", landing.options()))
    written_down = {"options": {"region": "x", "aws_access_key_id": "AKIA"}}
    with pytest.raises(ConfigurationError, match="under `secrets`"):
        landing.source(**written_down).latest(Stream("rows", landing.options()))
    for capture in (Snapshot(), Incremental(cursor="n")):
        with pytest.raises(ConfigurationError, match="`capture`"):
            list(landing.source().read(Stream("rows", landing.options(), capture), None))
    for wrong in ({"path": "gs://b/*.csv"}, {"settle_seconds": 1}, {"ordered_names": True}):
        with pytest.raises(ValueError, match="notifications"):
            FileOptions(**{**landing.options().model_dump(), **wrong})


@pytest.mark.soak  # the same queue as that of the SQS source, which says so in every run
def test_refused_keys_are_said_to_be_refused_and_not_shown(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.servers.s3 import shared_s3

    monkeypatch.setenv("TEST_TOLD_SECRET", "hunter2-hunter2")
    refusing = shared_s3(open_requests=1).options["endpoint"]
    secret = {"env": "TEST_TOLD_SECRET"}
    source = landing.source(secrets={"access_key_id": secret, "secret_access_key": secret})
    path = landing.bucket.queue_url.split("/", 3)[3]
    with pytest.raises(CredentialsRejectedError) as caught:
        source.latest(Stream("rows", landing.options(queue_url=f"{refusing}/{path}")))
    assert "hunter2" not in f"{caught.value!r}{caught.value}{source!r}"


@pytest.mark.parametrize(
    ("host", "region"),
    [("sqs.eu-central-1.amazonaws.com", "eu-central-1"), ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1"),
     ("vpce-1-2.sqs.eu-west-1.vpce.amazonaws.com", "eu-west-1"), ("localhost:9324", "from-options")],
)  # fmt: skip
def test_the_region_is_that_of_the_queue(host: str, region: str) -> None:
    from etl_resources.files.storage import Storage

    queue = notifications.queue_of(f"https://{host}/123/q", Storage({"aws_region": "from-options"}))
    assert (queue.region, queue.endpoint) == (region, f"https://{host}")


@pytest.mark.parametrize(
    "body",
    ["", "[]", "null", '{"Type": "Notification", "TopicArn": "a", "Message": "hello"}', '{"Records": [1]}',
     '{"Records": [{}]}', '{"Records": [{"eventSource": "aws:ses"}]}', '{"source": "aws.s3", "detail-type": 1}x', "{}",
     '{"source": "aws.s3", "detail-type": "Object Created", "detail": {"bucket": {"name": 1}, "object": {"key": 2}}}',
     json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
                              "s3": {"bucket": {"name": "b"}, "object": {"key": "%ff"}}}]})],
)  # fmt: skip
def test_what_is_not_understood_is_not_taken_for_nothing(body: str) -> None:
    with pytest.raises(ValueError, match=r"not|an event of|without bucket|codec"):
        written(body)
