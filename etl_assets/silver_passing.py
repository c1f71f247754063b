"""How judged rows get their fates counted: as they stream past on their way into the files, or held in a table.

Rows that meet none of the table can only come in, so they stream: each is judged once, counted, and staged in files
that nobody sees before the commit. Of what is rejected only its place and its masks stay in memory. Which keys come
more than once is found first, from their columns alone.

Rows that may meet others are judged into the temporary table `judged` first: their fates take several looks at them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etl_assets.silver_query import hit
from etl_resources.engines.duckdb import quote
from etl_resources.read_ahead import read_ahead

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_assets.silver_commit import Refinement
    from etl_resources.delta.staging import Staging

AHEAD = 4
"""Batches that the engine may be ahead of the writer."""
REJECTED = "rejected"
UNKNOWN = ""
"""What stands for a fate that is none, so that the account does not balance."""


@dataclass
class Passed:
    """What became of the judged rows."""

    fates: Counter[str] = field(default_factory=Counter)
    """Fate -> rows."""
    hits: list[int] = field(default_factory=list)
    """Rows on which each watched rule hit."""
    rejected: str = "fated"
    """SQL relation that has the rejected rows with `_batch`, `_row`, `__fate` and the masks; others may be in it."""
    staged: Staging | None = None
    """The rows of the table, if they have been written already."""


@contextmanager
def passing(refinement: Refinement) -> Generator[Passed, None, None]:
    """Decide about the rows of `judged`; files that have been staged are deleted if the block raises."""
    if not refinement.streams:
        yield held(refinement)
        return
    silver, schema = refinement.silver, refinement.schema
    with silver.table.stage(refinement.handle, schema, personal=silver.spec.personal) as staged:
        yield _streamed(refinement, schema, staged)


def held(refinement: Refinement) -> Passed:
    """Count the fates of rows that are held in a table."""
    session, watched = refinement.session, range(len(refinement.judgement.watched))
    passed = Passed(Counter(dict(session.execute("SELECT coalesce(__fate, ''), count(*) FROM fated GROUP BY 1"))))
    if watched:
        counts = ", ".join(f"count(*) FILTER (WHERE {hit('j', 'w', index)})" for index in watched)
        passed.hits = list(session.execute(f"SELECT {counts} FROM judged j")[0])  # noqa: S608
    return passed


def _streamed(refinement: Refinement, schema: pa.Schema, staged: Staging) -> Passed:
    import pyarrow as pa

    counting = Counting(refinement, schema)
    # The engine works on the next batches while the last ones are compressed.
    for batch in read_ahead(counting.kept(), AHEAD):
        staged.write(batch)
    staged.finish()
    refinement.session.connection.register(REJECTED, pa.Table.from_batches(counting.rejected, counting.narrow))
    return Passed(counting.fates, counting.hits, REJECTED, staged)


class Counting:
    """Counts the rows of `fated` by fate as they pass, and lets those through that the table will have."""

    def __init__(self, refinement: Refinement, schema: pa.Schema) -> None:
        import pyarrow as pa

        judgement, self.session, self.schema = refinement.judgement, refinement.session, schema
        self.masks = [f"__v{word}" for word in range(judgement.words)]
        self.watched = range(len(judgement.watched))
        self.fates: Counter[str] = Counter()
        self.hits = [0 for _ in self.watched]
        self.rejected: list[pa.RecordBatch] = []
        places = [pa.field(name, pa.int64()) for name in ("_batch", "_row")]
        masks = [pa.field(name, pa.int64()) for name in self.masks]
        self.narrow = pa.schema([*places, pa.field("__fate", pa.dictionary(pa.int32(), pa.string())), *masks])

    @property
    def sql(self) -> str:
        """The rows with their fate, which is NULL where they come into the table, and with their masks."""
        hits = [f"{hit('j', 'w', index)} AS __hit_{index}" for index in self.watched]
        own = ", ".join([*(f"j.{quote(name)}" for name in (*self.schema.names, *self.masks)), *hits])
        fate = f"CASE WHEN j.__action IS NULL THEN coalesce(j.__fate, '{UNKNOWN}') END"
        return f"SELECT {own}, {fate} AS __fate FROM fated j"  # noqa: S608

    def kept(self) -> Generator[pa.RecordBatch, None, None]:
        """Yield the rows that come in."""
        from etl_resources.delta.evolution import conform

        for batch in self.session.stream(self.sql):
            mine = self._count(batch)
            yield conform(mine.select(self.schema.names), self.schema, where="silver")

    def _count(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Count a batch; returns what comes in of it."""
        import pyarrow.compute as pc

        for index in self.watched:
            self.hits[index] += batch.column(f"__hit_{index}").true_count
        fates = batch.column("__fate")
        self.fates["inserted"] += fates.null_count
        if fates.null_count == len(fates):
            return batch
        for entry in fates.drop_null().value_counts():
            self.fates[entry["values"].as_py()] += entry["counts"].as_py()
        rejected = batch.filter(pc.starts_with(fates, "rejected:"))
        if rejected.num_rows:
            self.rejected.append(rejected.select(self.narrow.names).cast(self.narrow))
        return batch.filter(fates.is_null())
