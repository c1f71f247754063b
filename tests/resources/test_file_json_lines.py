"""Blocks of plain lines are parsed as they are; what a block must not be mistaken for is found all the same.

Every text is read twice: as it is, and with a space before each line, which takes the way that looks at records one by
one. The two must agree on rows, and on what is unreadable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl_resources.files import json_format, json_parse
from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource

GOOD = '{"a":1,"b":"x"}'
DEEP = '{"a":' * 90 + "1" + "}" * 90
CASES = {
    "plain": [GOOD, '{"a":2,"b":null}', '{"b":"}\\n{"}'],
    "no end behind the last line": [GOOD, '{"a":2}'],
    "two objects on a line, and one on two": [GOOD, '{"a":1}{"a":2}', '{"a":', '{"b":1}}', GOOD],
    "two objects on a line": [GOOD, '{"a":1}{"a":2}', GOOD],
    "a record on two lines": [GOOD, '{"a":1}', ',"b":2}', GOOD],
    "null": [GOOD, "null", GOOD],
    "scalars": [GOOD, "1", '"{"', GOOD],
    "an array": [GOOD, '[{"a":1}]', GOOD],
    "text behind an object": [GOOD, '{"a":1}x}', GOOD],
    "a string that is not closed": [GOOD, '{"a":1,"b":"x}', '{"b":"y"}', GOOD],
    "a key twice": [GOOD, '{"a":1,"a":2}', GOOD],
    "a new key": [GOOD, '{"a":1,"c":{"d":[1]}}', GOOD],
    "another type": [GOOD, '{"a":"1"}', '{"a":1.5}', GOOD],
    "digits that float64 does not keep": ['{"f":1.5}', '{"f":0.12345678901234567890}'],
    "no UTF-8": [GOOD, '{"a":1,"b":"\udcff"}', GOOD],
    "deep, beside many scalars": [GOOD, DEEP, *["1"] * 200, GOOD],
    "deep": [GOOD, DEEP, GOOD],
    "blank lines": [GOOD, "", "  ", GOOD],
    "empty objects": [GOOD, "{}", "{}"],
}


def read(path: Path, lines: list[str], before: str) -> tuple[list[Any], list[Any]]:
    path.write_bytes(
        "\n".join(before + line if line.strip() else line for line in lines).encode(errors="surrogateescape")
    )
    stream = Stream("x", FileOptions(path=str(path), columns={"a": "int64", "b": "string"}))
    batches = list(FileSource().read(stream, None))
    rows = [row for b in batches for row in b.data.drop_columns(["_origin"]).to_pylist()]
    told = [row for b in batches if b.unreadable for row in b.unreadable.to_pylist()]
    assert batches[-1].rows_read == len(rows) + len(told) == sum(bool(line.strip()) for line in lines)
    return rows, [(t["line"], t["reason"]) for t in told]


@pytest.mark.parametrize("name", CASES)
def test_both_ways_agree(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / "x.ndjson", CASES[name], "") == read(tmp_path / "x.ndjson", CASES[name], " ")


def test_plain_lines_take_the_quick_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the cases above would compare one way with itself."""
    monkeypatch.setattr(json_parse, "_parse_array", lambda *_: None)
    monkeypatch.setattr(json_format, "parts_of", lambda *_, **__: pytest.fail("cut into parts"))
    assert len(read(tmp_path / "x.ndjson", CASES["plain"], "")[0]) == 3
    with pytest.raises(pytest.fail.Exception):
        read(tmp_path / "x.ndjson", CASES["plain"], " ")
