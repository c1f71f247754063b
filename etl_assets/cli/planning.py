"""What a run would do, table by table, found out without writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from etl_assets.cli.schema_changes import changes
from etl_resources.exceptions import EtlError

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.cli.project import Project
    from etl_assets.cli.running import Request
    from etl_assets.components.gold_assets import GoldAssets
    from etl_assets.components.publish_assets import PublishAssets
    from etl_assets.components.stream_assets import StreamAssets
    from etl_resources.lake import Handle
    from etl_resources.source import Stream


@dataclass
class Step:
    """What a run would do to one table; None is what cannot be told without doing it."""

    key: dg.AssetKey
    does: str
    """What would be read or built, in a few words."""
    rows: int | None = None
    """About how many rows would be read."""
    size: int | None = None
    """About how many bytes would be read from a source."""
    items: tuple[str, ...] = ()
    """New files and the like, by name."""
    changes: list[str] = field(default_factory=list)
    """What would change in the table itself: created, columns added."""
    problem: str | None = None
    """Why it would fail."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "table": "/".join(self.key.path),
            "does": self.does,
            "rows": self.rows,
            "bytes": self.size,
            "items": list(self.items),
            "changes": self.changes,
            "problem": self.problem,
        }


class Plan:
    """Plans a request, in the order of its tables: what one table gets, the next one reads."""

    def __init__(self, project: Project, request: Request) -> None:
        from etl_assets.components.gold_assets import GoldAssets
        from etl_assets.components.publish_assets import PublishAssets

        location, self.request = project.location, request
        context = location.context(request.pipeline)
        self.location = location
        self.refresh = request.tags.get("etl/full_refresh") == "true"
        self.streams: Mapping[str, StreamAssets] = {stream.name: stream for stream in location.streams(context.name)}
        self.gold: Mapping[str, GoldAssets] = {
            name: GoldAssets(context, name, model) for name, model in context.model.gold.items()
        }
        publications = [PublishAssets(context, model) for model in context.model.publish]
        self.publications: Mapping[str, PublishAssets] = {one.name: one for one in publications}
        self.landing: dict[str, int | None] = {}
        """Stream -> rows that bronze would get."""

    def steps(self) -> list[Step]:
        """Return a step per table; what would fail is a problem of its step."""
        return [self._step(key) for key in self.request.keys]

    def _step(self, key: dg.AssetKey) -> Step:
        layer, name = key.path[0], key.path[-1]
        makers = {"bronze": self._bronze, "silver": self._silver, "gold": self._gold, "publish": self._publish}
        step = Step(key, "run")
        try:
            if layer in makers:
                makers[layer](step, name)
        except EtlError as error:
            step.problem = str(error)
        return step

    def _log(self, step: Step, name: str) -> None:
        from etl_assets.cli.captures import looked_at

        found = next(found for found in looked_at(self.location, self.request.pipeline) if name in found.positions)
        if found.state is None:
            step.problem = found.problem
        elif found.positions[name] is None or self.refresh:
            step.does = "read the table, then follow its log"
        else:
            step.does, step.size = "follow the log", found.state.lag.bytes
        self.landing[name] = None

    def _bronze(self, step: Step, name: str) -> None:
        from etl_assets.bronze import Bronze
        from etl_resources.delta.evolution import landing_schema

        assets = self.streams[name]
        if assets.follows_log:
            self._log(step, name)
            return
        stream = self._stream(assets)
        connection = assets.options.connection
        source = self.location.resource(connection) if connection else assets.source()
        bronze = Bronze(self.location.lake, self.request.pipeline, stream)
        fresh = self.refresh or stream.window is not None
        since = None if fresh else bronze.position()
        found = source.estimate(stream, since)
        if found is None:
            step.does = _movement(source.latest(stream), since)
        else:
            step.rows, step.size, step.items = found.rows, found.size, found.items
            step.does = _reading(found.items, found.rows, since is not None)
        self.landing[name] = step.rows
        if step.rows != 0:
            step.changes = changes(self._present(step.key), landing_schema(source.read_schema(stream)))

    def _stream(self, assets: StreamAssets) -> Stream:
        from dataclasses import replace

        from etl_resources.source import Window

        stream, model = assets.stream(), assets.model.partitions
        if model is None or self.request.partition is None:
            return stream
        day = datetime.fromisoformat(self.request.partition).replace(tzinfo=UTC)
        return replace(stream, window=Window(model.daily.column, day, day + timedelta(days=1)))

    def _silver(self, step: Step, name: str) -> None:
        from etl_assets.bronze import REFRESH_MARK
        from etl_assets.silver_work import BRONZE_MARK

        assets, lake = self.streams[name], self.location.lake
        silver = assets.silver(lake, self.location.engine)
        handle = silver.table.open()
        done = 0 if handle is None or self.refresh else handle.committed(BRONZE_MARK)
        bronze = silver.bronze.open()
        if (
            bronze is not None
            and handle is not None
            and handle.committed(REFRESH_MARK) < bronze.committed(REFRESH_MARK)
        ):
            done = bronze.committed(REFRESH_MARK) - 1
        waiting = sum(int(row["inserted"]) for row in silver.ledger.rows(silver.bronze.name, done))
        coming = self.landing.get(name, 0)
        partitioned = assets.model.partitions is not None
        step.rows = coming if partitioned else None if coming is None else waiting + coming
        step.does = "replace the day" if partitioned else "build anew" if self.refresh else _refining(waiting, coming)
        if assets.contract is not None:
            step.changes = changes(self._present(step.key), assets.contract.arrow_schema(), what="contract")

    def _gold(self, step: Step, name: str) -> None:
        gold = self.gold[name]
        step.does = "build from " + ", ".join(str(reference) for reference in gold.references)
        opened = [self.location.lake.table(*reference.key).open() for reference in gold.references]
        if all(handle is not None for handle in opened):
            step.rows = sum(handle.rows() for handle in opened if handle is not None)
        contract = gold.contract
        present = self._handle(step.key)
        if contract is not None:
            step.changes = changes(self._present(step.key), contract.arrow_schema(), what="contract")
        elif present is None:
            step.changes = ["new table"]

    def _publish(self, step: Step, name: str) -> None:
        publication = self.publications[name]
        resource = publication.options.connection
        target = self.location.resource(f"{resource}_target") if resource else publication.target()
        handle = self.location.lake.table(*publication.reference.key).open()
        step.does = f"{publication.model.mode} into {resource or publication.options.type}"
        committed = target.committed_version(publication.options, f"publish/{self.request.pipeline}/{name}")
        if committed is None:
            step.changes = ["first load"]
        if handle is not None:
            step.rows = handle.rows()
            built_anew = publication.reference.key in {tuple(key.path) for key in self.request.keys}
            if committed == handle.version + 1 and not built_anew:
                step.rows, step.does = 0, f"nothing: {resource or publication.options.type} has this version"

    def _handle(self, key: dg.AssetKey) -> Handle | None:
        return self.location.lake.table(*key.path).open()

    def _present(self, key: dg.AssetKey) -> pa.Schema | None:
        handle = self._handle(key)
        return None if handle is None else handle.schema()


def _reading(items: tuple[str, ...], rows: int | None, again: bool) -> str:
    if items:
        return f"read {len(items)} new {'file' if len(items) == 1 else 'files'}"
    return "nothing new" if rows == 0 else "read what is new" if again else "read everything"


def _movement(latest: Any, since: Any) -> str:
    if since is None:
        return "read everything"
    if latest is None:
        return "read what is new; the source cannot tell how much"
    return "nothing new" if latest == since else "read what is new"


def _refining(waiting: int, coming: int | None) -> str:
    if waiting:
        return f"refine, {waiting:,} rows of them waiting in bronze"
    return "nothing new" if coming == 0 else "refine"
