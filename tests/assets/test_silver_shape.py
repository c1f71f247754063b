"""A silver table that is refined again and again compiles its steps once, and anew when bronze has other columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl_assets import silver_query
from tests.assets.doubles import Table, new_run


def test_steps_are_compiled_once_for_the_same_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, compiled = Table(tmp_path, steps=[{"upper": ["v"]}]), []
    monkeypatch.setattr("etl_assets.silver.shape", lambda *given: compiled.append(1) or silver_query.shape(*given))
    silver = table.silver
    for number in range(3):
        table.source.give([{"id": number, "v": "a"}])
        table.land()
        silver.refine(new_run())
    assert len(compiled) == 1
    assert [row["v"] for row in table.rows()] == ["A", "A", "A"]


def test_a_column_that_comes_meanwhile_arrives(tmp_path: Path) -> None:
    table = Table(tmp_path, steps=[{"upper": ["v"]}])
    silver = table.silver
    for row in ({"id": 1, "v": "a"}, {"id": 2, "v": "b", "w": "new"}):
        table.source.give([row])
        table.land()
        silver.refine(new_run())
    assert table.rows() == [{"id": 1, "v": "A", "w": None}, {"id": 2, "v": "B", "w": "new"}]
