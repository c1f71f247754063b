"""What every source promises, over the same cases."""

from __future__ import annotations

import functools
import json
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.exceptions import CredentialsRejectedError, EtlError, NotFoundError
from etl_resources.source import Batch, Position, Source, Stream

from .cases import TYPE_CASES, TypeCase, many_rows, side_by_side
from .harness import SourceHarness
from .memory import measure

PROVENANCE = {"_op", "_seq", "_origin"}


def read(source: Source, stream: Stream, since: Position | None = None, *, batch_rows: int = 1000) -> list[Batch]:
    batches = list(source.read(stream, since, batch_rows=batch_rows))
    counts = [b.rows_read for b in batches]
    assert counts == sorted(counts), "rows_read is a running count"
    delivered = sum(b.data.num_rows + (b.unreadable.num_rows if b.unreadable else 0) + b.repeated for b in batches)
    assert delivered == (counts[-1] if counts else 0), "rows_read counts every record, once"
    if batches:
        assert batches[-1].position is not None, "the last batch always carries a position"
        for batch in batches:
            assert batch.position is None or json.loads(json.dumps(batch.position)) == batch.position
    return batches


def rows_of(batches: list[Batch]) -> pa.Table:
    tables = [pa.Table.from_batches([b.data]) for b in batches]
    table = pa.concat_tables(tables, promote_options="default")
    return table.select([n for n in table.column_names if n not in PROVENANCE])


def ids_of(batches: list[Batch]) -> list[int]:
    return [int(i) for b in batches for i in b.data.column("id").to_pylist()]


def values_of(harness: SourceHarness, case: TypeCase) -> pa.ChunkedArray:
    """Return what the harness reads of a case; one that it declares as a gap is read alone, so that only it fails."""
    if harness.types_in_one and f"types.{case.name}" not in harness.declared_gaps():
        return all_types(harness).column(f"value_{case.name}").slice(0, len(case.values))
    source, stream = harness.fill(f"types_{case.name}", case.table())
    return rows_of(read(source, stream)).sort_by([("id", "ascending")]).column("value")


@functools.cache
def all_types(harness: SourceHarness) -> pa.Table:
    possible = [case for case in TYPE_CASES if f"types.{case.name}" not in harness.declared_gaps()]
    source, stream = harness.fill("types", side_by_side(possible))
    return rows_of(read(source, stream)).sort_by([("id", "ascending")])


@pytest.mark.case("types")
def test_values_arrive_as_they_are(source_harness: SourceHarness, type_case: TypeCase) -> None:
    """No digit, zone, microsecond, byte or null is lost or made up."""
    got = values_of(source_harness, type_case).combine_chunks()
    expected = source_harness.received(type_case)
    assert got.type == expected.type
    assert got.to_pylist() == expected.to_pylist()


@pytest.mark.case("schema")
def test_the_schema_is_known_without_reading_all(source_harness: SourceHarness) -> None:
    source, stream = source_harness.fill("schema", many_rows(10))
    schema = source.read_schema(stream)
    assert [n for n in schema.names if n not in PROVENANCE] == ["id", "name", "amount", "note"]
    assert schema.field("id").type == rows_of(read(source, stream)).schema.field("id").type


@pytest.mark.case("zero_rows")
def test_a_stream_without_rows_is_no_error(source_harness: SourceHarness) -> None:
    source, stream = source_harness.fill("zero_rows", many_rows(0))
    batches = read(source, stream)
    assert sum(b.data.num_rows for b in batches) == 0


@pytest.mark.case("one_row")
def test_one_row_arrives_once(source_harness: SourceHarness) -> None:
    source, stream = source_harness.fill("one_row", many_rows(1))
    assert ids_of(read(source, stream)) == [0]


@pytest.mark.case("batches")
def test_no_row_is_lost_or_doubled_between_batches(source_harness: SourceHarness) -> None:
    source, stream = source_harness.fill("batches", many_rows(4_007))
    batches = read(source, stream, batch_rows=500)
    assert len(batches) > 1
    assert sorted(ids_of(batches)) == list(range(4_007))


@pytest.mark.case("resume")
def test_what_was_read_is_not_read_again_and_what_came_since_is(source_harness: SourceHarness) -> None:
    """Holds after the last batch, and after every batch in the middle that carries a position."""
    source, stream = source_harness.fill("resume", many_rows(1500))
    first = read(source, stream, batch_rows=500)
    end = first[-1].position
    assert ids_of(read(source, stream, end)) == [], "nothing new: nothing is read"
    source_harness.extend("resume", many_rows(50, first=1500))
    for n, batch in enumerate(first):
        if batch.position is not None:
            resumed = ids_of(first[: n + 1]) + ids_of(read(source, stream, batch.position, batch_rows=500))
            assert sorted(resumed) == list(range(1550)), f"resumed after batch {n}"


@pytest.mark.case("bounded_memory")
@pytest.mark.slow
def test_memory_depends_on_the_batch_and_not_on_the_stream(source_harness: SourceHarness) -> None:
    """Peak memory of a stream is that of a quarter of it."""
    sizes = source_harness.memory_rows
    more = source_harness.memory_text
    opened = [source_harness.fill(f"memory_{rows}", many_rows(rows, more=more)) for rows in sizes]
    few, many = measure(*opened, batch_rows=2_048 if more else 16_384)
    assert (few["rows"], many["rows"]) == (few["rows_read"], many["rows_read"]) == sizes
    assert many["growth_mb"] <= few["growth_mb"] * 1.2 + 12


@pytest.mark.case("goes_away")
def test_a_source_that_goes_away_is_an_error_and_not_an_end(source_harness: SourceHarness) -> None:
    data = many_rows(source_harness.away_rows)
    with source_harness.goes_away("goes_away", data) as (source, stream):
        seen: list[Batch] = []
        with pytest.raises(EtlError) as caught:
            seen.extend(source.read(stream, None, batch_rows=1000))
    assert caught.value.what
    assert caught.value.where
    assert sum(b.data.num_rows for b in seen) < data.num_rows


@pytest.mark.case("wrong_credentials")
def test_wrong_credentials_are_said_to_be_wrong(source_harness: SourceHarness) -> None:
    source, stream = source_harness.wrong_credentials()
    with pytest.raises(CredentialsRejectedError):
        list(source.read(stream, None))
    with pytest.raises(CredentialsRejectedError):
        source.read_schema(stream)


@pytest.mark.case("missing")
def test_what_is_not_there_is_named(source_harness: SourceHarness) -> None:
    source, stream = source_harness.missing()
    for attempt in (lambda: list(source.read(stream, None)), lambda: source.read_schema(stream)):
        with pytest.raises(NotFoundError) as caught:
            attempt()
        assert "no_such" in str(caught.value)


@pytest.mark.case("missing_column")
def test_a_column_that_is_not_there_is_named(source_harness: SourceHarness) -> None:
    source, stream = source_harness.missing_column("missing_column", many_rows(5))
    with pytest.raises(NotFoundError, match="no_such"):
        list(source.read(stream, None))


@pytest.mark.case("abandoned")
def test_a_read_that_is_abandoned_leaves_nothing_open(source_harness: SourceHarness) -> None:
    """A consumer may stop at any batch; the next read starts from its position as if nothing had been."""
    source, stream = source_harness.fill("abandoned", many_rows(2000))
    batches: Any = source.read(stream, None, batch_rows=500)
    next(batches)
    batches.close()
    assert sorted(ids_of(read(source, stream))) == list(range(2000))
