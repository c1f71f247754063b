"""What every target promises, over the same cases."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from etl_resources.exceptions import CredentialsRejectedError, NotFoundError, UnavailableError
from etl_resources.target import CommitToken, Counts, Load, Mode

from .cases import MANY_SCHEMA, TYPE_CASES, TypeCase, many_rows, side_by_side
from .harness import TargetHarness


def write(
    harness: TargetHarness, name: str, data: pa.Table, mode: Mode, version: int, *,
    on_refused: Callable[[pa.Table], None] | None = None,
) -> Counts:  # fmt: skip
    target, options = harness.open(name)
    load = Load(
        options=options, schema=data.schema, mode=mode, token=CommitToken(f"test/{name}", version, f"run-{version}"),
        key=("id",), on_refused=on_refused,
    )  # fmt: skip
    counts = target.write(load, data.to_batches(max_chunksize=1000))
    if not counts.already_committed:
        assert counts.read == data.num_rows
    assert counts.read == (
        counts.inserted + counts.updated + counts.unchanged + counts.superseded + sum(counts.rejected.values())
    ), "the account balances"
    return counts


def ids(harness: TargetHarness, name: str, schema: pa.Schema = MANY_SCHEMA) -> list[int]:
    return sorted(int(i) for i in harness.visible(name, schema).column("id").to_pylist())


def needs(harness: TargetHarness, mode: Mode) -> None:
    if mode not in harness.target_type.modes:
        pytest.skip(f"{harness.name} declares no mode {mode}")


def values_of(harness: TargetHarness, case: TypeCase) -> pa.ChunkedArray:
    """Return what is stored of a case; what the target declares as a gap is written alone: only it fails."""
    if harness.types_in_one and f"types.{case.name}" not in harness.declared_gaps():
        return all_types(harness).column(f"value_{case.name}").slice(0, len(case.values))
    return written_and_read(harness, f"types_{case.name}", case.table()).column("value")


@functools.cache
def all_types(harness: TargetHarness) -> pa.Table:
    possible = [case for case in TYPE_CASES if f"types.{case.name}" not in harness.declared_gaps()]
    return written_and_read(harness, "types", side_by_side(possible))


def written_and_read(harness: TargetHarness, name: str, data: pa.Table) -> pa.Table:
    assert write(harness, name, data, "replace", 1).inserted == data.num_rows
    return harness.visible(name, data.schema).sort_by([("id", "ascending")])


@pytest.mark.case("types")
def test_values_come_back_as_they_were(target_harness: TargetHarness, type_case: TypeCase) -> None:
    got = values_of(target_harness, type_case).combine_chunks()
    expected = target_harness.stored(type_case)
    assert got.type == expected.type
    assert got.to_pylist() == expected.to_pylist()


@pytest.mark.case("zero_rows")
def test_a_load_without_rows_is_a_load(target_harness: TargetHarness) -> None:
    """Its token is committed, and a replace by nothing leaves nothing."""
    write(target_harness, "zero_rows", many_rows(3), "replace", 1)
    counts = write(target_harness, "zero_rows", many_rows(0), "replace", 2)
    assert (counts.read, counts.inserted, counts.deleted) == (0, 0, 3)
    assert ids(target_harness, "zero_rows") == []
    target, options = target_harness.open("zero_rows")
    assert target.committed_version(options, "test/zero_rows") == 2


@pytest.mark.case("replace")
def test_replace_leaves_the_rows_of_the_load_and_no_other(target_harness: TargetHarness) -> None:
    needs(target_harness, "replace")
    assert write(target_harness, "replace", many_rows(2500), "replace", 1).inserted == 2500
    write(target_harness, "replace", many_rows(10, first=2495), "replace", 2)
    assert ids(target_harness, "replace") == list(range(2495, 2505))


@pytest.mark.case("append")
def test_append_keeps_what_was_there(target_harness: TargetHarness) -> None:
    needs(target_harness, "append")
    write(target_harness, "append", many_rows(1500), "append", 1)
    counts = write(target_harness, "append", many_rows(5, first=1500), "append", 2)
    assert (counts.inserted, counts.deleted) == (5, 0)
    assert ids(target_harness, "append") == list(range(1505))


@pytest.mark.case("upsert")
def test_upsert_counts_what_it_did(target_harness: TargetHarness) -> None:
    """Inserted, updated, unchanged and superseded are told apart, and the last version of a key wins."""
    needs(target_harness, "upsert")
    old = many_rows(10)
    write(target_harness, "upsert", old, "upsert", 1)
    changed = old.slice(3, 2).set_column(1, "name", pa.array(["changed 3", "changed 4"]))
    again = old.slice(4, 1).set_column(1, "name", pa.array(["changed again"]))
    load = pa.concat_tables([old.slice(0, 3), changed, again, many_rows(2, first=10)])
    counts = write(target_harness, "upsert", load, "upsert", 2)
    assert (counts.inserted, counts.updated, counts.unchanged, counts.superseded) == (2, 2, 3, 1)
    rows = {r["id"]: r["name"] for r in target_harness.visible("upsert", MANY_SCHEMA).to_pylist()}
    assert sorted(rows) == list(range(12))
    assert (rows[3], rows[4], rows[9]) == ("changed 3", "changed again", "customer number 9")


@pytest.mark.case("same_token")
@pytest.mark.parametrize("mode", ["replace", "append", "upsert"])
def test_the_same_token_twice_changes_nothing(target_harness: TargetHarness, mode: Mode) -> None:
    needs(target_harness, mode)
    name = f"same_token_{mode}"
    first = write(target_harness, name, many_rows(5), mode, 7)
    again = write(target_harness, name, many_rows(3, first=100), mode, 7)
    assert again == replace(first, already_committed=True), "the account of the load that had the token"
    older = write(target_harness, name, many_rows(3, first=100), mode, 6)
    assert older.already_committed
    assert older.read == 0
    assert ids(target_harness, name) == list(range(5))
    target, options = target_harness.open(name)
    assert target.committed_version(options, f"test/{name}") == 7
    assert target.committed_version(options, "test/of_someone_else") is None


@pytest.mark.case("fails_half_way")
@pytest.mark.parametrize("mode", ["replace", "append", "upsert"])
def test_a_load_that_fails_half_way_shows_nothing(target_harness: TargetHarness, mode: Mode) -> None:
    """Neither its rows nor its token nor leftovers are there; the same load goes through afterwards."""
    needs(target_harness, mode)
    name = f"fails_{mode}"
    write(target_harness, name, many_rows(5), mode, 1)

    def breaking() -> Iterator[pa.RecordBatch]:
        yield from many_rows(20_000, first=5).to_batches(max_chunksize=1000)
        raise UnavailableError("the lake went away", where="test")

    target, options = target_harness.open(name)
    load = Load(options, MANY_SCHEMA, mode, CommitToken(f"test/{name}", 2, "run-2"), ("id",))
    with pytest.raises(UnavailableError, match="the lake went away"):
        target.write(load, breaking())
    assert ids(target_harness, name) == list(range(5))
    assert target.committed_version(options, f"test/{name}") == 1
    assert target_harness.leftovers(name) == []
    write(target_harness, name, many_rows(3, first=5), mode, 2)
    assert set(range(5, 8)) <= set(ids(target_harness, name))


@pytest.mark.case("refused_rows")
def test_a_row_that_is_refused_is_handed_over_and_the_others_load(target_harness: TargetHarness) -> None:
    target_harness.constrain("refused", MANY_SCHEMA, "append")
    refused: list[pa.Table] = []
    data = pa.concat_tables([many_rows(2, first=-2), many_rows(2500)])
    counts = write(target_harness, "refused", data, "append", 1, on_refused=refused.append)
    assert (counts.inserted, sum(counts.rejected.values())) == (2500, 2)
    assert ids(target_harness, "refused") == list(range(2500))
    table = pa.concat_tables(refused)
    assert table.num_rows == 2
    assert set(table.column("rule").to_pylist()) == set(counts.rejected)
    assert all(table.column("reason").to_pylist())
    assert "customer number -2" in table.column("record").to_pylist()[0]


@pytest.mark.case("wrong_credentials")
def test_wrong_credentials_are_said_to_be_wrong(target_harness: TargetHarness) -> None:
    target, options = target_harness.wrong_credentials()
    load = Load(options, MANY_SCHEMA, "append", CommitToken("test/credentials", 1, "run"), ("id",))
    with pytest.raises(CredentialsRejectedError):
        target.write(load, many_rows(1).to_batches())


@pytest.mark.case("missing")
def test_what_is_not_there_is_named(target_harness: TargetHarness) -> None:
    target, options = target_harness.missing()
    load = Load(options, MANY_SCHEMA, "append", CommitToken("test/missing", 1, "run"), ("id",))
    with pytest.raises(NotFoundError, match="no_such"):
        target.write(load, many_rows(1).to_batches())
