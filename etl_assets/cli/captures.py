"""The change logs of a pipeline, as the commands ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import EtlError

if TYPE_CHECKING:
    from etl_assets.capture import Capture
    from etl_assets.cli.location import Location
    from etl_assets.components.log_assets import LogAssets
    from etl_resources.change_log import LogState
    from etl_resources.source import Position


@dataclass(frozen=True)
class Looked:
    """A change log, how far its tables have come, and what the far end says."""

    log: LogAssets
    positions: Mapping[str, Position | None]
    """Stream -> position; None: it was never read."""
    state: LogState | None
    problem: str | None
    """Why the far end could not be asked."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        lag = None if self.state is None else self.state.lag
        return {
            "capture": self.log.name,
            "connection": self.log.connection,
            "mode": self.log.settings.mode,
            "state": None if self.state is None else self.state.state,
            "lag_bytes": None if lag is None else lag.bytes,
            "lag_seconds": None if lag is None else lag.seconds,
            "retained_bytes": None if lag is None else lag.retained,
            "notes": [] if self.state is None else list(self.state.notes),
            "problem": self.problem,
            "positions": dict(self.positions),
        }


def captures(location: Location, pipeline: str) -> Iterator[tuple[LogAssets, Capture]]:
    """Yield the logs of a pipeline, each with its capture; nothing has connected yet."""
    for log in location.logs(pipeline):
        yield log, log.capture(location.resource(log.connection), location.lake, location.engine)


def looked_at(location: Location, pipeline: str) -> list[Looked]:
    """Ask every log of a pipeline how it is."""
    found = []
    for log, capture in captures(location, pipeline):
        held = capture.positions()
        positions = {table.name: held.get(table.name) for table in log.tables}
        try:
            found.append(Looked(log, positions, capture.log.state(held), None))
        except EtlError as error:
            found.append(Looked(log, positions, None, str(error)))
    return found
