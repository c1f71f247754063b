from __future__ import annotations

import dagster as dg
import pyarrow as pa
import pytest

from etl_assets.lineage import ColumnRef, column_lineage, column_schema, to_dagster
from etl_resources.exceptions import ConfigurationError

SALES, RATES = dg.AssetKey(["silver", "sales"]), dg.AssetKey(["silver", "rates"])


def test_lineage_becomes_what_dagster_draws() -> None:
    lineage = {
        "total": frozenset({ColumnRef("s", "price"), ColumnRef("s", "amount"), ColumnRef("r", "rate")}),
        "one": frozenset(),
        "guess": None,
    }

    drawn = to_dagster(lineage, {"s": SALES, "r": RATES})

    assert drawn == dg.TableColumnLineage(
        deps_by_column={
            "total": [
                dg.TableColumnDep(asset_key=RATES, column_name="rate"),
                dg.TableColumnDep(asset_key=SALES, column_name="amount"),
                dg.TableColumnDep(asset_key=SALES, column_name="price"),
            ],
            "one": [],
        }
    )


def test_a_table_without_an_asset_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigurationError, match="no asset: r, t"):
        to_dagster({"x": frozenset({ColumnRef("t", "a"), ColumnRef("r", "b"), ColumnRef("s", "c")})}, {"s": SALES})


def test_columns_carry_type_description_and_nullability() -> None:
    schema = pa.schema(
        [pa.field("id", pa.int64(), nullable=False), ("price", pa.decimal128(12, 2)), ("tags", pa.list_(pa.string()))]
    )

    assert column_schema(schema, {"price": "Per piece, in euros."}) == dg.TableSchema(
        columns=[
            dg.TableColumn(name="id", type="int64", constraints=dg.TableColumnConstraints(nullable=False)),
            dg.TableColumn(name="price", type="decimal128(12, 2)", description="Per piece, in euros."),
            dg.TableColumn(name="tags", type="list<item: string>"),
        ]
    )


def test_a_description_of_no_column_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigurationError, match="does not have: prise"):
        column_schema(pa.schema([("price", pa.int64())]), {"prise": "Per piece."})


def test_lineage_comes_back_from_a_materialization() -> None:
    """What Dagster stores for the asset is what was traced."""
    lineage = column_lineage(
        "SELECT amount * 2 AS twice FROM silver.sales", schema={"silver.sales": {"amount": "DOUBLE"}}
    )
    drawn = to_dagster(lineage, {"silver.sales": SALES})

    @dg.asset
    def doubled() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"dagster/column_lineage": drawn})

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([doubled], instance=instance)
        event = instance.get_latest_materialization_event(doubled.key)

    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["dagster/column_lineage"] == dg.MetadataValue.column_lineage(drawn)
