"""Runs the streams and gold tables of a pipeline's YAML over files, into a lake, without Dagster around it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from etl_assets.account import RowAccount
from etl_assets.bronze import Bronze
from etl_assets.errors import Budget
from etl_assets.gold import Gold, GoldSpec
from etl_assets.references import references_of
from etl_assets.run import Run
from etl_assets.silver import Silver, SilverSpec
from etl_assets.transforms import parse_steps
from etl_checks.contract import load_contract
from etl_resources.engines.duckdb import DuckDB, Session
from etl_resources.lake import Lake
from etl_resources.registry import source_type
from etl_resources.source import Source, Stream


@dataclass
class Ran:
    """A lake with what a run brought into it."""

    lake: Lake
    pipeline: str
    engine: DuckDB = field(default_factory=DuckDB)
    bronze: dict[str, RowAccount] = field(default_factory=dict)
    silver: dict[str, RowAccount] = field(default_factory=dict)
    warnings: dict[str, Mapping[str, int]] = field(default_factory=dict)
    unlisted: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def fates(self, stream: str) -> dict[str, int]:
        """Return the rows of a stream by fate, unreadable records included."""
        account = self.silver[stream]
        fates = {"kept": account.inserted, "superseded": account.superseded}
        fates |= {f"filtered:{rule}": rows for rule, rows in account.filtered.items()}
        fates |= {f"rejected:{rule}": rows for rule, rows in account.rejected.items()}
        fates |= dict(self.bronze[stream].rejected)
        return {fate: rows for fate, rows in fates.items() if rows}

    @contextmanager
    def tables(self) -> Iterator[tuple[Session, Any]]:
        """Open a session, and give a function from layer and table to a relation of it."""
        with self.engine.session() as session:

            def relation(layer: str, table: str) -> str:
                handle = self.lake.table(*((layer, table) if layer == "ops" else (layer, self.pipeline, table))).open()
                assert handle is not None, f"{layer}/{table} is not there"
                return session.lake_relation(handle)

            yield session, relation


def run(
    folder: Path,
    data: Path,
    lake: Path,
    others: Mapping[str, tuple[Source, Stream]] | None = None,
    *,
    only: Collection[str] | None = None,
) -> Ran:
    """Run the pipeline in `folder` over the files in `data`, and over `others` for the streams of these names.

    With `only`, no other streams are run.
    """
    text = re.sub(r"\{\{.*?\}\}", str(data), (folder / "defs.yaml").read_text(encoding="utf-8"))
    attributes = yaml.safe_load(text)["attributes"]
    ran = Ran(Lake(uri=str(lake)), attributes["name"])
    for name in attributes["streams"] if only is None else only:
        settings = attributes["streams"][name]
        kind = source_type(settings["source"]["type"], where=name)
        source, stream = (others or {}).get(name) or (kind(), Stream(name, kind.options_type(**settings["source"])))
        _run_stream(ran, folder, source, stream, settings, Budget(**attributes["errors"]))
    for name, settings in attributes["gold"].items():
        sql = (folder / settings["sql"]).read_text(encoding="utf-8")
        contract = load_contract(folder / settings["contract"]) if "contract" in settings else None
        references = references_of(sql, attributes["name"], where=name)
        spec = GoldSpec(attributes["name"], name, lambda _, sql=sql: sql, references, contract)  # type: ignore[misc]
        Gold(ran.lake, ran.engine, spec).build(Run("run"))
    return ran


def _run_stream(
    ran: Ran, folder: Path, source: Source, stream: Stream, settings: dict[str, Any], budget: Budget
) -> None:
    name = stream.name
    landed = Bronze(ran.lake, ran.pipeline, stream).land(source, Run("run"))
    contract = load_contract(folder / settings["contract"])
    spec = SilverSpec(
        pipeline=ran.pipeline,
        name=name,
        key=settings["key"],
        steps=parse_steps(settings.get("steps", []), layer="silver", where=name),
        order=settings.get("order", []),
        contract=contract,
        budget=budget,
        references={key.table: ("silver", ran.pipeline, key.table) for key in contract.foreign_keys},
    )
    refined = Silver(ran.lake, ran.engine, spec).refine(Run("run"))
    ran.bronze[name], ran.silver[name] = landed.account, refined.account
    ran.warnings[name], ran.unlisted[name] = refined.watched, refined.unlisted
