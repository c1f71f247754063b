"""Every format, line by line: what it becomes, and that every line has a fate."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from etl_resources.exceptions import ConfigurationError
from etl_resources.source import Batch, Stream
from etl_resources.sources.log import LogOptions, LogSource

CASES = yaml.safe_load((Path(__file__).parent / "logs" / "formats.yaml").read_text(encoding="utf-8"))
REAL = Path(__file__).parents[3] / "shared" / "data" / "logs" / "apache_access.log"
WRITTEN = datetime(2024, 3, 1, tzinfo=UTC).timestamp()


def read(path: Path, **options: Any) -> list[Batch]:
    batches = list(LogSource().read(Stream("log", LogOptions(path=str(path), **options)), None))
    told = sum(b.data.num_rows + (b.unreadable.num_rows if b.unreadable else 0) for b in batches)
    assert told == batches[-1].rows_read, "every entry has a fate"
    return batches


def rows(batches: list[Batch]) -> list[dict[str, Any]]:
    return [row for b in batches for row in b.data.to_pylist()]


def unreadable(batches: list[Batch]) -> list[dict[str, Any]]:
    return [row for b in batches if b.unreadable for row in b.unreadable.to_pylist()]


def shown(value: Any) -> Any:
    if isinstance(value, datetime):
        return str(value).removesuffix("+00:00")
    return value if value is None or isinstance(value, str | int | float | dict) else str(value)


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_lines_become_typed_rows_or_are_told(tmp_path: Path, case: dict[str, Any]) -> None:
    log = tmp_path / "some.log"
    log.write_text(case["lines"], encoding="utf-8")
    os.utime(log, (WRITTEN, WRITTEN))
    batches = read(log, **case["options"])
    found = rows(batches)
    assert len(found) == len(case["rows"])
    for got, expected in zip(found, case["rows"], strict=True):
        assert {name: shown(got[name]) for name in expected} == expected
    told = unreadable(batches)
    assert [t["line"] for t in told] == [line for line, _ in case.get("unreadable", [])]
    lines = case["lines"].split("\n")
    for got, (line, reason) in zip(told, case.get("unreadable", []), strict=True):
        assert reason in got["reason"]
        assert got["raw"].decode().startswith(lines[line - 1]), "as it came"
        assert got["origin"] == str(log)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c["options"]["format"] not in {"json", "logfmt"}], ids=lambda c: c["name"]
)
def test_the_schema_does_not_depend_on_what_is_in_the_log(tmp_path: Path, case: dict[str, Any]) -> None:
    log = tmp_path / "some.log"
    log.write_text(case["lines"], encoding="utf-8")
    os.utime(log, (WRITTEN, WRITTEN))
    options = LogOptions(path=str(log), **case["options"])
    assert read(log, **case["options"])[0].data.schema.names == [
        *LogSource().read_schema(Stream("log", options)).names, "_origin",
    ]  # fmt: skip
    empty = tmp_path / "empty.log"
    empty.touch()
    schema = LogSource().read_schema(Stream("log", options.model_copy(update={"path": str(empty)})))
    assert schema == LogSource().read_schema(Stream("log", options))


def test_the_schema_of_logfmt_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("x=1 y=2\nz=3\nhalf=")
    stream = Stream("log", LogOptions(path=str(tmp_path / "a.log"), format="logfmt"))
    assert LogSource().read_schema(stream).names == ["x", "y", "z"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_bytes_that_are_no_text_cost_their_own_line_only(tmp_path: Path, ending: str) -> None:
    end, log = ending.encode(), tmp_path / "a.log"
    log.write_bytes(b"1 good" + end + b"2 b\xffd" + end + b"\0\0\0\0" + end + "3 gö".encode() + end)
    batches = read(log, format="pattern", pattern=r"(?P<n>\d+) (?P<t>.*)")
    assert [(r["n"], r["t"]) for r in rows(batches)] == [("1", "good"), ("3", "gö")]
    assert [(u["line"], u["raw"]) for u in unreadable(batches)] == [(2, b"2 b\xffd"), (3, b"\0\0\0\0")]
    latin = read(log, format="pattern", pattern=r"(?P<n>\d+) (?P<t>.*)", encoding="latin-1")
    assert rows(latin)[1]["t"] == "bÿd"


def test_an_entry_that_is_too_long_costs_itself_only(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"1 a\n2 " + b"x" * 5_000_000 + b"\n3 c\n")
    batches = read(log, format="pattern", pattern=r"(?P<n>\d+) (?P<t>.*)", max_record_bytes=1000)
    assert [r["n"] for r in rows(batches)] == ["1", "3"]
    (told,) = unreadable(batches)
    assert (told["line"], told["raw"][:4], len(told["raw"])) == (2, b"2 xx", 64 << 10)


def test_decimals_keep_their_digits(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("12345678901234567890.1234\n")
    batches = read(tmp_path / "a.log", format="pattern", pattern=r"(?P<a>.*)", columns={"a": "decimal(38,4)"})
    assert rows(batches)[0]["a"] == Decimal("12345678901234567890.1234")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"format": "pattern"}, "needs `pattern`"),
        ({"format": "apache_common", "log_format": "$status"}, "not an option of format apache_common"),
        ({"format": "json", "line_column": "n"}, "json takes neither"),
        ({"format": "logfmt", "multiline": True}, "one line"),
        ({"format": "json", "encoding": "utf-16"}, "as ASCII does"),
        ({"format": "json", "timezone": "Mars/Olympus"}, "no time zone"),
        ({"format": "iis"}, "apache_common"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        LogOptions(path="x", **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"format": "pattern", "pattern": "(?P<a>x)(?!y)"}, "RE2"),
        ({"format": "pattern", "pattern": "abc"}, "no named groups"),
        ({"format": "nginx", "log_format": "$status$request"}, "nothing stands between"),
        ({"format": "nginx", "log_format": "$status $status"}, "comes twice"),
        ({"format": "nginx", "log_format": "nothing"}, "names no field"),
        ({"format": "nginx", "columns": {"nope": "int64"}}, "no field nope"),
        ({"format": "nginx", "log_format": "$method $request"}, "two columns would be called method"),
        ({"format": "nginx", "line_column": "Status"}, "two columns would be called status"),
        ({"format": "pattern", "pattern": "(?P<a>x)", "columns": {"a": "int7"}}, "no type"),
        ({"format": "pattern", "pattern": "(?P<_row>x)"}, "kept for provenance"),
    ],
)
def test_declarations_that_cannot_be_read_are_refused(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    (tmp_path / "a.log").write_text("x\n")
    with pytest.raises(ConfigurationError, match=told):
        read(tmp_path / "a.log", **options)


@pytest.mark.skipif(not REAL.exists(), reason="the log is not beside the checkout")
@pytest.mark.parametrize("packed", [False, True])
def test_each_of_the_ten_thousand_lines_of_a_real_log_has_a_fate(tmp_path: Path, packed: bool) -> None:
    log = REAL
    if packed:
        log = tmp_path / "access.log.gz"
        log.write_bytes(gzip.compress(REAL.read_bytes(), 1))
    batches = read(log, format="apache_combined", line_column="line")
    found, told = rows(batches), unreadable(batches)
    assert batches[-1].rows_read == 10_000
    assert sorted([r["line"] for r in found] + [u["line"] for u in told]) == list(range(1, 10_001))
    lines = REAL.read_bytes().splitlines()
    # One line ends within its last quotes.
    assert [(u["line"], u["raw"]) for u in told] == [(8899, lines[8898])]
    assert {r["method"] for r in found} == {"GET", "HEAD", "POST", "OPTIONS"}
    expected = Counter(line.split(b'" ')[1][:3].decode() for n, line in enumerate(lines) if n != 8898)
    assert Counter(str(r["status"]) for r in found) == expected
    for row, line in ((found[0], lines[0]), (found[-1], lines[-1])):
        assert line.decode().startswith(
            f'{row["host"]} - - [{row["time"]:%d/%b/%Y:%H:%M:%S +0000}] "{row["method"]} {row["path"]} '
        )
        assert f'" {row["status"]} {row["bytes"]} "' in line.decode()
