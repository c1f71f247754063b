"""dlt resources as streams: their state is the position, and stands with the rows in one commit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_assets.bronze import Bronze
from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.lake import Lake
from etl_resources.source import Snapshot, Stream
from etl_resources.sources.dlt import DltOptions, DltSource
from etl_resources.sources.dlt_errors import translate
from tests.assets.doubles import new_run

THINGS = "tests.servers.dlt_things"
PAGE = (Path(__file__).parents[2] / "docs" / "sources" / "dlt.md").read_text("utf-8")


def stream(resource: str, capture: Any = None, **options: Any) -> Stream:
    return Stream("things", DltOptions(resource=f"{THINGS}:{resource}", **options), capture)


def ids(lake: Lake) -> list[int]:
    handle = lake.table("bronze", "test", "things").open()
    assert handle is not None
    return sorted(handle.delta.to_pyarrow_table(columns=["id"])["id"].to_pylist())


def test_state_without_a_cursor_is_kept_with_the_rows(tmp_path: Path) -> None:
    lake = Lake(uri=str(tmp_path))
    for run in range(3):
        account = Bronze(lake, "test", stream("counting")).land(DltSource(), new_run()).account
        assert (account.read, account.inserted) == (3, 3)
        assert ids(lake) == list(range(3 * (run + 1)))


def test_a_snapshot_starts_from_an_empty_state(tmp_path: Path) -> None:
    for _ in range(2):
        batches = list(DltSource().read(stream("counting", Snapshot()), {"state": '{"sources": {}}', "payload": {}}))
        assert [row["id"] for batch in batches for row in batch.data.to_pylist()] == [0, 1, 2]


def test_an_extraction_that_breaks_off_commits_nothing_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "things.jsonl"
    path.write_text("".join(json.dumps({"id": n}) + "\n" for n in range(10)))
    lake = Lake(uri=str(tmp_path / "lake"))
    broken = stream("shop", select="broken", arguments={"path": str(path), "break_after": 7})
    with pytest.raises(UnavailableError, match="went away"):
        Bronze(lake, "test", broken).land(DltSource(), new_run())
    whole = stream("shop", select="broken", arguments={"path": str(path)})
    Bronze(lake, "test", whole).land(DltSource(), new_run())
    assert ids(lake) == list(range(10))


def test_arrow_tables_arrive_as_they_are(tmp_path: Path) -> None:
    (batch,) = DltSource().read(stream("shop", select="tables", arguments={"path": "x"}), None)
    assert str(batch.data.schema.field("at").type) == "timestamp[us]"
    assert batch.rows_read == 2


def test_an_object_that_does_not_fit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "things.jsonl"
    path.write_text('{"id": 1, "n": 1}\n{"id": 2, "n": 2}\n')
    read = stream("lines", arguments={"path": str(path)}, columns={"n": "int64"})
    (first,) = DltSource().read(read, None)
    with path.open("a") as file:
        file.write('{"id": 3, "n": "three"}\n{"id": 4, "n": 4}\n')
    (second,) = DltSource().read(read, first.position)
    assert second.data["id"].to_pylist() == [4]
    assert second.unreadable is not None
    assert json.loads(second.unreadable["raw"][0].as_py()) == {"id": 3, "n": "three"}
    assert second.rows_read == 2


def test_a_refused_token_is_said_to_be_wrong_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKER_TOKEN", "t0p-secret")
    refused = stream("guarded", secrets={"token": {"env": "TRACKER_TOKEN"}})
    with pytest.raises(CredentialsRejectedError, match="401") as caught:
        list(DltSource().read(refused, None))
    assert "t0p-secret" not in f"{caught.value!r} {refused!r}"


def test_a_setting_that_dlt_misses_is_named() -> None:
    with pytest.raises(ConfigurationError, match="api_key"):
        list(DltSource().read(stream("needs_settings"), None))


def test_what_is_not_there_is_named() -> None:
    for resource, told in ((f"{THINGS}:nothing", "has no nothing"), ("no_such_module:x", "no module no_such_module")):
        with pytest.raises(NotFoundError, match=told):
            list(DltSource().read(Stream("t", DltOptions(resource=resource)), None))
    with pytest.raises(NotFoundError, match="`select` one of broken, tables"):
        list(DltSource().read(stream("shop", arguments={"path": "x"}), None))


def test_a_defect_of_a_resource_is_told_with_its_cause() -> None:
    error = RuntimeError("dlt failed")
    error.__cause__ = KeyError("price")
    told = translate(error, "tracker:issues")
    assert isinstance(told, EngineError)
    assert "KeyError: 'price'" in told.what


def test_the_example_of_the_page_is_read() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    options = DltOptions(**yaml.safe_load(block)["streams"]["issues"]["source"])
    assert options.secrets["token"].env == "TRACKER_TOKEN"


def test_the_table_of_options_is_the_model() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert rows == [name for name in DltOptions.model_fields if name not in {"type", "connection"}]
