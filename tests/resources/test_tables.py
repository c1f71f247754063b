"""How tables are named, and how the batches of one read end, for all sources of tables."""

from __future__ import annotations

import pyarrow as pa
import pytest

from etl_resources.exceptions import ConfigurationError
from etl_resources.source import unreadable_schema
from etl_resources.tables import positioned, split_name

SCHEMA = pa.schema([("id", pa.int64())])


def records(*ids: int) -> tuple[pa.RecordBatch, None]:
    return pa.RecordBatch.from_pydict({"id": list(ids)}, schema=SCHEMA), None


@pytest.mark.parametrize(
    ("name", "quotes", "parts"),
    [
        ("t", '""', (None, "t")), ("s.T", '""', ("s", "T")), ('s."a.b ""c"""', '""', ("s", 'a.b "c"')),
        ('"x y".t', '""', ("x y", "t")), ("[a.b]]c].t", "[]", ("a.b]c", "t")), ("s.[t]", "[]", ("s", "t")),
        ("", '""', None), ("a.b.c", '""', None), ('"a', '""', None), ("a.", '""', None), ("[a", "[]", None),
    ],
)  # fmt: skip
def test_names_have_a_schema_or_none(name: str, quotes: str, parts: tuple[str | None, str] | None) -> None:
    if parts is None:
        with pytest.raises(ConfigurationError, match="names no table"):
            split_name(name, quotes)
    else:
        assert split_name(name, quotes) == parts


def test_only_the_last_batch_carries_the_position_and_every_record_counts() -> None:
    odd = pa.RecordBatch.from_pylist([{"reason": "r", "raw": b"x"}], schema=unreadable_schema())
    given = [records(1, 2), records(), (records()[0], odd), records(3), records()]

    batches = list(positioned(given, {"at": 1}, SCHEMA, keep_empty=True))

    assert [b.rows_read for b in batches] == [2, 3, 4]
    assert [b.position for b in batches] == [None, None, {"at": 1}]
    assert batches[1].unreadable is odd


def test_nothing_is_one_empty_batch_or_none() -> None:
    (batch,) = positioned([records()], {"at": 1}, SCHEMA, keep_empty=True)
    assert (batch.data.num_rows, batch.data.schema, batch.position) == (0, SCHEMA, {"at": 1})
    assert list(positioned([], {"at": 1}, SCHEMA, keep_empty=False)) == []
