"""Lineage and columns as the metadata that Dagster draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from etl_assets.lineage.relation import Refs
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa


def to_dagster(lineage: Mapping[str, Refs], assets: Mapping[str, dg.AssetKey]) -> dg.TableColumnLineage:
    """Return lineage for the metadata key `dagster/column_lineage`.

    A column of unknown lineage is left out, since Dagster has no word for it. `assets` gives the asset of each table,
    which is named as in `ColumnRef`.

    Raises:
        ConfigurationError: the lineage names a table that `assets` does not.
    """
    named = {ref.table for refs in lineage.values() for ref in refs or ()}
    if missing := sorted(named - set(assets)):
        raise ConfigurationError(
            f"column lineage names tables that belong to no asset: {', '.join(missing)}",
            fix="give the asset key of every table in the schema that the lineage was traced with",
        )
    deps = {
        column: [dg.TableColumnDep(asset_key=assets[ref.table], column_name=ref.column) for ref in sorted(refs)]
        for column, refs in lineage.items()
        if refs is not None
    }
    return dg.TableColumnLineage(deps_by_column=deps)


def column_schema(schema: pa.Schema, descriptions: Mapping[str, str] | None = None) -> dg.TableSchema:
    """Return columns, types and descriptions for the metadata key `dagster/column_schema`.

    Raises:
        ConfigurationError: a description belongs to no column.
    """
    texts = descriptions or {}
    if strangers := sorted(set(texts) - set(schema.names)):
        raise ConfigurationError(
            f"descriptions of columns that the table does not have: {', '.join(strangers)}",
            fix=f"describe these columns only: {', '.join(schema.names)}",
        )
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name,
                type=str(field.type),
                description=texts.get(field.name),
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in schema
        ]
    )
