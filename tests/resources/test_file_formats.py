"""Every readable record arrives as it is, every other one is told: origin, line, reason and bytes."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from etl_resources.exceptions import ConfigurationError, EtlError, NotFoundError
from etl_resources.files import chunks, json_types
from etl_resources.files.csv_records import escaped_positions
from etl_resources.files.json_digits import _long_runs
from etl_resources.source import Batch, Stream
from etl_resources.sources.file import FileOptions, FileSource
from tests.resources.crashing import in_a_process, read_two_records

CASES = Path(__file__).parent / "files"


def cases(name: str) -> list[Any]:
    table = yaml.safe_load((CASES / name).read_text())
    return [pytest.param(case, id=key) for key, case in table.items()]


def read(path: Path | str, **options: Any) -> list[Batch]:
    return list(FileSource().read(Stream("test", FileOptions(path=str(path), **options)), None))


def unreadable(batches: list[Batch]) -> list[dict[str, Any]]:
    return [row for b in batches if b.unreadable for row in b.unreadable.to_pylist()]


def check(batches: list[Batch], case: dict[str, Any], path: Path) -> None:
    told = unreadable(batches)
    expected = case.get("unreadable", [])
    assert [(u["line"], u["raw"].decode("latin-1")) for u in told] == [(line, raw) for line, _, raw in expected]
    for got, (_, reason, _) in zip(told, expected, strict=True):
        assert reason in got["reason"]
        assert got["origin"] == str(path)
    rows_read = batches[-1].rows_read if batches else 0
    assert rows_read == len(case["rows"]) + len(expected)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize("case", cases("csv.yaml"))
def test_csv(case: dict[str, Any], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the blocks that the file is read in."""
    monkeypatch.setattr(chunks, "BLOCK_BYTES", block)
    path = tmp_path / "case.csv"
    path.write_bytes(case["content"].encode("latin-1"))
    batches = read(path, **case.get("options", {}))
    expected = [[v.encode("latin-1").decode() if v and "Ã" in v else v for v in row] for row in case["rows"]]
    got = [list(row.values())[:-1] for b in batches for row in b.data.to_pylist()]
    assert got == expected
    check(batches, case, path)


@pytest.mark.parametrize("block", [1, 11, 1 << 20])
@pytest.mark.parametrize("case", cases("json.yaml"))
def test_json(case: dict[str, Any], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "BLOCK_BYTES", block)
    path = tmp_path / ("case.ndjson" if case.get("lines") else "case.json")
    path.write_bytes(case["content"].encode("latin-1"))
    batches = read(path, **case.get("options", {}))
    last = batches[-1].data.schema
    assert json_types.dump_schema(pa.schema([f for f in last if f.name != "_origin"])) == case["types"]
    rows = [row for b in batches for row in b.data.drop_columns(["_origin"]).to_pylist()]
    assert [_plain(r) for r in rows] == case["rows"]
    check(batches, case, path)


def _plain(value: Any) -> Any:
    """Nulls of structs left out, and what JSON has no form for as text."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


@pytest.mark.parametrize(
    ("name", "content", "options", "error", "says"),
    [
        ("a.csv", "a,b,a\n1,2,3\n", {}, ConfigurationError, "names a column twice: a"),
        ("a.csv", 'a,"b\n', {}, ConfigurationError, "first record"),
        ("a.csv", "a,_origin\n1,2\n", {}, ConfigurationError, "_origin"),
        ("a.csv", "a\n1\n", {"records": "x"}, ConfigurationError, "records: not an option of csv"),
        ("a.dat", "a\n1\n", {}, ConfigurationError, "no suffix that tells its format"),
        ("a.json", '{"a": {"b": 1}}', {"records": "a.b"}, ConfigurationError, "not an array"),
        ("a.json", '{"a": {"b": 1}}', {"records": "a.c"}, NotFoundError, "no c in a"),
        ("a.json", '{"a": []}', {"records": "x[0].y"}, ConfigurationError, "not a path"),
        ("a.json", "7", {}, ConfigurationError, "not an array of records"),
        ("a.ndjson", "{}", {"columns": {"a": "int"}}, ConfigurationError, "no type 'int'"),
    ],
)
def test_what_cannot_be_read_at_all_is_an_error_that_says_so(
    name: str, content: str, options: dict[str, Any], error: type[EtlError], says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=says.replace("(", r"\(")):
        read(tmp_path / name, **options)


def test_a_latin_1_header_read_as_utf_8_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"gr\xf6\xdfe,b\n1,2\n")
    with pytest.raises(ConfigurationError, match="encoding: latin-1"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("block", [1000, 1 << 20])
def test_a_line_that_is_longer_than_the_limit_is_skipped_to_its_end(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it is, what is held of it is bounded, and the next line is read."""
    monkeypatch.setattr(chunks, "BLOCK_BYTES", block)
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n" + b"x" * 100_000 + b",y\n3,4\n")
    batches = read(tmp_path / "a.csv", max_record_bytes=2000)
    assert [r["a"] for b in batches for r in b.data.to_pylist()] == ["1", "3"]
    (told,) = unreadable(batches)
    assert told["line"] == 3
    assert 2000 < len(told["raw"]) <= 2000 + 2 * block


