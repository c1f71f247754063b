"""docs/sources/log.md: a table of options that matches the code, examples that run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from etl_resources.source import Stream
from etl_resources.sources.log import LogOptions, LogSource

PAGE = (Path(__file__).parents[2] / "docs" / "sources" / "log.md").read_text(encoding="utf-8")


def test_the_table_of_options_is_the_model() -> None:
    table = PAGE.split("| option of `source:` ")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, flags=re.MULTILINE))
    assert list(rows) == [name for name in LogOptions.model_fields if name not in {"type", "connection"}]
    for name, written in rows.items():
        default = LogOptions.model_fields[name].get_default(call_default_factory=True)
        if written.strip().startswith("`"):
            assert str(default) == written.strip().strip("`"), name
        else:
            assert not default or name in {"path", "format"}, name


def test_the_table_of_formats_is_the_model() -> None:
    table = PAGE.split("| `format` | columns |")[1].split("\n\n")[0]
    named = [n for row in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE) for n in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(get_args(LogOptions.model_fields["format"].annotation))


LINES = {
    "hits": ('1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 5 "-" "x"', {"status": 200, "line": 1}),
    "requests": ('1.2.3.4 [2024-01-01T00:00:00+01:00] "GET / HTTP/1.0" 200 0.5 "abc"', {"request_time": 0.5}),
    "jobs": ("01.02.2024 10:00:00 [load] took 1.5 s: fine", {"seconds": 1.5, "result": "fine"}),
}


@pytest.mark.parametrize("name", LINES)
def test_the_examples_run(tmp_path: Path, name: str) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    streams: dict[str, Any] = yaml.safe_load(example)["streams"]
    assert list(streams) == list(LINES)
    source = streams[name]["source"]
    line, expected = LINES[name]
    log = tmp_path / Path(source["path"]).name.replace("*.log", "a.log").rstrip("*")
    log.write_text(line + "\n")
    options = LogOptions(**{**source, "path": str(tmp_path / Path(source["path"]).name)})
    (batch,) = LogSource().read(Stream(name, options), None)
    (row,) = batch.data.to_pylist()
    assert expected.items() <= row.items()
    assert set(streams[name]["key"]) <= row.keys()
