"""A small pipeline from a source to a target, run as a whole, in this process or in one that is killed.

The source has customers: good ones, bad ones, test ones, duplicates, deletions and records that cannot be parsed. The
target is an SQLite database that refuses some rows, so that the load, its token and its account are one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from etl_assets.account import RowAccount
from etl_assets.bronze import Bronze
from etl_assets.errors import ErrorTable
from etl_assets.gold import Gold, GoldSpec
from etl_assets.publish import Publisher, PublishSpec
from etl_assets.references import references_of
from etl_assets.run import Run
from etl_assets.silver import Silver, SilverSpec
from etl_assets.silver_replay import replay
from etl_assets.transforms import parse_steps
from etl_resources.engines.duckdb import DuckDB
from etl_resources.lake import Lake
from etl_resources.source import Batch, Capabilities, Position, Source, Stream, StreamOptions, unreadable_schema
from etl_resources.target import Counts, Load, Target, TargetOptions, refused_schema

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string()), ("age", pa.string()), ("_op", pa.string())])
STRICT = [{"filter": {"rule": "not_a_test", "where": "name <> 'test'"}}, {"cast": {"age": "int64"}}]
LENIENT = [*STRICT[:1], {"cast": {"columns": {"age": "int64"}, "on_error": "null"}}]
SQL = "SELECT name, count(*) AS people, CAST(sum(age) AS BIGINT) AS years FROM silver.customers GROUP BY name"


def customers(batch: int) -> list[dict[str, Any]]:
    """Return batch 1, 2, …: what is new, what changed, what is bad."""
    first = batch * 10
    rows: list[dict[str, Any]] = [{"id": first + n, "name": f"n{(first + n) % 4}", "age": str(n)} for n in range(5)]
    rows += [{"id": first, "name": "again", "age": "7"}, {"id": first + 5, "name": "test", "age": "1"}]
    rows += [{"id": None, "name": "keyless", "age": "1"}, {"id": first + 6, "name": "n1", "age": "old"}]
    if batch > 1:
        rows += [{"id": first - 10, "name": "changed", "age": "9"}, {"id": first - 9, "_op": "delete"}]
        rows += [{"id": first - 8, "name": "test", "age": "3"}]
    return [{"name": None, "age": None, "_op": "update", **row} for row in rows]


class Customers(Source):
    """Gives the batches up to `batches`, from the position on."""

    options_type: ClassVar[type[StreamOptions]] = StreamOptions
    capabilities: ClassVar[Capabilities] = Capabilities(resumes=True)
    batches: int

    def read_schema(self, stream: Stream) -> pa.Schema:
        return SCHEMA

    def read(self, stream: Stream, since: Position | None, *, batch_rows: int = 0) -> Iterator[Batch]:
        read = 0
        for number in range(int((since or {"batch": 0})["batch"]) + 1, self.batches + 1):
            data = pa.RecordBatch.from_pylist(customers(number), schema=SCHEMA)
            broken = {"reason": "not a record", "raw": b"\x00%d" % number, "origin": "feed", "line": number}
            read += data.num_rows + 1
            unreadable = pa.RecordBatch.from_pylist([broken], schema=unreadable_schema())
            yield Batch(data, read, {"batch": number}, unreadable)


class SqliteTarget(Target):
    """Replaces a table of (name, people, years); refuses the names n1 to n3, and hands them over two at a time."""

    options_type: ClassVar[type[TargetOptions]] = TargetOptions
    modes: ClassVar[frozenset[str]] = frozenset({"replace"})
    path: str

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> Counts:
        with sqlite3.connect(self.path) as base:
            base.execute("CREATE TABLE IF NOT EXISTS _etl_commits (app_id, version, account)")
            base.execute("CREATE TABLE IF NOT EXISTS totals (name, people, years)")
            base.commit()
            base.execute("BEGIN IMMEDIATE")
            known = base.execute(
                "SELECT version, account FROM _etl_commits WHERE app_id = ? ORDER BY version DESC", [load.token.app_id]
            ).fetchone()
            if known is not None and known[0] >= load.token.version:
                counts = Counts(**json.loads(known[1])) if known[0] == load.token.version else Counts()
                return replace(counts, already_committed=True)
            counts = self._replace(base, load, [row for batch in batches for row in batch.to_pylist()])
            token = (load.token.app_id, load.token.version, json.dumps(asdict(counts)))
            base.execute("INSERT INTO _etl_commits VALUES (?, ?, ?)", token)
        base.close()
        return counts

    def _replace(self, base: sqlite3.Connection, load: Load, rows: list[dict[str, Any]]) -> Counts:
        bad = sorted((row for row in rows if row["name"] in ("n1", "n2", "n3")), key=lambda row: row["name"])
        good = [tuple(row.values()) for row in rows if row not in bad]
        refused = [{"rule": "check.name", "reason": "no such name", "record": json.dumps(row)} for row in bad]
        for start in range(0, len(refused), 2):
            assert load.on_refused is not None
            load.on_refused(pa.Table.from_pylist(refused[start : start + 2], schema=refused_schema()))
        deleted = base.execute("DELETE FROM totals").rowcount
        base.executemany("INSERT INTO totals VALUES (?, ?, ?)", good)
        rejected = {"check.name": len(bad)} if bad else {}
        return Counts(read=len(rows), inserted=len(good), deleted=deleted, rejected=rejected)

    def committed_version(self, options: TargetOptions, app_id: str) -> int | None:
        raise NotImplementedError


class Shop:
    """The pipeline over a lake in a folder."""

    def __init__(self, folder: str, *, lenient: bool = False) -> None:
        self.folder, self.lake = Path(folder), Lake(uri=str(Path(folder) / "lake"))
        self.engine = DuckDB(memory_limit="300MB", threads=1)
        steps = parse_steps(LENIENT if lenient else STRICT, layer="silver", where="shop")
        self.silver = Silver(self.lake, self.engine, SilverSpec("shop", "customers", ["id"], steps))

    @property
    def target(self) -> SqliteTarget:
        return SqliteTarget(path=str(self.folder / "target.db"))

    def land(self, run: Run, batches: int) -> RowAccount:
        stream = Stream("customers", StreamOptions(type="customers"))
        return Bronze(self.lake, "shop", stream, commit_rows=1).land(Customers(batches=batches), run).account

    def build(self, run: Run) -> None:
        references = references_of(SQL, "shop", where="test")
        Gold(self.lake, self.engine, GoldSpec("shop", "totals", lambda _: SQL, references)).build(run)

    def publish(self, run: Run) -> RowAccount:
        options = TargetOptions(type="sqlite")
        spec = PublishSpec("shop", "totals", ("gold", "shop", "totals"), options, "replace")
        return Publisher(self.lake, self.engine, spec).publish(self.target, run).account

    def run(
        self, name: str, batches: int, *, replays: bool = False, start: str = "bronze", end: str = "publish"
    ) -> None:
        """Run every stage from `start` to `end`; the source has so many batches now."""
        run = Run(name)
        stages = {
            "bronze": lambda: self.land(run, batches),
            "silver": lambda: self.silver.refine(run),
            "replay": lambda: replay(self.silver, run) if replays else None,
            "gold": lambda: self.build(run),
            "publish": lambda: self.publish(run),
        }
        for stage in STAGES[STAGES.index(start) : STAGES.index(end) + 1]:
            stages[stage]()

    def state(self) -> dict[str, Any]:
        """Return all that must not depend on kills: tables, open errors, what was published, and the accounts."""
        return {
            **{"/".join(key): self.rows(*key) for key in TABLES},
            "errors": self.errors(),
            "published": self.published(),
            "accounts": self.accounts(),
        }

    def rows(self, *key: str) -> list[str]:
        handle = self.lake.table(*key).open()
        if handle is None:
            return []
        rows = handle.delta.to_pyarrow_table().to_pylist()
        return sorted(repr({name: row[name] for name in sorted(row) if name != "_read_at"}) for row in rows)

    def table(self) -> list[str]:
        """Return the silver table without provenance, which depends on which runs saw the rows together."""
        handle = self.lake.table("silver", "shop", "customers").open()
        assert handle is not None
        return sorted(repr((row["id"], row["name"], row["age"])) for row in handle.delta.to_pyarrow_table().to_pylist())

    def errors(self, status: str = "open", layers: Sequence[str] = ("bronze", "silver", "publish")) -> list[str]:
        with self.engine.session() as session:
            relation = ErrorTable(self.lake).current(session, status=status)
            if relation is None:
                return []
            sql = f"SELECT error_id, asset, rule, rules, reason, raw, line FROM {relation} ORDER BY error_id"
            return [repr(row) for row in session.execute(sql) if row[1].startswith(tuple(layers))]

    def published(self, *, tokens: bool = True) -> list[Any]:
        with sqlite3.connect(self.folder / "target.db") as base:
            rows = [*base.execute("SELECT * FROM totals ORDER BY name")]
            rows += base.execute("SELECT * FROM _etl_commits ORDER BY 1, 2") if tokens else []
        base.close()
        return rows

    def accounts(self) -> dict[str, list[Any]]:
        """Return the accounts of each table, oldest first, without what differs between any two runs."""
        handle = self.lake.table("ops", "accounts").open()
        assert handle is not None
        found: dict[str, list[Any]] = {}
        for row in handle.delta.to_pyarrow_table().sort_by("version").to_pylist():
            figures = {name: value for name, value in row.items() if name not in LEFT_OUT}
            found.setdefault(row["asset"], []).append(figures)
        return found


STAGES = ("bronze", "silver", "replay", "gold", "publish")
LEFT_OUT = ("run_id", "record", "committed_at", "delta_version")
TABLES = (("bronze", "shop", "customers"), ("silver", "shop", "customers"), ("gold", "shop", "totals"))


def run_shop(
    folder: str, name: str, batches: int, lenient: bool = False, replays: bool = False, start: str = "bronze"
) -> None:
    """Run the pipeline once, from a stage on, in another process."""
    Shop(folder, lenient=lenient).run(name, batches, replays=replays, start=start)


def rebuild(folder: str) -> None:
    """Build the silver table anew, in another process."""
    Shop(folder).silver.refine(Run("rebuild"), full_refresh=True)
