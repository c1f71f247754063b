"""What `etl capture` does to the tables of a log: compaction."""

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
