"""A source whose content a test decides, batch by batch, and the shortest way to a silver table over it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import PrivateAttr

from etl_assets.bronze import Bronze
from etl_assets.errors import Budget
from etl_assets.run import Run
from etl_assets.silver import Silver, SilverSpec
from etl_assets.transforms import parse_steps
from etl_checks.contract import Contract
from etl_resources.engines.duckdb import DuckDB
from etl_resources.lake import Lake
from etl_resources.source import Batch, Capabilities, Position, Snapshot, Source, Stream, StreamOptions

Row = dict[str, Any]
_runs = itertools.count(1)


class ListSource(Source):
    """Gives batches of rows in order; its position is the number of batches it has given."""

    options_type: ClassVar[type[StreamOptions]] = StreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(resumes=True)
    _batches: list[pa.RecordBatch] = PrivateAttr(default_factory=list)
    _lose: set[int] = PrivateAttr(default_factory=set)
    _break_at: int | None = PrivateAttr(default=None)

    def give(self, *batches: Sequence[Row], schema: pa.Schema | None = None) -> ListSource:
        """Add batches to what the source has."""
        self._batches += [pa.RecordBatch.from_pylist(list(rows), schema=schema) for rows in batches]
        return self

    def lose(self, number: int) -> ListSource:
        """Drop batch `number` on the way, though the source has counted it: the fault that the account must find."""
        self._lose.add(number)
        return self

    def break_at(self, number: int | None) -> ListSource:
        """Fail when batch `number` is read."""
        self._break_at = number
        return self

    def read_schema(self, stream: Stream) -> pa.Schema:
        return self._batches[0].schema

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 0) -> Iterator[Batch]:
        start = int((since or {"given": 0})["given"])
        whole = isinstance(stream.capture, Snapshot)
        rows = 0
        for number in range(0 if whole else start, len(self._batches)):
            if number == self._break_at:
                raise ConnectionResetError("the source went away")
            rows += self._batches[number].num_rows
            if number not in self._lose:
                yield Batch(self._batches[number], rows, {"given": number + 1})


@dataclass
class Table:
    """One stream with its bronze and silver table in a lake of its own."""

    folder: Path
    key: Sequence[str] = ("id",)
    steps: Sequence[Any] = ()
    order: Sequence[str] = ()
    contract: Contract | None = None
    budget: Budget = field(default_factory=Budget)
    snapshot: bool = False
    name: str = "things"
    references: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lake = Lake(uri=str(self.folder / "lake"))
        self.engine = DuckDB(memory_limit="500MB", threads=1)
        self.source = ListSource()

    @property
    def stream(self) -> Stream:
        return Stream(self.name, StreamOptions(type="list"), Snapshot() if self.snapshot else None)

    @property
    def bronze(self) -> Bronze:
        return Bronze(self.lake, "test", self.stream)

    @property
    def silver(self) -> Silver:
        steps = parse_steps(list(self.steps), layer="silver", where="test")
        spec = SilverSpec(
            "test",
            self.name,
            self.key,
            steps,
            self.order,
            self.contract,
            self.budget,
            self.snapshot,
            references=self.references,
        )
        return Silver(self.lake, self.engine, spec)

    def land(self, **options: Any) -> Any:
        return self.bronze.land(self.source, new_run(), **options)

    def refine(self, **options: Any) -> Any:
        return self.silver.refine(new_run(), **options)

    def load(self, *batches: Sequence[Row], schema: pa.Schema | None = None) -> Any:
        """Give batches to the source, land and refine them in one run each."""
        self.source.give(*batches, schema=schema)
        self.land()
        return self.refine()

    def rows(self, layer: str = "silver", *, provenance: bool = False) -> list[Row]:
        handle = self.lake.table(layer, "test", self.name).open()
        if handle is None:
            return []
        rows = handle.delta.to_pyarrow_table().to_pylist()
        if not provenance:
            rows = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
        return sorted(rows, key=lambda row: repr(sorted(row.items())))

    def errors(self, status: str | None = "open") -> list[Row]:
        from etl_assets.errors import ErrorTable

        with self.engine.session() as session:
            relation = ErrorTable(self.lake).current(session, status=status)
            return [] if relation is None else session.table(f"SELECT * FROM {relation} ORDER BY error_id").to_pylist()


def new_run() -> Run:
    """Return a run that is no other."""
    return Run(f"run-{next(_runs)}")