@pytest.mark.parametrize("content", [b"null\n", b'{"a":' * 50_000, b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n"])
def test_no_json_brings_the_process_down(content: bytes, tmp_path: Path) -> None:
    """Arrow's parser crashes on a null record and on deep nesting; neither reaches it."""
    (tmp_path / "a.ndjson").write_bytes(b'{"a": 1}\n' + content)
    assert in_a_process(read_two_records, tmp_path / "a.ndjson") == 0


@pytest.mark.parametrize("block", [1000, 1 << 20])
def test_what_stands_before_the_records_is_skipped(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time that grows with its size, whether it is many small values or one that is larger than a block."""
    import json
    import time

    monkeypatch.setattr(chunks, "BLOCK_BYTES", block)
    before = {f"key {n}": [{"x": "]}"}, n] for n in range(1000)} | {
        "large": {"text": '[{"' * 7_000, "list": [1] * 17_000}
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(before | {"rows": [{"a": 1}], "z": 1}, indent=1))
    start = time.process_time()
    (batch,) = read(path, records="rows")
    assert batch.data.column("a").to_pylist() == [1]
    assert time.process_time() - start < 3.3


def test_a_type_that_changes_behind_the_first_look_is_told_and_not_nulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key becomes a column; a value that does not fit the type landed so far is set aside with the reason."""
    monkeypatch.setattr("etl_resources.files.reading._SAMPLE_BYTES", 1)
    monkeypatch.setattr(chunks, "BLOCK_BYTES", 64)
    lines = ['{"a": 1}'] * 40 + ['{"a": 2.5}', '{"a": 3.0}', '{"a": 4, "new": "x"}'] + ['{"a": 5, "new": 7}'] * 3
    (tmp_path / "a.ndjson").write_text("\n".join(lines))
    batches = read(tmp_path / "a.ndjson")
    rows = [r for b in batches for r in b.data.to_pylist()]
    assert [u["raw"] for u in unreadable(batches)] == [b'{"a": 2.5}']
    assert "declare its type in `columns`" in unreadable(batches)[0]["reason"]
    assert [(r["a"], r["new"]) for r in rows[40:]] == [(3, None), (4, "x"), (5, "7"), (5, "7"), (5, "7")]


def test_types_once_landed_are_kept_by_the_position(tmp_path: Path) -> None:
    """A later file is read with the types of the first; floats without fractions stay floats, and text stays text."""
    source = FileSource()
    stream = Stream("x", FileOptions(path=str(tmp_path / "*.ndjson")))
    (tmp_path / "1.ndjson").write_text('{"price": 1.5, "code": "x", "n": 1}\n')
    first = list(source.read(stream, None))
    (tmp_path / "2.ndjson").write_text('{"price": 2, "code": 7, "n": 2}\n{"price": 3, "n": 2.5}\n')
    second = list(source.read(stream, first[-1].position))
    assert second[0].data.drop_columns(["_origin"]).to_pylist() == [{"price": 2.0, "code": "7", "n": 2}]
    assert [u["raw"] for u in unreadable(second)] == [b'{"price": 3, "n": 2.5}']
    assert second[0].data.schema == first[0].data.schema


def test_parquet_files_may_differ_in_width_and_not_in_kind(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from etl_resources.exceptions import SchemaConflictError

    pq.write_table(pa.table({"a": pa.array([1], pa.int32()), "s": [{"x": 1}]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": pa.array([2], pa.int64()), "s": [{"x": 2, "y": "z"}]}), tmp_path / "2.parquet")
    rows = [r for b in read(tmp_path / "*.parquet") for r in b.data.drop_columns(["_origin"]).to_pylist()]
    assert rows == [{"a": 1, "s": {"x": 1, "y": None}}, {"a": 2, "s": {"x": 2, "y": "z"}}]
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "3.parquet")
    with pytest.raises(SchemaConflictError, match=r"column a was int64 .* and is string"):
        read(tmp_path / "*.parquet")


def test_excel(tmp_path: Path) -> None:
    """Cells as text, of one sheet; a row that is wider than the header is set aside."""
    import datetime as dt

    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["not this sheet"])
    sheet = book.create_sheet("Data")
    for row in (
        ["title"], ["id", "when", None, "ok"], [1, dt.datetime(2024, 2, 29), 1.5, True], [],
        ["0042", dt.datetime(2024, 2, 29, 12, 30), None, "x"], [1, 2, 3, 4, 5],
    ):  # fmt: skip
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    batches = read(tmp_path / "a.xlsx", sheet="Data", skip_rows=1)
    assert batches[-1].data.schema.names == ["id", "when", "column_3", "ok", "_origin"]
    assert [list(r.values())[:-1] for b in batches for r in b.data.to_pylist()] == [
        ["1", "2024-02-29", "1.5", "true"],
        ["0042", "2024-02-29T12:30:00", None, "x"],
    ]
    (told,) = unreadable(batches)
    assert (told["line"], told["raw"]) == (6, b'["1", "2", "3", "4", "5"]')
    assert batches[-1].rows_read == 3
    with pytest.raises(NotFoundError, match="Sheet, Data"):
        read(tmp_path / "a.xlsx", sheet="Nope")


def test_runs_of_digits_are_found_wherever_they_lie() -> None:
    """The short cut over every eighth byte finds what a search of all bytes finds."""
    import random
    import re

    pick = random.Random(7)
    for _ in range(500):
        parts = ["a", '"', "1234", "7", ".5", "9" * pick.randint(1, 40), " "]
        text = "".join(pick.choice(parts) for _ in range(pick.randint(1, 25))).encode()
        assert _long_runs(text).tolist() == [m.start() for m in re.finditer(rb"[0-9./]{16,}", text)]


def test_an_escape_counts_only_if_it_is_not_escaped_itself() -> None:
    import numpy as np

    text = np.frombuffer(rb'\" \\" \\\" "\\\\x\\', np.uint8)
    assert escaped_positions(text, ord("\\")).tolist() == [1, 10]
    assert json_types.exact_as_float("0.30000000000000004")
    assert not json_types.exact_as_float(str(Decimal("0.300000000000000041")))


LAB9 = Path(os.environ.get("LAB9_DIR", Path(__file__).parents[3] / "shared" / "data" / "lab9"))


@pytest.mark.skipif(not LAB9.is_dir(), reason="the course data are not beside the checkout")
def test_the_products_of_a_course_with_twenty_different_keys() -> None:
    import json

    batches = read(LAB9 / "products.json", records="products")
    truth = json.loads((LAB9 / "products.json").read_text())["products"]
    rows = [r for b in batches for r in b.data.drop_columns(["_origin"]).to_pylist()]
    assert len(rows) == batches[-1].rows_read == len(truth) == 600
    assert len(batches[-1].data.schema.field("specifications").type) == 20
    for row, expected in zip(rows, truth, strict=True):
        if "weight" in expected["specifications"]:  # a number here and a text there: text, with the same digits
            expected["specifications"]["weight"] = str(expected["specifications"]["weight"])
        assert _plain(row) == _plain(expected)
