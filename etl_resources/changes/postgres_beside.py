"""What a look at the log means for a stream whose snapshot goes on beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from etl_resources.changes.postgres_position import Cursor, Progress
from etl_resources.changes.postgres_rows import Ranking, events, moved

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.changes.pgoutput import Decoded
    from etl_resources.changes.postgres_snapshot import Piece
    from etl_resources.changes.postgres_visibility import View

_MOST_MOVED = 10_000


class Beside:
    """The snapshot of one stream, during one look; `piece` is what was read of it before, if anything was."""

    def __init__(self, cursor: Cursor, key: tuple[str, ...], piece: Piece | None) -> None:
        self.cursor, self.key, self.piece = cursor, key, piece
        self.progress = cursor.snapshot or Progress()
        self._ranking = None if piece is None else Ranking(piece, key)
        self._xids: set[int] = set()
        self._moved: list[tuple[str, ...]] = []

    @property
    def began(self) -> int:
        """`_pos` from which on every key of the table has an event."""
        return self.cursor.lsn + 1 + self.cursor.shift if self.progress.began is None else self.progress.began

    def note(self, decoded: Decoded) -> None:
        """Take notice of events of the stream, whether they can be read or not: a row has its place among them all."""
        self._note(decoded.data)
        if decoded.apart is not None:
            self._note(decoded.apart)

    def _note(self, data: pa.RecordBatch) -> None:
        import pyarrow.compute as pc

        self._xids.update(int(xid) for xid in pc.unique(data["_xid"]).to_pylist())
        if self._ranking is not None:
            self._ranking.note(data)
        if self.progress.ended:
            return
        # With the last row everything has been read that there was; only what this piece saw moving may be missing.
        last = self.piece is not None and self.piece.after is None
        self._moved += moved(data, self.key, self.piece.view if last and self.piece else None)

    def rows(self) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch | None]]:
        """Yield the rows of the piece as events, and those that cannot be read."""
        if self._ranking is not None:
            yield from events(self._ranking)

    def advanced(self, after: View) -> Cursor:
        """Return the cursor with the progress that was made; `after` is a snapshot of the moment behind the look."""
        unseen = {xid for xid in self.cursor.unseen if not after.sees(xid)} | set(after.unseen(self._xids))
        return replace(self.cursor, unseen=tuple(sorted(unseen)), snapshot=self._progress())

    def _progress(self) -> Progress | None:
        progress, piece = self.progress, self.piece
        if piece is None:
            progress = replace(progress, moved=tuple(dict.fromkeys((*progress.moved, *self._moved))))
        else:
            if piece.after is None and not self._moved:
                return None
            ended = piece.after is None
            last = progress.after if ended else piece.after
            gone = tuple(dict.fromkeys(self._moved))
            progress = replace(progress, began=self.began, after=last, ended=ended, moved=gone)
        if len(progress.moved) <= _MOST_MOVED:
            return progress
        # So many keys are changed that reading all rows once more is less work than reading these.
        return replace(progress, after=None, ended=False, moved=())
