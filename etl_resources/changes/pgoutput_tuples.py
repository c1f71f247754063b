"""Rows of one relation in lock-step: column k of every row is found in one step, whatever lies before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etl_resources.changes.pgoutput_wire import NULL, TEXT, UNCHANGED
from etl_resources.exceptions import EngineError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from etl_resources.changes.pgoutput_wire import Places, Wire


@dataclass(slots=True)
class Values:
    """Where the values of one column are; `unchanged`: the log says only that it did not change (TOAST)."""

    starts: Places
    ends: Places
    given: NDArray[np.bool_]
    unchanged: NDArray[np.bool_] | None

    def texts(self, wire: Wire) -> pa.Array:
        """Return the values as strings, null where there is none."""
        return wire.texts(self.starts, self.ends, self.given)


@dataclass(slots=True)
class Tuples:
    """Some tuples of one relation, by column, and where each of them ends."""

    columns: list[Values]
    after: Places


def walk(wire: Wire, at: Places, width: int) -> Tuples:
    """Return the tuples that begin at the places `at`, each of `width` columns.

    Raises:
        EngineError: that is not what is there.
    """
    try:
        if (wire.int16[at] != width).any():
            raise misread(f"a row does not have the {width} columns of its relation")
        at, columns = at + 2, []
        for _ in range(width):
            columns.append(_values(wire, at))
            at = columns[-1].ends
    except IndexError as error:
        raise misread("a row goes on beyond its message") from error
    return Tuples(columns, at)


def _values(wire: Wire, at: Places) -> Values:
    import numpy as np

    kind = wire.octets[at]
    given = kind == TEXT
    unchanged: NDArray[np.bool_] | None = None
    if given.all():
        starts = at + 5
        lengths = wire.int32[at + 1]
    else:
        unchanged = kind == UNCHANGED
        if not (given | unchanged | (kind == NULL)).all():
            raise misread("a value is neither null, nor unchanged, nor text")
        unchanged = unchanged if unchanged.any() else None
        starts = at + np.where(given, 5, 1)
        lengths = np.where(given, wire.int32[np.where(given, at + 1, 0)], 0)
    return Values(starts, starts + lengths, given, unchanged)


def misread(what: str) -> EngineError:
    """Return the error for messages that are not what pgoutput's first protocol version sends."""
    return EngineError(f"the change log was not understood: {what}", fix="report it, with the version of the server")
