"""What the assets of one pipeline share while they are built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.components.models import BudgetModel, PipelineModel
from etl_assets.errors import Budget
from etl_assets.progress import notify
from etl_assets.run import Run

if TYPE_CHECKING:
    from etl_checks.contract import Contract


@dataclass(frozen=True)
class PipelineContext:
    """A checked pipeline and the folder that its files are in."""

    model: PipelineModel
    folder: Path

    @property
    def name(self) -> str:
        """Name of the pipeline."""
        return self.model.name

    def where(self, *path: str) -> str:
        """Return a place in the pipeline, for messages."""
        return f"pipeline {self.name}" + "".join(f", {part}" for part in path)

    def contract(self, file: str | None) -> Contract | None:
        """Load a contract that lies beside `defs.yaml`."""
        from etl_checks.contract import load_contract

        return load_contract(self.folder / file) if file is not None else None

    def budget(self, own: BudgetModel | None) -> Budget:
        """Return the budget of a table: its own, or the pipeline's."""
        model = own or self.model.errors
        return Budget(model.max_rows, model.max_share)

    def spec(self, layer: str, table: str, **more: Any) -> dg.AssetSpec:
        """Return the spec of one of the pipeline's tables, with what all of them share."""
        tags = {**self.model.tags, "etl/pipeline": self.name, "etl/layer": layer}
        return dg.AssetSpec(
            key=[layer, self.name, table],
            group_name=self.name,
            owners=list(more.pop("owners", ())) or self.model.owners,
            tags=tags,
            **more,
        )


CONSERVED = "rows_are_conserved"


def conserved_spec(spec: dg.AssetSpec) -> dg.AssetCheckSpec:
    """Return the blocking check that every table carries."""
    return dg.AssetCheckSpec(
        name=CONSERVED,
        asset=spec.key,
        blocking=True,
        description="read = inserted + updated + deleted + unchanged + superseded + filtered + rejected",
    )


def run_of(context: dg.AssetExecutionContext) -> Run:
    """Return what a step knows about its run."""
    return Run(context.run_id, notify)


def full_refresh(context: dg.AssetExecutionContext) -> bool:
    """Tell whether the run was started with the tag `etl/full_refresh: "true"`."""
    return context.run_tags.get("etl/full_refresh") == "true"
