"""What a user writes in `defs.yaml`, as strict models; see docs/pipelines.md for every key."""

from __future__ import annotations

from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from etl_resources.source import Diff, Incremental, Snapshot, Watermark
from etl_resources.target import Mode


class Strict(BaseModel):
    """A model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetModel(Strict):
    """How many rows of a table may be rejected in one run before it fails and publishes nothing."""

    max_rows: int | None = Field(default=None, ge=0, examples=[1000])
    max_share: float | None = Field(default=None, ge=0, le=1, description="Share of the rows read.", examples=[0.01])


class CaptureModel(Strict):
    """How changes of the source are found; exactly one of its keys."""

    snapshot: Snapshot | None = None
    incremental: Incremental | None = None
    log: dict[str, Any] | None = Field(default=None, description="Settings of the source's change log (docs/cdc.md).")
    diff: Diff | None = None
    watermark: Watermark | None = None

    @model_validator(mode="after")
    def _one(self) -> CaptureModel:
        if sum(way is not None for way in (self.found, self.log)) != 1 or len(self.model_fields_set) != 1:
            raise ValueError(
                "write exactly one of snapshot: {}, incremental: {cursor: ...}, log: {}, diff: {} and"
                " watermark: {cursor: ...}"
            )
        return self

    @property
    def found(self) -> Snapshot | Incremental | Diff | Watermark | None:
        """Whatever it is, if it is no log."""
        return self.snapshot or self.incremental or self.diff or self.watermark


class DailyModel(Strict):
    """One partition per day of an event-time column of the source."""

    start: date = Field(description="First day.")
    column: str = Field(description="Column with the time of the event, in the source and in silver.")


class PartitionsModel(Strict):
    """How the stream is partitioned; re-running a partition replaces it and nothing else."""

    daily: DailyModel


class StreamModel(Strict):
    """A stream of a source, its bronze and its silver table."""

    source: dict[str, Any] = Field(description="`type` and the options of that source (docs/sources.md).")
    capture: CaptureModel | None = None
    partitions: PartitionsModel | None = None
    key: list[str] = Field(min_length=1, description="Columns of silver that identify a row.")
    order: list[str] = Field(default=[], description="Columns that tell which version is newest; default: arrival.")
    steps: list[Any] = Field(default=[], description="Steps in order (docs/transforms.md).")
    contract: str | None = Field(default=None, description="ODCS file beside defs.yaml (docs/contracts.md).")
    errors: BudgetModel | None = None
    description: str | None = None


class GoldModel(Strict):
    """A table computed from other tables; exactly one of `sql` and `from`."""

    sql: str | None = Field(default=None, description="SQL file beside defs.yaml.")
    from_: str | None = Field(default=None, alias="from", description="Table that the steps begin with.")
    steps: list[Any] = []
    contract: str | None = None
    description: str | None = None

    @model_validator(mode="after")
    def _one(self) -> GoldModel:
        if (self.sql is None) == (self.from_ is None):
            raise ValueError("write exactly one of sql: FILE and from: TABLE")
        if self.sql is not None and self.steps:
            raise ValueError("steps need from: TABLE; a query in sql says everything itself")
        return self


class PublishModel(Strict):
    """A table that is loaded into a target."""

    table: str
    target: dict[str, Any] = Field(description="`type` and the options of that target (docs/targets.md).")
    mode: Mode = "replace"
    key: list[str] = []
    name: str | None = Field(default=None, description="Name of the publication; default: the table's.")
    errors: BudgetModel | None = None

    @model_validator(mode="after")
    def _keyed(self) -> PublishModel:
        if self.mode == "upsert" and not self.key:
            raise ValueError("mode: upsert needs key: [column, ...]")
        return self


class WatchModel(Strict):
    """A sensor that looks at the sources of the streams and starts a run where something is new."""

    seconds: int = Field(default=30, ge=1, description="Seconds between two looks.")


class PipelineModel(Strict):
    """A pipeline: streams into bronze and silver, gold tables over them, and where tables are published."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Part of every asset key, e.g. silver/<name>/<stream>.")
    description: str | None = None
    owners: list[str] = Field(default=[], description="E-mail addresses or team:name.", examples=[["team:sales-data"]])
    tags: dict[str, str] = {}
    schedule: str | None = Field(default=None, description="Cron expression or @hourly, @daily, ...")
    watch: WatchModel | None = Field(default=None, description="Start a run when a source has something new.")
    errors: BudgetModel = BudgetModel()
    streams: dict[str, StreamModel] = {}
    gold: dict[str, GoldModel] = {}
    publish: list[PublishModel] = []
