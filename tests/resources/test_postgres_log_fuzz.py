"""The change log of PostgreSQL under fire, and whether the fuzzer would notice if it were wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from etl_resources.changes import pgoutput, postgres_peek, postgres_reading, postgres_rows, postgres_slot
from etl_resources.changes.pgoutput import Decoded, Decoder
from etl_resources.exceptions import EtlError
from tests.resources.postgres_fuzz import Fuzz
from tests.servers.postgres import PostgresServer, running_postgres

_LOST = r"[ab]: \d+ of \d+|somebody else has read|cannot advance"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of its own: it is crashed, and commits wait for a standby that does not exist."""
    with running_postgres() as server:
        yield server


@pytest.mark.parametrize("seed", [1])
def test_every_change_is_told_once_and_the_replay_is_the_table(server: PostgresServer, seed: int) -> None:
    fuzz = Fuzz(server, seed, seconds=0.8, crashes=1)
    fuzz.run()
    assert fuzz.lake.kills
    assert fuzz.splits


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 110))
def test_every_change_is_told_once_for_long(server: PostgresServer, seed: int) -> None:
    Fuzz(server, seed, seconds=60, crashes=5).run()


def _consumed(patch: pytest.MonkeyPatch) -> None:
    statement = postgres_peek._statement

    def consuming(*args: Any, **more: Any) -> str:
        return statement(*args, **more).replace("slot_peek", "slot_get")

    patch.setattr(postgres_peek, "_statement", consuming)


def _slot_trusted(patch: pytest.MonkeyPatch) -> None:
    def trusting(streams: Any, cursors: Any, keys: Any, describe: Any) -> Decoder:
        return Decoder(streams, {}, keys, describe)

    patch.setattr(postgres_reading, "Decoder", trusting)


def _low_watermark(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(postgres_rows.Ranking, "note", lambda self, events: None)


def _rewritten(patch: pytest.MonkeyPatch, column: str, values: Callable[[pa.RecordBatch], pa.Array]) -> None:
    decode = Decoder.decode

    def mutant(self: Decoder, messages: pa.Array) -> list[Decoded]:
        found = []
        for one in decode(self, messages):
            at = one.data.schema.get_field_index(column)
            data = one.data.set_column(at, one.data.schema.field(at), values(one.data))
            found.append(pgoutput.Decoded(one.stream, data, one.read, one.repeated, one.unreadable))
        return found

    patch.setattr(Decoder, "decode", mutant)


def _seq_per_batch(patch: pytest.MonkeyPatch) -> None:
    _rewritten(patch, "_seq", lambda data: pa.array(range(data.num_rows), pa.int64()))


def _unchanged_is_null(patch: pytest.MonkeyPatch) -> None:
    _rewritten(patch, "_unchanged", lambda data: pa.nulls(data.num_rows, data.schema.field("_unchanged").type))


def _advanced_to_the_end(patch: pytest.MonkeyPatch) -> None:
    advance = postgres_slot.advance

    def mutant(link: Any, name: str, end: int) -> None:
        advance(link, name, postgres_slot.status(link, name).insert)

    patch.setattr(postgres_slot, "advance", mutant)


def _moved_forgotten(patch: pytest.MonkeyPatch) -> None:
    from etl_resources.changes import postgres_beside

    patch.setattr(postgres_beside, "moved", lambda *args: [])


@pytest.mark.parametrize(
    ("mutant", "sign"),
    [
        (_consumed, _LOST),
        pytest.param(_slot_trusted, "an event of the past|doubled", marks=pytest.mark.soak),
        pytest.param(_seq_per_batch, "one name, two events", marks=pytest.mark.soak),
        pytest.param(_low_watermark, "rows differ", marks=pytest.mark.soak),
        pytest.param(_unchanged_is_null, "rows differ", marks=pytest.mark.soak),
        pytest.param(_advanced_to_the_end, _LOST, marks=pytest.mark.soak),
        pytest.param(_moved_forgotten, "rows differ", marks=pytest.mark.soak),
    ],
)
def test_the_fuzzer_notices(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None], sign: str
) -> None:
    """A test of the test: each of these mistakes was made by somebody."""
    mutant(monkeypatch)
    with pytest.raises((AssertionError, EtlError), match=sign):
        _fuzzed(server)


def _fuzzed(server: PostgresServer) -> None:
    for seed in range(6):
        Fuzz(server, seed, seconds=2).run()
