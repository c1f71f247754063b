"""Refining one silver table within a step, once or again and again, and what Dagster is told about it in the end."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.account import RowAccount
from etl_assets.components.table_metadata import silver_lineage, table_metadata, table_result
from etl_assets.run import Run

if TYPE_CHECKING:
    from etl_assets.components.stream_assets import StreamAssets
    from etl_resources.source import Window


class Refining:
    """The silver table of a stream, over one step."""

    def __init__(self, stream: "StreamAssets", context: dg.AssetExecutionContext) -> None:
        from etl_checks.lint import lint_contract

        if stream.contract is not None:
            lint_contract(stream.contract)
        self.silver = stream.silver(context.resources.lake, context.resources.engine)
        self.account, self.retried = RowAccount(), RowAccount()
        self.version: int | None = None
        self.warned: dict[str, int] = {}
        self.unlisted: tuple[str, ...] = ()

    def refine(self, run: Run, *, full_refresh: bool = False, window: "Window | None" = None) -> None:
        """Bring the table up to date with bronze."""
        refined = self.silver.refine(run, full_refresh=full_refresh, window=window)
        self.account = self.account + refined.account
        self.version = refined.delta_version if refined.delta_version is not None else self.version
        self.warned = {rule: self.warned.get(rule, 0) + rows for rule, rows in refined.watched.items()} or self.warned
        self.unlisted = refined.unlisted or self.unlisted

    def rows(self) -> int:
        """Return the rows of the table as it is."""
        handle = self.silver.table.open()
        return handle.rows() if handle is not None else 0

    def retry(self, run: Run) -> None:
        """Try the rows again that wait for the row that a foreign key of theirs refers to."""
        from etl_assets.silver_replay import retry_missing_references

        self.retried = retry_missing_references(self.silver, run)

    def result(self, spec: dg.AssetSpec) -> dg.MaterializeResult:
        """Return the figures of all that was done."""
        metadata: dict[str, Any] = table_metadata(self.silver.table, self.silver.table.open(), self.version)
        metadata |= silver_lineage(self.silver)
        metadata |= {f"warned/{rule}": rows for rule, rows in self.warned.items()}
        if self.retried.read:
            metadata["rows/found their reference"] = self.retried.read - self.retried.rejected_rows
        if self.unlisted:
            metadata["columns left in bronze"] = ", ".join(self.unlisted)
        return table_result(spec, self.account, metadata)
