"""Entries that are matched in stages: the same fields, and the same entries refused, as by one expression."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from etl_resources.files.csv_records import Block
from etl_resources.logs.declared import nginx_format
from etl_resources.logs.entries import behind_fields, entries_of
from etl_resources.logs.formats import FORMATS, LogFormat
from etl_resources.logs.parse import TextParser
from etl_resources.sources.log import LogOptions

LINE = (
    r'127.0.0.1 - jörg [01/Jan/2024:00:00:07 +0000] "GET /a?b=\"c HTTP/1.1" 200 37 "https://x.org/ü" "Mozilla/5.0 (é)"'
)
STAGED = [
    FORMATS["apache_common"], FORMATS["apache_combined"], nginx_format(None),
    nginx_format('«$remote_addr» \\ [$time_local] | "$request" | $status | "$http_referer" | $request_id'),
]  # fmt: skip


def _broken(line: str, chance: random.Random) -> str:
    """Change a line here and there, often where a field begins or ends."""
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(line) + 1)
        line = (
            line[:at]
            + chance.choice([" ", '"', "\\", "]", "[", "-", "9", "é", "", "| "])
            + line[at + chance.randrange(3) :]
        )
    return line


def _lines(form: LogFormat) -> list[str]:
    chance = random.Random(form.name + str(len(form.columns)))
    declared = '«127.0.0.1» \\ [01/Jan/2024:00:00:07 +0000] | "GET / HTTP/1.1" | 200 | "https://x.org/ü" | abc'
    whole = {"apache_common": LINE.rsplit(' "', 2)[0]}.get(form.name, declared if "«" in form.start else LINE)
    return [whole, *(_broken(whole, chance) for _ in range(3_000))]


def _in_one(form: LogFormat) -> str:
    return "^" + "".join(stage.removeprefix("^") for stage in form.stages)


@pytest.mark.parametrize("form", STAGED, ids=lambda form: f"{form.name}-{len(form.columns)}")
def test_stages_find_what_one_expression_finds(form: LogFormat) -> None:
    assert len(form.stages) == len(form.literals) + 1 > 1
    lines = _lines(form)
    entries = entries_of("".join(f"{line}\n" for line in lines if line).encode(), 1, None)
    columns, reasons = TextParser(form, None, multiline=False)._matched(entries)  # type: ignore[arg-type]
    once = pc.extract_regex(entries.text, _in_one(form))
    fits = pc.is_null(pc.coalesce(*reasons))
    assert fits.equals(pc.is_valid(once))
    assert 100 < pc.sum(fits).as_py() < len(fits)
    for name, found in columns.items():
        assert found.filter(fits).equals(pc.struct_field(once, name).filter(fits)), name


def test_what_is_behind_the_fields_is_cut_in_bytes() -> None:
    texts = pa.array(["é [x", None, "ab [", "no", ""])
    fields = [pa.array(["é", None, "ab", None, None])]
    assert behind_fields(texts, fields, 2).to_pylist() == ["x", "", "", "no", ""]
    assert behind_fields(texts.slice(2, 1), [fields[0].slice(2, 1)], 1).to_pylist() == ["["]
    assert behind_fields(texts.slice(0, 0), [fields[0].slice(0, 0)], 2).to_pylist() == []


def test_a_block_of_blank_lines_holds_no_entry() -> None:
    from etl_resources.logs.parsers import text_parser

    parser = text_parser(LogOptions(path="x", format="apache_combined"))
    try:
        assert parser.parser.parse(Block(b"\n\n", 1, 0), datetime.now(UTC)).records == 0
    finally:
        parser.close()
