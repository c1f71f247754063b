"""What Dagster shows of a table: rows, columns, lineage, account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.components.context import CONSERVED
from etl_assets.references import Reference

if TYPE_CHECKING:
    from etl_assets.account import RowAccount
    from etl_assets.silver import Silver
    from etl_checks.contract import Contract
    from etl_resources.delta.handle import Handle
    from etl_resources.lake import LakeTable


def contract_columns(contract: Contract | None) -> dict[str, Any]:
    """Return definition metadata that names the contract."""
    if contract is None:
        return {}
    return {"contract": f"{contract.id} {contract.version}", "contract/hash": contract.hash[:16]}


def table_metadata(table: LakeTable, handle: Handle | None, written: int | None) -> dict[str, Any]:
    """Return rows, columns, place and version of a table as it is now; `written` is the version that the run made."""
    from etl_assets.lineage import column_schema

    if handle is None:
        return {"dagster/row_count": 0, "dagster/uri": table.uri}
    schema = handle.schema()
    comments = {field.name: (field.metadata or {}).get(b"comment", b"").decode() for field in schema}
    return {
        "dagster/row_count": handle.rows(),
        "dagster/column_schema": column_schema(schema, {name: text for name, text in comments.items() if text}),
        "dagster/uri": table.uri,
        "dagster/table_name": table.name,
        "delta version": handle.version if written is None else written,
    }


def table_result(spec: dg.AssetSpec, account: RowAccount, metadata: Mapping[str, Any]) -> dg.MaterializeResult:
    """Return the result of a step: its figures and the check that they balance."""
    check = dg.AssetCheckResult(
        asset_key=spec.key,
        check_name=CONSERVED,
        passed=account.balanced,
        metadata={"equation": f"{account.read} = {account}", "difference": account.read - account.accounted},
    )
    return dg.MaterializeResult(asset_key=spec.key, metadata={**account.metadata(), **metadata}, check_results=[check])


def silver_lineage(silver: Silver) -> dict[str, Any]:
    """Return `dagster/column_lineage` of a silver table, out of the SQL that its steps compile to."""
    from etl_assets.lineage import column_lineage, to_dagster
    from etl_assets.silver_query import BRONZE

    bronze = silver.bronze.open()
    if bronze is None:
        return {}
    with silver.engine.session() as session:
        relation = session.lake_relation(bronze, column="_batch", above=2**62)
        judgement = silver.judgement(session, bronze, relation, silver.references())
        types = session.types(relation)
    refs = column_lineage(judgement.steps_sql, schema={BRONZE: types}, output=judgement.steps_columns)
    kept = {name: refs[name] for name in judgement.columns if name in refs}
    return {"dagster/column_lineage": to_dagster(kept, {BRONZE: dg.AssetKey(list(silver.bronze.key))})}


def query_lineage(sql: str, references: Sequence[Reference], types: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return `dagster/column_lineage` of a gold table; `types` gives column -> type per reference, as SQL names it."""
    from etl_assets.lineage import column_lineage, to_dagster

    refs = column_lineage(sql, schema=types)
    assets = {str(reference): dg.AssetKey(list(reference.key)) for reference in references}
    return {"dagster/column_lineage": to_dagster(refs, assets)}


def same_columns(key: dg.AssetKey, columns: Sequence[str]) -> dict[str, Any]:
    """Return `dagster/column_lineage` of a copy of the asset `key`: each column is the one of the same name."""
    deps = {name: [dg.TableColumnDep(asset_key=key, column_name=name)] for name in columns}
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps)}
