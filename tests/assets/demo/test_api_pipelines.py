"""The pipelines `crm` and `fx` run over their APIs, and every record meets the fate that is known of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_assets.bronze import Bronze
from etl_assets.errors import Budget
from etl_assets.gold import Gold, GoldSpec
from etl_assets.references import references_of
from etl_assets.run import Run
from etl_assets.silver import Silver, SilverSpec
from etl_assets.transforms import parse_steps
from etl_checks.contract import load_contract
from etl_checks.lint import lint_contract
from etl_resources.lake import Lake
from etl_resources.source import Incremental, Stream
from etl_resources.sources.rest import RestOptions, RestSource
from tests.assets.demo.running import Ran
from tests.servers.http_api import Api, running_api
from tests.servers.http_api_crm import STREAMS, Crm, filled
from tests.servers.http_api_demo import Rate, history, serve_rates

DEFS = Path(__file__).parents[3] / "etl_assets" / "defs"


def documents(name: str) -> list[dict[str, Any]]:
    """Return connections and pipeline, with the defaults of what is asked of the environment."""
    text = (DEFS / name / "defs.yaml").read_text(encoding="utf-8")
    plain = re.sub(r"\{\{ env\('\w+', '([^']*)'\) \}\}", r"\1", text)
    return [document["attributes"] for document in yaml.safe_load_all(plain)]


@dataclass
class Pipe:
    """A pipeline of the project over an API of the test, one lake for all of its runs."""

    name: str
    url: str
    ran: Ran

    def land(self, stream: str) -> Any:
        connections, pipeline = documents(self.name)
        ((_, connection),) = connections["connections"].items()
        settings = pipeline["streams"][stream]
        source = RestSource(
            **{k: v for k, v in connection.items() if k != "type"} | {"base_url": self.url, "allow_http": True}
        )
        options = RestOptions(**settings["source"])
        planned = Stream(stream, options, Incremental(**settings["capture"]["incremental"]))
        landed = Bronze(self.ran.lake, self.name, planned).land(source, Run("run"))
        self.ran.bronze[stream] = landed.account
        return landed.account

    def refine(self, stream: str) -> None:
        settings = documents(self.name)[1]["streams"][stream]
        contract = load_contract(DEFS / self.name / settings["contract"])
        references = {key.table: ("silver", self.name, key.table) for key in contract.foreign_keys}
        steps = parse_steps(settings["steps"], layer="silver", where=stream)
        spec = SilverSpec(
            self.name, stream, settings["key"], steps, settings.get("order", []), contract, Budget(),
            references=references,
        )  # fmt: skip
        self.ran.silver[stream] = Silver(self.ran.lake, self.ran.engine, spec).refine(Run("run")).account

    def build(self, table: str) -> list[dict[str, Any]]:
        settings = documents(self.name)[1]["gold"][table]
        sql = (DEFS / self.name / settings["sql"]).read_text(encoding="utf-8")
        contract = load_contract(DEFS / self.name / settings["contract"])
        spec = GoldSpec(self.name, table, lambda _: sql, references_of(sql, self.name, where=table), contract)
        Gold(self.ran.lake, self.ran.engine, spec).build(Run("run"))
        return self.rows("gold", table)

    def rows(self, layer: str, table: str) -> list[dict[str, Any]]:
        with self.ran.tables() as (session, relation):
            found: list[dict[str, Any]] = session.table(f"SELECT * FROM {relation(layer, table)}").to_pylist()
        return found


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api() as api:
        yield api


def pipe(name: str, api: Api, folder: Path) -> Pipe:
    return Pipe(name, f"{api.url}/{name}", Ran(Lake(uri=str(folder / "lake")), name))


@pytest.fixture
def crm(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Crm, Pipe]:
    monkeypatch.setenv("CRM_TOKEN", "crm-token")
    system = filled(150)
    system.serve(api)
    return system, pipe("crm", api, tmp_path)


def test_every_record_of_the_crm_has_the_fate_that_it_deserves(crm: tuple[Crm, Pipe]) -> None:
    system, running = crm
    for stream in STREAMS:
        running.land(stream)
        running.refine(stream)
        truth = {f"rejected:{fate}" if fate != "kept" else fate: n for fate, n in system.counts(stream).items()}
        assert running.ran.fates(stream) == truth
        key = f"{stream[:-1] if stream != 'opportunities' else 'opportunity'}_id"
        assert {row[key] for row in running.rows("silver", stream)} == system.kept(stream)
    accounts = {row["account_id"]: row for row in running.rows("silver", "accounts")}
    assert accounts["A00000"]["name"] == "Company 0 Łtd."
    assert {row["country_code"] for row in accounts.values()} == {"DE", "FR", "NO"}
    stages = running.build("pipeline_by_stage")
    assert sum(row["deals"] for row in stages) == len(system.kept("opportunities"))
    overview = running.build("account_overview")
    assert len(overview) == len(system.kept("accounts"))
    assert sum(row["contacts"] for row in overview) == len(system.kept("contacts"))


def test_a_second_run_reads_what_was_changed_and_nothing_else(crm: tuple[Crm, Pipe]) -> None:
    system, running = crm
    first = running.land("accounts")
    assert first.inserted == 150
    again = running.land("accounts")
    assert again.inserted == 0, "nothing was changed"
    changed = {**system.records["accounts"]["A00001"], "name": "Renamed"}
    system.put("accounts", changed)
    system.put("accounts", {**system.records["accounts"]["A00002"], "name": "Moved"}, tick=False)
    assert running.land("accounts").inserted == 2
    running.refine("accounts")
    names = {row["account_id"]: row["name"] for row in running.rows("silver", "accounts")}
    assert (names["A00001"], names["A00002"]) == ("Renamed", "Moved")
    assert set(names) == system.kept("accounts")


def test_the_real_rates_arrive_digit_for_digit(api: Api, tmp_path: Path) -> None:
    """The newest part of the history, then the days that were kept back."""
    rates = history()[-15_000:]
    days = sorted({rate[0] for rate in rates})
    until = days[-3]
    shown: list[Rate] = [rate for rate in rates if rate[0] < until]
    serve_rates(api, shown)
    running = pipe("fx", api, tmp_path)
    assert running.land("rates").inserted == len(shown)
    shown += [rate for rate in rates if rate[0] >= until]
    landed = running.land("rates")
    assert landed.inserted == len([rate for rate in rates if rate[0] >= until])
    assert landed.filtered["delivered_before"] > 0, "the last week is asked for again, and recognised"
    running.refine("rates")
    from decimal import Decimal

    found = {(f"{row['rate_date']}", row["currency"]): row["rate"] for row in running.rows("silver", "rates")}
    assert found == {(day, currency): Decimal(rate) for day, currency, rate in rates}
    months = {(f"{row['month']}", row["currency"]): row for row in running.build("monthly_rates")}
    for month, currency in (("2025-06", "USD"), ("2025-02", "JPY")):
        values = [Decimal(r) for d, c, r in rates if d.startswith(month) and c == currency]
        row = months[f"{month}-01", currency]
        assert (row["days"], row["lowest_rate"], row["highest_rate"]) == (len(values), min(values), max(values))
        assert abs(row["mean_rate"] - sum(values) / len(values)) <= Decimal("0.000001")
        assert row["last_rate"] == values[-1]


def test_the_history_is_the_real_one() -> None:
    rates = history()
    assert len(rates) > 220_000
    assert rates[0][:1] == ("1999-01-04",)
    assert ("1999-01-04", "USD", "1.1789") in rates[:40]


@pytest.mark.parametrize("name", ["crm", "fx"])
def test_contracts_are_valid_and_every_file_is_used(name: str) -> None:
    _, attributes = documents(name)
    tables = {**attributes["streams"], **attributes["gold"]}
    named = {table["contract"] for table in tables.values()} | {table["sql"] for table in attributes["gold"].values()}
    assert named == {path.name for path in (DEFS / name).iterdir() if path.name != "defs.yaml"}
    for table, settings in tables.items():
        contract = load_contract(DEFS / name / settings["contract"])
        lint_contract(contract)
        assert contract.name == table
        assert tuple(settings.get("key", contract.key)) == contract.key


def test_definitions_load_without_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it is set, it is where the pipelines read."""
    from etl_assets.definitions import load

    for name in ("CRM_URL", "CRM_TOKEN", "FX_URL"):
        monkeypatch.delenv(name, raising=False)
    loaded = load(DEFS.parent)
    assert loaded.resources is not None
    assert loaded.resources["crm_api"].base_url == "http://127.0.0.1:8100/crm"
    monkeypatch.setenv("CRM_URL", "https://crm.example.org/api")
    again = load(DEFS.parent)
    assert again.resources is not None
    assert again.resources["crm_api"].base_url == "https://crm.example.org/api"
