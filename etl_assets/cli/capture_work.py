"""What `etl capture` does with the tables of a log: compaction, and comparison with the source."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from etl_assets.cli.usage import WrongUsage, unknown
from etl_assets.run import Run

if TYPE_CHECKING:
    from etl_assets.cli.project import Project
    from etl_assets.components.log_assets import LogAssets
    from etl_assets.components.stream_assets import StreamAssets


def chosen(project: Project, pipeline: str, names: Collection[str] | None) -> Iterator[tuple[LogAssets, StreamAssets]]:
    """Yield the streams of a pipeline that follow a log, those of some names if any are given.

    Raises:
        WrongUsage: there is no such stream.
    """
    found = [(log, stream) for log in project.location.logs(pipeline) for stream in log.streams]
    known = [stream.name for _, stream in found]
    for name in names or ():
        if name not in known:
            raise unknown("stream that follows a log", name, known)
    yield from ((log, stream) for log, stream in found if not names or stream.name in names)


def compacted(
    project: Project, pipeline: str, names: Collection[str] | None, after_days: int | None
) -> list[dict[str, Any]]:
    """Compact the bronze tables of some streams; returns what became of each.

    Raises:
        WrongUsage: nobody has said after how many days.
    """
    from etl_assets.compaction import compact

    location, done, run = project.location, [], Run(str(uuid.uuid4()))
    # It disturbs no run that follows the log meanwhile: whoever is later gives way.
    for log, stream in chosen(project, pipeline, names):
        days = after_days if after_days is not None else log.settings.compact_after_days
        if days is None:
            raise WrongUsage(
                f"{stream.name} is never compacted", fix="--after-days N, or compact_after_days: N in its log"
            )
        outcome = compact(stream.silver(location.lake, location.engine), run, days, worth=0)
        done.append({"stream": stream.name, **asdict(outcome)})
    return done


def print_compactions(done: list[dict[str, Any]]) -> None:
    """Print what became of each table."""
    from etl_assets.cli.output import stdout, table

    rows = [[one["stream"], one["kept"], one["gone"], one["reason"] or None] for one in done]
    stdout().print(table(["stream", "events kept", "gone", "why not"], rows, fold=["why not"]))


def reconciled(project: Project, pipeline: str, names: Collection[str] | None, limit: int) -> list[dict[str, Any]]:
    """Compare some streams with their source; returns what was found of each."""
    from etl_assets.cli.one_at_a_time import only_run
    from etl_assets.components.reconcile_checks import compared

    location, run, found = project.location, Run(str(uuid.uuid4())), []
    wanted = list(chosen(project, pipeline, names))
    with only_run(project, pipeline, run.run_id):
        for log, stream in wanted:
            source = location.resource(log.connection)
            one = compared(log, stream, source, location.lake, location.engine, run, limit=limit)
            found.append({"stream": stream.name, **asdict(one)})
    return found


def print_reconciled(pipeline: str, found: list[dict[str, Any]]) -> None:
    """Print the comparison of each stream, and the keys that differ."""
    from etl_assets.cli.output import plural, stdout, table

    console = stdout()
    columns = ["stream", "rows", "segments", "differ", "keys that differ"]
    figures = ("stream", "rows", "segments", "differing_segments", "differing")
    console.print(table(columns, [[one[name] for name in figures] for one in found]))
    for one in found:
        if one["differences"]:
            rows = [[", ".join(map(str, each["key"])), each["what"]] for each in one["differences"]]
            console.print(table(["key", "what"], rows, title=one["stream"], fold=["what"]))
            if one["differing"] > len(rows):
                console.print(f"The first {len(rows)} of {plural(one['differing'], 'difference')}.")
        for name, why in one["left_out"].items():
            console.print(f"{one['stream']}.{name} was not compared: {why}", markup=False)
    if any(one["differing"] for one in found):
        console.print(f"To repair: etl capture resnapshot {pipeline}, then a run. Silver alone: docs/cdc.md says how.")
