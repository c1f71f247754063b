"""Where the values of row events begin: found for the same row of all events at once.

A row's image is a bitmap of nulls and then the values, one behind the other, of lengths that only they know. Within an
event the images have to be walked through one by one, but the events know nothing of each other: image *k* of every
event is measured in one step, so that some thousand events take as many steps as the fullest has images.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from etl_resources.exceptions import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from etl_resources.changes.mysql_types import Physical

INSERT, UPDATE, DELETE = 0, 1, 2
PADDING = 64
"""Bytes behind the buffer: the longest value that can be looked for where a null ends it (a DECIMAL), and more."""


@dataclass(slots=True)
class Images:
    """Images of rows in the order of the log: `event[i]` is the event of image i, and `number[i]` its place in it."""

    event: NDArray[np.int64]
    number: NDArray[np.int64]
    columns: list[Physical]
    """Those that the images hold."""
    nulls: list[NDArray[np.bool_]]
    at: list[NDArray[np.int64]]
    """Where the value of a column begins: behind its length, if it has one."""
    length: list[NDArray[np.int64] | None]
    """Bytes of the value; None: as the column has them all."""

    def __len__(self) -> int:
        return len(self.event)


class Layout:
    """The columns that images of one kind hold, and how to find their values."""

    def __init__(self, columns: list[Physical], present: list[bool]) -> None:
        self.columns = [column for column, there in zip(columns, present, strict=True) if there]
        self.bitmap = (len(self.columns) + 7) // 8

    def measure(
        self, data: NDArray[np.uint8], at: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], list[NDArray[np.int64]]]:
        """Return where the images at `at` end, their bitmaps, and where each column with a length of its own begins."""
        import numpy as np

        bitmaps = data[at[:, None] + np.arange(self.bitmap)]
        some = np.bitwise_or.reduce(bitmaps, axis=0) if len(at) else np.zeros(self.bitmap, np.uint8)
        end = at + self.bitmap
        starts = []
        fixed = 0
        for n, column in enumerate(self.columns):
            has_nulls = some[n >> 3] >> (n & 7) & 1
            if has_nulls:
                there = 1 - (bitmaps[:, n >> 3] >> (n & 7) & 1).astype(np.int64)
            if column.width:
                if has_nulls:
                    end = end + there * column.width
                else:
                    fixed += column.width
                continue
            if fixed:
                end, fixed = end + fixed, 0
            starts.append(end)
            size = _number(data, end, column.prefix) + column.prefix
            end = end + (size * there if has_nulls else size)
        return end + fixed, bitmaps, starts

    def images(self, data: NDArray[np.uint8], at: NDArray[np.int64], found: Any) -> dict[str, Any]:
        """Return nulls, places and lengths of the values of the images at `at`, from what `measure` found of them."""
        import numpy as np

        bitmaps, variable = found
        nulls, places = [], []
        lengths: list[NDArray[np.int64] | None] = []
        end = at + self.bitmap
        ahead = iter(variable)
        for n, column in enumerate(self.columns):
            is_null = (bitmaps[:, n >> 3] >> (n & 7) & 1).astype(bool)
            nulls.append(is_null)
            if column.width:
                places.append(end)
                lengths.append(None)
                end = end + np.where(is_null, 0, column.width)
                continue
            begin = next(ahead)
            size = np.where(is_null, 0, _number(data, begin, column.prefix))
            places.append(begin + np.where(is_null, 0, column.prefix))
            lengths.append(size)
            end = begin + np.where(is_null, 0, column.prefix) + size
        return {"columns": self.columns, "nulls": nulls, "at": places, "length": lengths}


def _number(data: NDArray[np.uint8], at: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the numbers of 1 to 4 bytes at `at`, which may lie behind the end where the data are damaged."""
    import numpy as np

    at = np.minimum(at, len(data) - PADDING)
    if size == 1:
        return data[at].astype(np.int64)
    view = np.ndarray(len(data) - 3, "<u4", data.data, 0, (1,))
    return (view[at] & np.uint32(2 ** (8 * size) - 1)).astype(np.int64)


def find(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], layouts: list[Layout], where: str
) -> list[Images]:
    """Return the images of each layout: one, or (where they differ) those before and those after the change.

    `data` ends with `PADDING` bytes that belong to nothing.

    Raises:
        EngineError: the images do not end where their event does.
    """
    import numpy as np

    at, events, number = starts, np.arange(len(starts)), 0
    steps: list[tuple[Any, ...]] = []
    for layout in cycle(layouts):
        going = at < ends
        if not going.all():
            at, ends, events = at[going], ends[going], events[going]
        if not len(at):
            break
        end, bitmaps, variable = layout.measure(data, at)
        if (end > ends).any():
            raise EngineError(
                "rows of the binlog are not laid out as its description of the table says", where=where,
                fix="read the stream anew; report it with the version of the server and the CREATE TABLE",
            )  # fmt: skip
        steps.append((events, number, at, bitmaps, variable))
        at, number = end, number + 1
    return [_collect(data, layout, list(islice(steps, n, None, len(layouts)))) for n, layout in enumerate(layouts)]


def _collect(data: NDArray[np.uint8], layout: Layout, steps: list[tuple[Any, ...]]) -> Images:
    """Put the steps into one, in the order of the log."""
    import numpy as np

    if not steps:
        empty = np.empty(0, np.int64)
        steps = [
            (empty, 0, empty, np.empty((0, layout.bitmap), np.uint8), [empty for c in layout.columns if not c.width])
        ]
    event = np.concatenate([step[0] for step in steps])
    number = np.repeat([step[1] for step in steps], [len(step[0]) for step in steps])
    order = np.argsort(event, kind="stable")
    at = np.concatenate([step[2] for step in steps])[order]
    bitmaps = np.concatenate([step[3] for step in steps])[order]
    variable = [np.concatenate(column)[order] for column in zip(*(step[4] for step in steps), strict=True)]
    return Images(event[order], number[order], **layout.images(data, at, (bitmaps, variable)))
