"""Arrow's memory pool: jemalloc's from the first table that is written, unless the user has chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from etl_resources.delta.memory import CHOICE, use_frugal_pool
from etl_resources.lake import Lake


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pool that a process begins with, and afterwards the one that it had."""
    before = pa.default_memory_pool()
    monkeypatch.delenv(CHOICE, raising=False)
    use_frugal_pool.cache_clear()
    pa.set_memory_pool(pa.mimalloc_memory_pool())
    yield
    pa.set_memory_pool(before)
    use_frugal_pool.cache_clear()


def used_after_staging(folder: Path) -> str:
    Lake(uri=str(folder)).table("bronze", "t").stage(None, pa.schema([("id", pa.int64())])).discard()
    return str(pa.default_memory_pool().backend_name)


def test_a_table_that_is_written_takes_the_frugal_pool(tmp_path: Path) -> None:
    assert used_after_staging(tmp_path) == "jemalloc"


def test_who_has_chosen_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE, "mimalloc")
    assert used_after_staging(tmp_path) == "mimalloc"


def test_a_build_of_arrow_without_it_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise NotImplementedError

    monkeypatch.setattr(pa, "jemalloc_memory_pool", none)
    assert used_after_staging(tmp_path) == "mimalloc"
