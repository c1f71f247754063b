"""Lines that are alike, parsed by columns: what comes out is what comes out record by record, or nothing does."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl_resources.files.json_alike import parse_alike
from etl_resources.files.json_format import parse_one_by_one
from etl_resources.files.json_parse import JsonSettings
from etl_resources.source import Stream
from etl_resources.sources.file import FileOptions, FileSource
from tests.soaking import examples

SCHEMA = pa.schema([
    ("i", pa.int64()), ("f", pa.float64()), ("b", pa.bool_()), ("s", pa.string()), ("größe", pa.string()),
    ("t", pa.timestamp("us")), ("z", pa.timestamp("us", "UTC")), ("d", pa.date32()),
])  # fmt: skip
TEXTS = st.text(st.sampled_from('ab0 :,{}[]"\\\n\r\té€😀-.')) | st.sampled_from(
    ["", ':":', ',"i":', "null", "}", "ab" * 40]
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "i": st.integers(0, 99) | st.integers(-(2**63), 2**63 - 1) | st.integers(10**7, 10**17),
    "f": st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-99, 99)
    | st.integers(-99, 99).map(lambda n: n / 8),
    "b": st.booleans(),
    "s": TEXTS,
    "größe": st.sampled_from(["klein", "große"]),
    "t": st.datetimes(datetime(1000, 1, 1), datetime(9999, 1, 1)).map(str),
    "z": st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(lambda t: f"{t.isoformat()}+02:00"),
    "d": st.dates(date(1000, 1, 1)).map(str),
}
PIECES = [*(bytes([octet]) for octet in b'",:{}0-.e n\0\n'), b"", b'":', b"[]", b"null"]


def one_by_one(data: bytes, schema: pa.Schema = SCHEMA) -> pa.Table | None:
    """Return the records as the slow way reads them; None: one of them is unreadable, or has a key of its own."""
    lines = list(enumerate(data.removesuffix(b"\n").split(b"\n"), 1))
    table, unreadable = parse_one_by_one(JsonSettings(lines=True), lines, schema)
    return None if unreadable or table.schema != schema else table


def written(records: list[dict[str, Any]], *, spaced: bool = False, end: str = "\n") -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    return ("\n".join(json.dumps(r, ensure_ascii=False, separators=separators) for r in records) + end).encode()


def is_plain(value: Any) -> bool:
    """Tell whether a value is written without escape or exponent, and not so that it looks like the end of a key."""
    if isinstance(value, str):
        return not value.startswith(":") and not set(value) & set('"\\\n\r\t')
    return not isinstance(value, float) or "e" not in repr(value)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Draw lines with the same keys, now and then a NULL; and whether they are plain."""
    keys = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, unique=True))
    empty = draw(st.sets(st.sampled_from(keys)))
    record = st.fixed_dictionaries({k: VALUES[k] | st.none() if k in empty else VALUES[k] for k in keys})
    records = [{k: r[k] for k in keys} for r in draw(st.lists(record, min_size=1, max_size=8))]
    data = written(records, spaced=draw(st.booleans()), end=draw(st.sampled_from(["", "\n"])))
    return data, len(data) >= 8 and all(is_plain(value) for r in records for value in r.values())


@settings(max_examples=examples(200), deadline=None)
@given(blocks())
def test_it_says_what_is_said_record_by_record(block: tuple[bytes, bool]) -> None:
    data, plain = block
    slow, quick = one_by_one(data), parse_alike(data, len(data.removesuffix(b"\n").split(b"\n")), SCHEMA)
    assert slow is not None
    assert (quick is not None) >= plain
    assert quick is None or quick.equals(slow)


@settings(max_examples=examples(300), deadline=None)
@given(blocks(), st.data())
def test_a_byte_that_is_otherwise_is_never_passed_over(block: tuple[bytes, bool], more: st.DataObject) -> None:
    """Bytes are taken away, put in or exchanged: what comes out is what comes out record by record, or nothing."""
    changed = bytearray(block[0])
    for _ in range(more.draw(st.integers(1, 3))):
        at = more.draw(st.integers(0, len(changed)))
        changed[at : at + more.draw(st.integers(0, 2))] = more.draw(st.sampled_from(PIECES))
    data = bytes(changed)
    try:
        data.decode()
    except UnicodeDecodeError:
        return  # looked at before
    quick = parse_alike(data, len(data.removesuffix(b"\n").split(b"\n")), SCHEMA)
    if quick is not None:
        slow = one_by_one(data)
        assert slow is not None
        assert quick.equals(slow)


