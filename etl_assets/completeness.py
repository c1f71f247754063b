"""How complete a table is: what it was made of, through all layers, and what is held back on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from etl_assets.ledger import Ledger
from etl_resources.lake import Lake

if TYPE_CHECKING:
    from etl_assets.silver import Silver
    from etl_checks.rules import RuleResult


def upstream(lake: Lake, tables: Iterable[str]) -> set[str]:
    """Return `tables` and everything they were made of, as their commits recorded it.

    Rows that wait in the errors of any of them are missing downstream. A silver table is made of the bronze table of
    its own name; a gold table of the inputs in the record of its newest commit.
    """
    found: set[str] = set()
    waiting = list(tables)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        layer, _, rest = name.partition("/")
        if layer == "silver":
            waiting.append(f"bronze/{rest}")
        elif layer == "gold":
            waiting += _inputs(lake, name)
    return found


def _inputs(lake: Lake, name: str) -> list[str]:
    handle = lake.table(*name.split("/")).open()
    if handle is None:
        return []
    # In the Delta log while the commit is young, in the ledger for good.
    record = handle.record(name) or Ledger(lake).last_record(name) or {}
    return list(record.get("inputs", {}))


def contract_results(silver: Silver) -> list[RuleResult]:
    """Evaluate the contract of a silver table; `rejected` of each result is the number of rows that wait as errors.

    A rule that rejects has no bad row left in the table: without that number it would always look perfect.
    """
    from etl_assets.errors import ErrorTable

    results = silver.contract_results()
    with silver.engine.session() as session:
        relation = ErrorTable(silver.lake).current(session, asset=silver.app_id)
        counted = session.execute(f"SELECT rule, count(*) FROM {relation} GROUP BY 1") if relation else []  # noqa: S608
    waiting = dict(counted)
    return [replace(result, rejected=waiting.get(result.rule.id, 0)) for result in results]
