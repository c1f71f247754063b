"""Column lineage: which source columns each column of a query is computed from."""

from etl_assets.lineage.columns import column_lineage, row_influences
from etl_assets.lineage.metadata import column_schema, to_dagster
from etl_assets.lineage.relation import ColumnRef

__all__ = ["ColumnRef", "column_lineage", "column_schema", "row_influences", "to_dagster"]