PLAIN = [
    {"i": n, "f": n / 4, "b": n % 3 == 0, "s": f"nr {n}: {{,}}", "größe": "groß", "d": f"2024-02-{n + 1:02}"}
    for n in range(20)
]
TAKEN = {
    "as it is": (written(PLAIN), 20),
    "spaced": (written(PLAIN, spaced=True), 20),
    "without the last end": (written(PLAIN, end=""), 20),
    "one line": (written(PLAIN[:1]), 1),
    "one key": (b'{"i":1}\n{"i":12}\n{"i":123}', 3),
    "keys that the table has and the lines have not": (written([{"s": "x"}]), 1),
    "NULL": (written([*PLAIN, dict.fromkeys(PLAIN[0]), *PLAIN]), 41),
    "texts with commas": (b'{"s":"a,b","i":1}\n{"s":",","i":2}\n{"s":null,"i":3}\n{"s":"","i":null}', 4),
    "texts like what is around them": (b'{"s":",","i":1}\n{"s":"null","i":2}\n{"s":"}","i":3}', 3),
    "NULL only": (written([dict.fromkeys(SCHEMA.names)]), 1),
    "long numbers": (written([{"i": 10**n + 7, "f": 10**n / 8} for n in range(15)]), 15),
    "numbers of any length": (written([{"i": (-10) ** n} for n in range(19)]), 19),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_plain_is_taken(name: str) -> None:
    data, records = TAKEN[name]
    table = parse_alike(data, records, SCHEMA)
    assert table is not None
    assert table.equals(one_by_one(data))


REFUSED = {
    "a key twice": b'{"i":1,"i":2}',
    "an unknown key": b'{"i":1,"x":2}',
    "another key in the second line": b'{"i":1}\n{"f":1}',
    "another order": b'{"i":1,"s":"a"}\n{"s":"a","i":1}',
    "fewer keys": b'{"i":1,"s":"a"}\n{"i":1}',
    "more keys": b'{"i":1}\n{"i":1,"s":"a"}',
    "a key in another case": b'{"i":1}\n{"I":1}',
    "a text that begins as a key ends": b'{"s":":a"}',
    "an escape": b'{"s":"a"}\n{"s":"\\u00e9"}',
    "a control character": b'{"s":"a"}\n{"s":"\t"}',
    "an object": b'{"s":{"i":1}}',
    "a list": b'{"i":[1]}',
    "no value": b'{"i":}',
    "a value too many": b'{"i":1 2}',
    "a text that is not closed": b'{"s":"a}',
    "a text of one quote": b'{"s":"}',
    "a text of one quote, and one of three": b'{"s":"}\n{"s":"a"b"}',
    "the same with commas": b'{"s":",","i":1}\n{"s":"}\n{"s":"a"b","i":3}',
    "the end of a text as a character": b'{"s":",","i":1}\n{"s":"\0","i":null}',
    "a quote within a text": b'{"s":"a"b"}',
    "a text for a number": b'{"i":"1"}',
    "a number for a text": b'{"s":1}',
    "a fraction": b'{"i":1.0}',
    "too large a number": b'{"i":9223372036854775808}',
    "a leading zero": b'{"i":1}\n{"i":01}',
    "a leading zero behind a sign": b'{"f":-01}',
    "a plus": b'{"i":+1}',
    "hexadecimal": b'{"i":0x10}',
    "no digit before the dot": b'{"f":.5}',
    "no digit behind the dot": b'{"f":5.}',
    "no digit between sign and dot": b'{"f":-.5}',
    "two dots": b'{"f":1.2.3}',
    "two dots in a long number": b'{"f":1.000000000000.0}',
    "two signs": b'{"f":--1}',
    "a sign alone": b'{"f":-}',
    "not a number": b'{"f":NaN}',
    "digits that float64 does not keep": b'{"f":0.12345678901234567}',
    "no day": b'{"d":"2024-02-30"}',
    "a time without a zone": b'{"z":"2024-01-01 00:00:00"}',
    "a number for a time": b'{"t":1704067200}',
    "half a word": b'{"b":tru}',
    "a word and more": b'{"b":truee}',
    "another word": b'{"b":talse}',
    "half a null": b'{"i":nul}',
    "a longer null": b'{"s":nulll}',
    "text behind the object": b'{"i":1}x',
    "text before the object": b'{"i":1}\nx{"i":1}',
    "a space at the end": b'{"i":1} \n{"i":1}',
    "two objects on a line": b'{"i":1}{"i":1}',
    "an object on two lines": b'{"i":1}\n{"i":\n1}',
    "a carriage return": b'{"i":1}\r\n{"i":1}\r\n',
    "no object": b"[1]",
    "an empty object": b"{}",
    "nothing": b"",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_seen_to_be_right_is_left_to_others(name: str) -> None:
    data = REFUSED[name]
    for records in sorted({len(data.split(b"\n")), data.count(b"{"), data.count(b"\n")}):
        assert parse_alike(data, records, SCHEMA) is None


def test_a_type_that_is_not_one_of_these_is_left_to_others() -> None:
    assert parse_alike(b'{"amount":1.5}', 1, pa.schema([("amount", pa.decimal128(9, 2))])) is None


def test_a_file_comes_that_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, each of them by columns: the other parsers are not asked."""
    from etl_resources.files import chunks, json_parse

    monkeypatch.setattr(chunks, "BLOCK_BYTES", 4096)
    guess = json_parse._read_json
    monkeypatch.setattr(
        json_parse, "_read_json",
        lambda data, schema: guess(data, schema) if schema is None else pytest.fail("left to others"),
    )  # fmt: skip
    records = [{"i": n, "s": f"{n:x}" * (n % 7)} for n in range(5_000)]
    path = tmp_path / "x.ndjson"
    path.write_bytes(written(records))
    stream = Stream("x", FileOptions(path=str(path), columns={"i": "int64", "s": "string"}))
    found = [row for b in FileSource().read(stream, None) for row in b.data.drop_columns(["_origin"]).to_pylist()]
    assert found == records
