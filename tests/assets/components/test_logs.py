"""Streams that follow a change log: who comes in together, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from etl_assets.components import Pipeline
from etl_resources.exceptions import ConfigurationError


def stream(log: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    source = {"type": "postgres", "connection": "shop", "table": more.pop("table", "t")}
    return {"source": source, "capture": {"log": log or {}}, "key": ["id"], **more}


def defs(**streams: Any) -> dg.Definitions:
    return Pipeline(name="sales", streams=streams).definitions(Path())


def steps(definitions: dg.Definitions) -> dict[str, set[str]]:
    """Return step -> tables, of what can be materialized."""
    return {
        asset.node_def.name: {"/".join((key.path[0], key.path[-1])) for key in asset.keys}
        for asset in definitions.assets or ()
        if isinstance(asset, dg.AssetsDefinition) and asset.is_materializable
    }


def test_streams_of_one_connection_come_in_by_one_step_and_one_sensor() -> None:
    found = defs(a=stream(), b=stream(table="u"))
    assert steps(found) == {
        "capture__sales_shop": {"bronze/a", "bronze/b"},
        "silver__sales__a": {"silver/a"},
        "silver__sales__b": {"silver/b"},
    }
    assert [sensor.name for sensor in found.sensors or ()] == ["sales_shop_capture"]


def test_a_continuous_step_takes_silver_along() -> None:
    log = {"mode": "continuous"}
    found = steps(defs(a=stream(log), b=stream(log, table="u")))
    assert found == {"capture__sales_shop": {"bronze/a", "bronze/b", "silver/a", "silver/b"}}


def test_a_stream_beside_them_comes_in_as_ever() -> None:
    other = {"source": {"type": "postgres", "connection": "shop", "table": "v"}, "key": ["id"]}
    assert "bronze__sales__other" in steps(defs(a=stream(), other={**other, "capture": {"snapshot": {}}}))


def test_the_log_knows_the_key_as_the_source_calls_it() -> None:
    renamed = stream(
        key=["number"], steps=[{"rename": {"id": "code"}}, {"trim": ["code"]}, {"rename": {"code": "number"}}]
    )
    pipeline = Pipeline(name="sales", streams={"a": renamed})
    pipeline.definitions(Path())
    from etl_assets.components.log_assets import logs_of
    from etl_assets.components.stream_assets import StreamAssets

    assert pipeline.context is not None
    (log,) = logs_of(
        pipeline.context, [StreamAssets(pipeline.context, n, m) for n, m in pipeline.context.model.streams.items()]
    )
    assert [table.key for table in log.tables] == [("id",)]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (stream({"mod": "batch"}), "mod: unknown key - did you mean 'mode'?"),
        (stream({"mode": "always"}), "mode: Input should be 'batch' or 'continuous'"),
        (stream(order=["updated_at"]), "order: the change log knows which version is newest"),
        (
            stream(partitions={"daily": {"start": "2024-01-01", "column": "at"}}),
            "partitions: a change log has no parts",
        ),
        ({"source": {"type": "file", "path": "x.csv"}, "capture": {"log": {}}, "key": ["id"]}, "has no log capture"),
        (stream() | {"capture": {"log": {}, "snapshot": {}}}, "exactly one of"),
        (stream({"drop_beyond_cap": True}), "`drop_beyond_cap` needs `max_retained`"),
    ],
)
def test_what_a_log_cannot_do_is_said(broken: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        defs(a=broken)
    assert expected in str(error.value)


def test_streams_of_one_log_cannot_follow_it_in_different_ways() -> None:
    with pytest.raises(ConfigurationError, match="a and b follow the log of shop with different settings"):
        defs(a=stream(), b=stream({"mode": "continuous"}, table="u"))


def test_nothing_connects_while_definitions_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("psycopg.connect", refuse)
    defs(a=stream(), b=stream(table="u"))
