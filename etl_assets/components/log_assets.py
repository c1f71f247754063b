"""The assets of a change log: the bronze tables of all its streams, landed by one step; and silver, if continuously."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.circuits import guarded
from etl_assets.components.context import PipelineContext, conserved_spec, full_refresh, run_of
from etl_assets.components.stream_assets import StreamAssets
from etl_assets.components.table_metadata import same_columns, table_metadata, table_result
from etl_assets.pace import Pace
from etl_assets.pausing import paused
from etl_resources.change_log import Boundary, ChangeLog, Lag, LogState, LogTable
from etl_resources.exceptions import ConfigurationError
from etl_resources.source import LogCapture, Source

if TYPE_CHECKING:
    from etl_assets.capture import Capture
    from etl_assets.landing import Landed

HEALTHY = "log_is_healthy"
OBSERVED_SECONDS = 60.0
"""How often a continuous run tells Dagster how far behind it is."""


@dataclass(frozen=True)
class LogAssets:
    """Builds the definitions of the streams of one pipeline that follow the same log."""

    pipeline: PipelineContext
    streams: Sequence[StreamAssets]

    @property
    def name(self) -> str:
        """Name of the capture: of its step and, with `_capture`, of its sensor."""
        return f"{self.pipeline.name}_{self.connection}"

    @property
    def connection(self) -> str:
        """Name of the connection whose log it is."""
        return str(self.streams[0].options.connection)

    @property
    def settings(self) -> LogCapture:
        """How the log is followed."""
        capture = self.streams[0].capture
        assert isinstance(capture, LogCapture)  # noqa: S101 - that is what makes them streams of a log
        return capture

    @property
    def continuous(self) -> bool:
        """Whether a run goes on and takes silver along."""
        return self.settings.mode == "continuous"

    @cached_property
    def tables(self) -> list[LogTable]:
        """The streams, as the log sees them."""
        return [LogTable(stream.stream(), stream.log_key) for stream in self.streams]

    def log(self, source: Source, *, once: bool = False) -> ChangeLog:
        """Return the log, `once`: to be read to its end, whatever the mode is; nothing connects yet."""
        settings = self.settings.model_copy(update={"mode": "batch"}) if once else self.settings
        return source.change_log(self.pipeline.name, self.tables, settings)

    def capture(self, source: Source, lake: Any, engine: Any, *, once: bool = False) -> "Capture":
        """Return the capture; nothing is opened yet."""
        from etl_assets.bronze import Bronze
        from etl_assets.capture import Capture

        name = self.pipeline.name
        bronzes = {
            stream.name: Bronze(lake, name, stream.stream(), budget=self.pipeline.budget(stream.model.errors))
            for stream in self.streams
        }
        return Capture(bronzes, self.log(source, once=once), engine)

    def definition(self) -> dg.AssetsDefinition:
        """Return the step that follows the log."""
        bronze = {stream.name: stream.bronze_spec() for stream in self.streams}
        silver = {stream.name: stream.silver_asset_spec() for stream in self.streams} if self.continuous else {}
        specs = [*bronze.values(), *silver.values()]
        healthy = [_healthy_spec(spec) for spec in bronze.values()]

        @dg.multi_asset(
            name=f"capture__{self.name}",
            specs=specs,
            check_specs=[*map(conserved_spec, specs), *healthy],
            required_resource_keys={"lake", "engine", self.connection},
            pool=f"capture_{self.name}",
            can_subset=not self.continuous,
        )
        def follow(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
            following = _Step(self, context, bronze, silver)
            with guarded(context, self.connection, self.streams[0].external().key):
                landed = following.run()
            yield from following.results(landed)

        return follow


def logs_of(pipeline: PipelineContext, streams: Sequence[StreamAssets]) -> list[LogAssets]:
    """Return the change logs that streams follow, one per connection.

    Raises:
        ConfigurationError: two streams would follow the same log in different ways.
    """
    groups: dict[str | None, list[StreamAssets]] = {}
    for stream in streams:
        if isinstance(stream.capture, LogCapture):
            groups.setdefault(stream.options.connection, []).append(stream)
    for connection, group in groups.items():
        others = [stream.name for stream in group if stream.capture != group[0].capture]
        if others:
            raise ConfigurationError(
                f"{group[0].name} and {', '.join(others)} follow the log of {connection} with different settings",
                where=pipeline.where(),
                fix="streams of one connection share one log: give all of them the same settings",
            )
    return [LogAssets(pipeline, group) for group in groups.values()]


class _Step:
    """One execution of the step."""

    def __init__(
        self,
        assets: LogAssets,
        context: dg.AssetExecutionContext,
        bronze: Mapping[str, dg.AssetSpec],
        silver: Mapping[str, dg.AssetSpec],
    ) -> None:
        self.assets, self.context, self.bronze, self.silver = assets, context, bronze, silver
        self.resources = context.resources
        self.source: Source = getattr(self.resources, assets.connection)
        self.capture = assets.capture(self.source, self.resources.lake, self.resources.engine)
        chosen = context.selected_asset_keys
        self.observed = time.monotonic()
        self.compacted: dict[str, dict[str, int]] = {}
        self.streams = {stream.name: stream for stream in assets.streams if bronze[stream.name].key in chosen}

    def run(self) -> "Mapping[str, Landed]":
        """Follow the log to its end, or for as long as the settings say."""
        from etl_assets.components.refining import Refining

        rest = paused(self.context.instance, self.assets.name)
        if rest is not None:
            raise ConfigurationError(
                f"the capture {self.assets.name} is paused{f': {rest.reason}' if rest.reason else ''}",
                where=self.assets.pipeline.where(),
                fix=f"etl capture resume {self.assets.pipeline.name}",
            )
        self.refining = {name: Refining(self.streams[name], self.context) for name in self.silver}
        settings = self.assets.settings
        self.paces = {name: Pace(settings.merge_share, settings.merge_age) for name in self.silver}
        schemas = {name: schema_of(self.source, stream) for name, stream in self.streams.items()}
        run = run_of(self.context)
        for name in self.refining:
            self._refine(name)
        landed = self.capture.follow(
            run,
            schemas,
            resnapshot_lost=settings.on_lost == "resnapshot",
            fresh=full_refresh(self.context),
            after=self._tick,
        )
        for name, refining in self.refining.items():
            self._refine(name)
            refining.retry(run)
        if settings.compact_after_days is not None:
            self._compact(settings.compact_after_days)
        return landed

    def _compact(self, days: int) -> None:
        from etl_assets.compaction import compact

        for name, stream in self.streams.items():
            silver = stream.silver(self.resources.lake, self.resources.engine)
            done = compact(silver, run_of(self.context), days)
            if done.gone:
                self.compacted[name] = {"compaction/kept": done.kept, "compaction/gone": done.gone}

    def _refine(self, name: str) -> None:
        refining, began = self.refining[name], time.monotonic()
        first = refining.rows() == 0
        refining.refine(run_of(self.context))
        # A first load takes its time, and says nothing about how long a merge is going to.
        now = time.monotonic()
        self.paces[name].merged(now if first else began, now)

    def _tick(self, boundary: Boundary, busy: Mapping[str, int]) -> None:
        now = time.monotonic()
        for name, refining in self.refining.items():
            pace = self.paces[name]
            pace.add(busy.get(name, 0), now)
            if pace.due(refining.rows(), now):
                self._refine(name)
        if time.monotonic() - self.observed > OBSERVED_SECONDS:
            self.observed = time.monotonic()
            for name in self.streams:
                self.context.log_event(
                    dg.AssetObservation(asset_key=self.bronze[name].key, metadata=lag_figures(boundary.lag))
                )

    def results(self, landed: "Mapping[str, Landed]") -> Iterator[dg.MaterializeResult]:
        """Yield what became of every table."""
        state = self.capture.log.state(self.capture.positions())
        if state.state in {"warning", "lost"}:
            self.context.log.warning("; ".join(state.notes) or f"the log is {state.state}")
        for name, result in landed.items():
            spec, stream = self.bronze[name], self.streams[name]
            bronze = self.capture.bronzes[name]
            handle = bronze.table.open()
            metadata = table_metadata(bronze.table, handle, result.delta_version)
            own = [column for column in handle.schema().names if not column.startswith("_")] if handle else []
            metadata |= same_columns(stream.external().key, own) | lag_figures(state.lag)
            metadata |= self.compacted.get(name, {})
            done = table_result(spec, result.account, metadata)
            yield done._replace(check_results=[*(done.check_results or ()), _healthy(spec, state)])
        for name in self.silver:
            yield self.refining[name].result(self.silver[name])


def schema_of(source: Source, stream: StreamAssets) -> Any:
    """Return how to find out the columns of a stream's events."""

    def schema() -> Any:
        import pyarrow as pa

        from etl_resources.change_log import event_fields

        row = source.read_schema(stream.stream())
        return pa.schema([*row, *event_fields(row)])

    return schema


def lag_figures(lag: Lag) -> dict[str, float | int]:
    """Return how far behind the lake is, as numbers that plot."""
    figures = {"bytes": lag.bytes, "seconds": lag.seconds, "retained bytes": lag.retained}
    return {f"lag/{name}": value for name, value in figures.items() if value is not None}


def _healthy_spec(spec: dg.AssetSpec) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        name=HEALTHY,
        asset=spec.key,
        description="The source keeps what comes next, and is not about to stop doing so.",
    )


def _healthy(spec: dg.AssetSpec, state: LogState) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=spec.key,
        check_name=HEALTHY,
        passed=state.state in {"ok", "none"},
        severity=dg.AssetCheckSeverity.ERROR if state.state == "lost" else dg.AssetCheckSeverity.WARN,
        metadata={"state": state.state, **lag_figures(state.lag), "notes": "; ".join(state.notes) or "none"},
    )
