"""Compaction by the pipeline's own policy, and by the command, over PostgreSQL's log."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from etl_assets import compaction
from tests.assets.test_capture_postgres import Case, drop_slots


class Tomorrow(datetime):
    """A clock that is a day ahead: what was landed today belongs to a closed day."""

    @classmethod
    def now(cls, tz: Any = None) -> Tomorrow:
        return super().now(tz) + timedelta(days=1)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A pipeline that has run once."""
    made = Case(tmp_path_factory.mktemp("case"))
    made.run()
    yield made
    drop_slots(made.client)


def test_a_table_without_a_policy_is_compacted_only_by_number(case: Case) -> None:
    assert case.shop.etl("capture", "compact", case.name).code == 2
    assert case.shop.etl("capture", "compact", case.name, "nothing", "--after-days", "0").code == 2
    assert case.shop.etl("capture", "compact", case.name, "--after-days", "0").code == 0


def test_a_run_compacts_what_is_closed_and_the_command_does_it_too(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.define("{compact_after_days: 0}")
    case.client.execute("UPDATE orders SET amount = -1; UPDATE customers SET name = 'Eve' WHERE id = 1")
    case.run()
    assert len(case.lake("bronze", "orders", "id")) == 100
    monkeypatch.setattr(compaction, "datetime", Tomorrow)
    case.client.execute("DELETE FROM orders WHERE id > 40")
    case.run()
    # Silver has not read the deletes yet: they stay, and the newest change of every key before them.
    assert len(case.lake("bronze", "orders", "id")) == 60
    case.agree()
    (orders, customers) = case.shop.etl("capture", "compact", case.name, "--json").data
    assert (orders["kept"], orders["gone"], customers["gone"]) == (40, 20, 0)
    shown = case.shop.etl("capture", "compact", case.name, "orders")
    assert "no further day with changes is closed" in " ".join(shown.out.split())
