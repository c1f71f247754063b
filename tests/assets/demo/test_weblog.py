"""The pipeline over an access log: every line has a fate, and gold is what counting by hand gives."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl_assets.transforms.step import parse_steps
from etl_checks.contract import load_contract
from etl_checks.lint import lint_contract
from tests.assets.demo import running

DEFS = Path(__file__).parents[3] / "etl_assets" / "defs" / "weblog"
REAL = Path(__file__).parents[4] / "shared" / "data" / "logs" / "apache_access.log"
ATTRIBUTES: dict[str, Any] = yaml.safe_load((DEFS / "defs.yaml").read_text(encoding="utf-8"))["attributes"]
LINE = re.compile(r'(\S+) \S+ \S+ \[([^\]]+)\] "(\S+) (\S+) \S+" (\d+) (\S+) "[^"]*" "[^"]*"')


def synthetic() -> list[str]:
    """Four hundred requests of five hours, with a line that is cut off and a request that is none."""
    lines = [
        f'10.0.0.{n % 7} - - [01/Mar/2024:{n % 5:02}:00:{n % 60:02} +0000] "GET /page-{n % 9}?n={n} HTTP/1.1" '
        f'{(200, 404, 200, 500)[n % 4]} {n if n % 4 else "-"} "-" "agent"'
        for n in range(400)
    ]
    return [*lines, lines[0][:60], lines[0].replace("GET /page-0?n=0 HTTP/1.1", r"\x16\x03"), lines[1]]


@pytest.fixture(scope="module", params=["synthetic", "real"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Any]:
    folder = tmp_path_factory.mktemp("weblog")
    log = folder / "access.log"
    if request.param == "real" and not REAL.exists():
        pytest.skip("the log is not beside the checkout")
    log.write_bytes(REAL.read_bytes() if request.param == "real" else ("\n".join(synthetic()) + "\n").encode())
    return log.read_text(encoding="utf-8").splitlines(), running.run(DEFS, log, folder / "lake")


def test_every_line_has_a_fate(ran: tuple[list[str], running.Ran]) -> None:
    lines, done = ran
    fates = done.fates("requests")
    assert sum(fates.values()) == len(lines)
    assert fates == {"kept": len(lines) - 1, "unreadable": 1}
    assert done.unlisted["requests"] == (), "everything that arrives is in silver"


def test_gold_is_what_counting_gives(ran: tuple[list[str], running.Ran]) -> None:
    lines, done = ran
    found = [match.groups() for line in lines if (match := LINE.fullmatch(line))]
    others = sum(r"\x16" in line for line in lines)  # a request without a page, by an address that did send one
    assert len(found) == len(lines) - 1 - others
    hours: Counter[tuple[datetime, int]] = Counter()
    pages: Counter[str] = Counter()
    for _, at, _, path, status, _ in found:
        hour = datetime.strptime(at, "%d/%b/%Y:%H:%M:%S %z").replace(minute=0, second=0, tzinfo=None)
        hours[hour, int(status)] += 1
        pages[path.partition("?")[0]] += 1
    if others:
        hours[datetime(2024, 3, 1), 200] += others
    with done.tables() as (session, relation):
        counted = session.execute(f"SELECT hour, status, requests FROM {relation('gold', 'requests_per_hour')}")
        assert {(hour, status): requests for hour, status, requests in counted} == hours
        top = session.execute(f"SELECT page, requests FROM {relation('gold', 'top_pages')} ORDER BY rank")
        assert top == sorted(pages.items(), key=lambda page: (-page[1], page[0]))[:100]
        shares = session.execute(
            f"SELECT hour, requests, client_errors, server_errors, error_percent FROM {relation('gold', 'error_share')}"
        )
    for hour, requests, client_errors, server_errors, percent in shares:
        own = {status: count for (at, status), count in hours.items() if at == hour}
        assert requests == sum(own.values())
        assert client_errors == sum(count for status, count in own.items() if 400 <= status < 500)
        assert server_errors == sum(count for status, count in own.items() if status >= 500)
        assert abs(percent - Decimal(100 * (client_errors + server_errors)) / requests) <= Decimal("0.005")
    assert len(shares) == len({hour for hour, _ in hours})


def test_the_files_of_the_pipeline_fit_each_other() -> None:
    tables = {**ATTRIBUTES["streams"], **ATTRIBUTES["gold"]}
    named = {table["contract"] for table in tables.values()} | {table["sql"] for table in ATTRIBUTES["gold"].values()}
    assert named == {path.name for path in DEFS.iterdir() if path.name != "defs.yaml"}
    for table, settings in tables.items():
        contract = load_contract(DEFS / settings["contract"])
        lint_contract(contract)
        assert contract.name == table
        assert contract.owners == tuple(ATTRIBUTES["owners"])
        assert tuple(settings.get("key", contract.key)) == contract.key
    parse_steps(ATTRIBUTES["streams"]["requests"]["steps"], layer="silver", where="weblog/requests")
