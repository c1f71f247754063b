"""A connection that keeps failing is left alone, by every process, and whoever looks is told."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import dagster as dg
import pytest

from etl_resources import circuit
from tests.servers.proxy import free_port

from .conftest import Shop

DEFS = """
type: etl_assets.components.Connections
attributes:
  connections:
    shop:
      type: postgres
      host: 127.0.0.1
      port: {port}
      database: shop
      user: etl
      sslmode: disable
      resilience: {{attempts: 1}}
"""
PIPELINE = """
type: etl_assets.components.Pipeline
attributes:
  name: sales
  streams:
    sales: {source: {type: postgres, connection: shop, table: sales}, capture: {snapshot: {}}, key: [id]}
    places: {source: {type: postgres, connection: shop, table: places}, capture: {snapshot: {}}, key: [id]}
"""


def test_a_far_end_that_is_gone_is_left_alone_and_status_and_events_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit, "FAILURES", 3)
    shop = Shop(tmp_path)
    shop.write("defs/connections/defs.yaml", DEFS.format(port=free_port()))
    shop.write("defs/sales/defs.yaml", PIPELINE)

    first = shop.etl("run", "sales")
    assert first.code == 1
    assert "refused" in first.out
    assert "circuit" not in first.out
    assert "No table was loaded" in first.out
    assert "accounted for" not in first.out
    told = shop.etl("status").out
    assert "connection shop: circuit closed, 2 failures in a row" in told

    second = shop.etl("run", "sales")
    assert second.code == 1
    assert "the circuit of connection shop is open: it failed 3 times in a row" in " ".join(second.out.split())

    (status,) = shop.etl("status", "sales", "--json").data
    assert status["circuits"]["shop"]["circuit"] == "open"
    with chdir(shop.root), dg.DagsterInstance.from_config(str(shop.root)) as instance:
        source = dg.AssetKey(["source", "shop", "sales", "places"])
        newest = instance.fetch_observations(source, limit=1).records[0].asset_observation
        assert newest is not None
        assert newest.metadata["circuit"].value == "open"
        assert "refused" in newest.metadata["last failure"].value
