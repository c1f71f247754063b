"""How complete a gold table is: which tables it was made of, through all layers, and what they hold back."""

from __future__ import annotations

from collections.abc import Iterable

from etl_assets.ledger import Ledger
from etl_resources.lake import Lake


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
