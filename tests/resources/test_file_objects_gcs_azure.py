"""Files in Google Cloud Storage and Azure Blob Storage: what holds in S3 holds there, too."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest

from etl_assets.bronze import Bronze
from etl_resources.exceptions import ConfigurationError, CredentialsRejectedError, NotFoundError, UnavailableError
from etl_resources.files.storage import Storage
from etl_resources.lake import Lake
from etl_resources.source import Batch, Position, Stream
from etl_resources.sources.file import FileOptions, FileSource
from etl_resources.target import CommitToken, Counts, Load, Mode
from etl_resources.targets.file import FileTarget, FileTargetOptions
from tests.assets.doubles import new_run
from tests.resources.crashing import SCHEMA, rows
from tests.servers.azure import CONTAINER, Azure, shared_azure
from tests.servers.gcs import BUCKET, Gcs, key_pair, running_gcs, shared_gcs
from tests.servers.proxy import wire_to
from tests.soaking import some


@dataclass(frozen=True)
class Far:
    """A store, and where in it the tests put things."""

    server: Gcs | Azure
    root: str

    def uri(self, key: str) -> str:
        return f"{self.root}/objects/{key}"

    def source(self, **client: str) -> FileSource:
        return FileSource(**self._settings(**client))

    def target(self) -> FileTarget:
        return FileTarget(**self._settings())

    def storage(self) -> Storage:
        source = self.source()
        return Storage(source.options, source.secrets, source.client_options)

    def through(self, port: int) -> Far:
        """The same store, reached at another port."""
        return replace(self, server=type(self.server)(port))

    def put(self, key: str, content: bytes) -> None:
        store, path = self.storage().store(self.uri(key))
        obstore.put(store, path, content)

    def stream(self, pattern: str, **options: Any) -> Stream:
        return Stream("test", FileOptions(path=self.uri(pattern), **options))

    def read(self, pattern: str, since: Position | None = None, **options: Any) -> list[Batch]:
        return list(self.source().read(self.stream(pattern, **options), since))

    def names(self, prefix: str) -> list[str]:
        return [f.path.removeprefix(self.uri(prefix) + "/") for f in self.storage().find(self.uri(prefix) + "/**")]

    def write(
        self, prefix: str, version: int, mode: Mode, *, app: str = "gold/sales", count: int = 3, more: str = ""
    ) -> Counts:
        options = FileTargetOptions(path=self.uri(prefix), format="csv")
        load = Load(options, SCHEMA, mode, CommitToken(app, version, "run"))
        return self.target().write(load, rows(version * 100, count, more).to_batches(max_chunksize=10_000))

    def _settings(self, **client: str) -> dict[str, Any]:
        given = self.server
        return {
            "options": given.options, "secrets": given.secrets, "client_options": {**given.client_options, **client},
        }  # fmt: skip


@pytest.fixture(
    params=[
        "gs",
        "az",
    ]
)
def far(request: pytest.FixtureRequest) -> Far:
    return Far(shared_gcs(), f"gs://{BUCKET}") if request.param == "gs" else Far(shared_azure(), f"az://{CONTAINER}")


def values(batches: list[Batch]) -> list[str]:
    return [row["a"] for batch in batches for row in batch.data.to_pylist()]


def test_an_object_is_loaded_once_and_again_when_it_has_changed(far: Far) -> None:
    """Azure quotes the entity tag of a blob in one answer and not in the other: that is no change."""
    far.put("once/x/1.csv", b"a\n1\n")
    far.put("once/y/2.csv", b"a\n2\n")
    first = far.read("once/**/*.csv")
    assert sorted(values(first)) == ["1", "2"]
    assert far.read("once/**/*.csv", first[-1].position) == []
    far.put("once/x/1.csv", b"a\n3\n")
    assert values(far.read("once/**/*.csv", first[-1].position)) == ["3"]


def test_a_position_with_a_quoted_tag_still_holds(far: Far) -> None:
    """Positions of earlier versions have the tag as S3 sends it, in quotes."""
    far.put("quoted/1.csv", b"a\n1\n")
    (batch,) = far.read("quoted/*.csv")
    position: Any = batch.position
    (entry,) = position["files"].values()
    entry[2] = f'"{entry[2]}"'
    assert far.read("quoted/*.csv", position) == []


def test_with_ordered_names_only_the_last_one_is_known_and_the_listing_begins_behind_it(far: Far) -> None:
    for n in (1, 2, 5):
        far.put(f"ordered/{n}.csv", f"a\n{n}\n".encode())
    first = far.read("ordered/*.csv", ordered_names=True)
    position: Any = first[-1].position
    assert list(position["files"]) == ["5.csv"]
    assert far.read("ordered/*.csv", position, ordered_names=True) == []
    far.put("ordered/6.csv", b"a\n6\n")
    far.put("ordered/3.csv", b"a\n3\n")
    later = far.read("ordered/*.csv", position, ordered_names=True)
    assert values(later) == ["6"], "3.csv breaks the promise, and is not seen"
    with pytest.raises(ConfigurationError, match="by the last name alone"):
        far.read("ordered/*.csv", position)
    before = far.read("ordered/*.csv")
    assert far.read("ordered/*.csv", before[-1].position, ordered_names=True) == [], "may be switched on later"


def test_a_listing_that_begins_behind_a_name_does_not_send_what_is_before() -> None:
    far = Far(shared_gcs(), f"gs://{BUCKET}")
    for n in range(40):
        far.put(f"long/{n:04}.csv", b"a\n1\n")
    sent = []
    with wire_to(shared_gcs().port) as wire:
        storage = far.through(wire.port).storage()
        for after in (None, far.uri("long/0037.csv")):
            before = wire.received
            assert len(storage.find(far.uri("long/*.csv"), after=after)) == (40 if after is None else 2)
            sent.append(wire.received - before)
    assert sent[1] < sent[0] / 10


def test_a_file_that_has_to_settle_holds_back_those_behind_it(tmp_path: Path) -> None:
    """Else the cursor would be put behind a file that was never read."""
    now = time.time()
    for name, age in (("1", 100), ("2", 0), ("3", 100)):
        (tmp_path / f"{name}.csv").write_text(f"a\n{name}\n")
        os.utime(tmp_path / f"{name}.csv", (now - age, now - age))
    options = FileOptions(path=f"{tmp_path}/*.csv", settle_seconds=50, ordered_names=True)
    batches = list(FileSource().read(Stream("test", options), None))
    assert values(batches) == ["1"]
    os.utime(tmp_path / "2.csv", (now - 100, now - 100))
    assert values(list(FileSource().read(Stream("test", options), batches[-1].position))) == ["2", "3"]


def test_a_crash_between_files_of_ordered_names_loses_none(tmp_path: Path) -> None:
    """Files are read in the order in which names are compared, also where a folder and a name differ in one sign."""
    for name in ("a/1", "a-b/1", "a.b/1"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.csv").write_text(f"a\n{name}\n")
    stream = Stream("test", FileOptions(path=f"{tmp_path}/**/*.csv", ordered_names=True))
    batches = list(FileSource().read(stream, None, batch_rows=1))
    for n, batch in enumerate(batches):
        if batch.position is not None:
            rest = list(FileSource().read(stream, batch.position))
            assert sorted(values(batches[: n + 1]) + values(rest)) == ["a-b/1", "a.b/1", "a/1"]


def test_objects_from_before_a_time_are_left_out(far: Far) -> None:
    far.put("since/1.csv", b"a\n1\n")
    hour = timedelta(hours=1)
    assert values(far.read("since/*.csv", modified_since=datetime.now(UTC) - hour)) == ["1"]
    assert far.read("since/*.csv", modified_since=datetime.now(UTC) + hour) == []
    with pytest.raises(ValueError, match="modified_since"):
        FileOptions(path="x.csv", modified_since="2024-01-01T00:00:00")  # type: ignore[arg-type]


def test_parquet_is_read_by_range(far: Far) -> None:
    options = FileTargetOptions(path=far.uri("ranges"))
    load = Load(options, SCHEMA, "append", CommitToken("gold/sales", 1, "run"))
    far.target().write(load, rows(1, 3).to_batches())
    assert sum(b.data.num_rows for b in far.read("ranges/*.parquet")) == 3


def test_a_replaced_prefix_is_one_object_that_carries_its_record(far: Far) -> None:
    """The name of the record is one that Azure takes as well."""
    far.write("replaced", 1, "replace", count=5)
    assert far.write("replaced", 2, "replace", count=2).deleted == 5
    assert far.write("replaced", 2, "replace", count=2).already_committed
    assert far.names("replaced") == ["data.csv"]
    with pytest.raises(ConfigurationError, match="loads of the other mode"):
        far.write("replaced", 3, "append")


def test_an_appended_prefix_has_one_object_per_load(far: Far) -> None:
    for version in (1, 2):
        far.write("appended", version, "append")
    assert len(far.names("appended")) == 2
    options = FileTargetOptions(path=far.uri("appended"), format="csv")
    assert far.target().committed_version(options, "gold/sales") == 2


def test_an_upload_that_breaks_off_leaves_what_was_there(far: Far) -> None:
    long: dict[str, Any] = {"count": 60_000, "more": "x" * 150}
    far.write("broken", 1, "replace")
    with wire_to(far.server.port, cut_after_sent=6 << 20) as wire, pytest.raises(UnavailableError):
        far.through(wire.port).write("broken", 2, "replace", **long)
    assert far.names("broken") == ["data.csv"]
    assert sum(b.data.num_rows for b in far.read("broken/data.csv")) == 3
    assert far.write("broken", 2, "replace", **long).inserted == 60_000


def test_a_prefix_of_someone_else_is_not_overwritten(far: Far) -> None:
    far.put("foreign/data.csv", b"precious")
    with pytest.raises(NotFoundError, match="has no record of its load"):
        far.write("foreign", 1, "replace")


LONG = b"a\n" + b"".join(b"%07d\n" % n for n in range(400_000))


FAULTS: dict[str, dict[str, Any]] = {
    "cut": {"cut_after": 1 << 20},
    "stalled": {"stall_after": 1 << 20},
    "refused": {"refuse": True},
}
STORES = [("gs", "cut"), ("az", "stalled"), ("gs", "stalled"), ("az", "cut"), ("gs", "refused"), ("az", "refused")]


@pytest.mark.parametrize(
    ("far", "fault"),
    some([pytest.param(far, FAULTS[fault], id=f"{far}-{fault}") for far, fault in STORES], 2),
    indirect=["far"],
)
def test_a_store_that_goes_away_loses_and_doubles_nothing(far: Far, fault: dict[str, Any], tmp_path: Path) -> None:
    """Of two runs with the fault between them bronze holds every record once."""
    far.put("away/1.csv", b"a\nfirst\n")
    far.put("away/2.csv", LONG)
    stream, lake = far.stream("away/*.csv"), Lake(uri=str(tmp_path))
    with wire_to(far.server.port, **fault) as wire:
        broken = far.through(wire.port).source(timeout="1s")
        with pytest.raises(UnavailableError, match=r"did not answer|could not be accessed") as caught:
            Bronze(lake, "test", stream, commit_rows=1).land(broken, new_run())
    assert "az://" in str(caught.value) or "gs://" in str(caught.value)
    Bronze(lake, "test", stream, commit_rows=1).land(far.source(), new_run())
    handle = lake.table("bronze", "test", "test").open()
    assert handle is not None
    found = handle.delta.to_pyarrow_table(columns=["a"]).column("a").to_pylist()
    assert sorted(found) == sorted(["first", *LONG.decode().splitlines()[1:]])


def test_a_host_that_does_not_exist_is_said_to_be_away(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    source = far.source(timeout="2s")
    if isinstance(far.server, Azure):
        source = source.model_copy(update={"options": {**far.server.options, "endpoint": "http://no-such.invalid"}})
    else:
        (secret,) = source.secrets.values()
        monkeypatch.setenv(secret.env, os.environ[secret.env].replace("127.0.0.1", "no-such.invalid"))
    with pytest.raises(UnavailableError, match=r"no-such\.invalid"):
        list(source.read(far.stream("x/*.csv"), None))


def test_what_is_not_there_is_named(far: Far) -> None:
    with pytest.raises(NotFoundError, match="no_such"):
        far.read("x/no_such.csv")


def test_a_wrong_key_is_said_to_be_wrong_and_not_shown(far: Far) -> None:
    if isinstance(far.server, Azure):
        source = far.source()
        os.environ["TEST_AZURE_KEY"] = "d3Jvbmc="
        _refused(source, far, "d3Jvbmc=")
        return
    (right, public), (wrong, _) = key_pair(), key_pair()
    with running_gcs(public_key=public) as server:
        Far(replace(server, private_key=right), far.root).put("x/1.csv", b"a\n1\n")
        _refused(Far(replace(server, private_key=wrong), far.root).source(), far, wrong.splitlines()[2])


def _refused(source: FileSource, far: Far, secret: str) -> None:
    for pattern in ("x/1.csv", "x/*.csv"):
        with pytest.raises(CredentialsRejectedError, match="check the connection's secrets") as caught:
            list(source.read(far.stream(pattern), None))
        assert secret not in f"{caught.value} {caught.value!r} {caught.value.__cause__} {source!r}"
