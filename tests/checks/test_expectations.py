"""Great Expectations on pandas as an oracle: the same counts over dirty data whose truth is known.

Where the two do not mean the same, and what this test does about it:
- a duplicate: Great Expectations counts every row that shares its key, we count the surplus; compared with our `rows`;
- NaN: to pandas it is a missing value and so never out of range, to us it is out of range; no NaN in this data,
  `truth.yaml` has the case;
- a line end at the end of a text matches `$` in Python, not in RE2; not in this data, `truth.yaml` has the case;
- foreign keys, expressions and freshness have no expectation and are listed as not exported.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl_checks.contract import load_contract
from etl_checks.expectations import expectation_suite
from etl_checks.fused import evaluate
from tests.checks.engine import NOW, connected

ORDERS = load_contract(Path(__file__).parent / "contracts" / "orders.odcs.yaml")
ROWS = 2000
TRUTH = {
    "required.order_id": 3,
    "unique.order_id": 7,
    "format.email": 11,
    "email_present": 19,
    "required.status": 5,
    "allowed.status": 13,
    "unique.code": 4,
    "length.code": 6,
    "pattern.code": 6,
    "range.amount": 9,
    "range.weight": 8,
    "range.ordered_at": 2,
    "enough_rows": 0,
    "once_a_moment": 10,
}
"""Bad rows that are put in; of duplicates, the surplus."""


def dirty() -> pa.Table:
    rows: list[dict[str, Any]] = [
        {
            "order_id": n,
            "customer_id": n,
            "email": f"user{n}@example.org",
            "status": ("open", "paid", "returned")[n % 3],
            "code": f"AB{n}",
            "amount": Decimal(n) / 4,
            "weight": 0.5 + n % 79,
            "ordered_at": NOW - timedelta(minutes=n),
            "shipped_at": None,
            "lines": None,
        }
        for n in range(ROWS)
    ]
    place = iter(range(100, ROWS))

    def put(times: int, column: str, value: Any) -> None:
        for _ in range(times):
            rows[next(place)][column] = value

    put(3, "order_id", None)
    put(7, "order_id", 1)
    put(11, "email", "no address")
    put(19, "email", None)
    put(5, "status", None)
    put(13, "status", "lost")
    put(4, "code", "AB1")
    for n in range(6):
        put(1, "code", str(n))  # too short, and not of the pattern
    rows[next(place)]["code"] = None
    put(9, "amount", Decimal(100000))
    put(8, "weight", 80.5)
    put(2, "ordered_at", datetime(2019, 12, 31, 23, 59, tzinfo=UTC))
    for n in range(10):
        twin = rows[next(place)]
        twin["customer_id"], twin["ordered_at"] = rows[n]["customer_id"], rows[n]["ordered_at"]
    return pa.Table.from_pylist(rows, schema=ORDERS.arrow_schema())


@pytest.mark.slow
def test_great_expectations_finds_the_same_bad_rows() -> None:
    table = dirty()
    with connected() as connection:
        connection.register("orders", table)
        connection.register("customers", table.select(["customer_id"]))
        references = {"customers": "customers"}
        ours = {r.rule.id: r for r in evaluate(connection, "orders", ORDERS.rules, references=references, now=NOW)}
    assert {name: ours[name].failed for name in TRUTH} == TRUTH

    suite = expectation_suite(ORDERS)
    not_exported = ["foreign_key.customer_id", "shipped_after_ordered", "freshness.ordered_at"]
    assert suite.meta["not_exported"] == not_exported
    theirs = validated(suite, table)
    assert set(theirs) == set(ours) - set(not_exported) == set(TRUTH)
    for name, (unexpected, success) in theirs.items():
        failed = ours[name].failed if ours[name].rows is None else ours[name].rows
        assert (name, unexpected, success) == (name, failed, ours[name].passed)


def validated(suite: Any, table: pa.Table) -> dict[str, tuple[int, bool]]:
    """Return rule -> unexpected rows, success; an exception inside of Great Expectations is raised here."""
    import great_expectations as gx
    import pandas as pd

    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
    # Arrow types: as float64 with NaN an order number with a null would lose digits.
    frame = table.drop_columns(["lines"]).to_pandas(types_mapper=pd.ArrowDtype)
    frame["amount"] = frame["amount"].astype(object)
    for column in ("ordered_at", "shipped_at"):
        frame[column] = frame[column].dt.tz_convert(None).astype("datetime64[us]").dt.tz_localize("UTC")
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("p").add_dataframe_asset("orders")
    batch = source.add_batch_definition_whole_dataframe("b")
    definition = gx.ValidationDefinition(name="orders", data=batch, suite=context.suites.add(suite))
    done = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": frame}, result_format={"result_format": "COMPLETE"}
    )
    found = {}
    for result in done.results:
        failures = [
            v for v in (result.exception_info or {}).values() if isinstance(v, dict) and v.get("raised_exception")
        ]
        assert not failures, failures
        rule = result.expectation_config.meta["rule"]
        found[rule] = (int(result.result.get("unexpected_count", 0)), bool(result.success))
    return found
