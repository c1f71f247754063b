"""Silver is a function of the rows of bronze: not of their cut into batches and runs, nor of the order of replays.

Hypothesis makes up rows (few keys, so that versions meet; missing keys, values that do not cast or break a rule,
filtered rows, deletions, ties and gaps in the order), and cuts, loads, replays, changes of the rules and rebuilds; a
model in plain Python says what the table must hold after each.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl_assets.account import RowAccount
from etl_assets.silver_replay import replay
from etl_checks.contract import load_contract
from tests.assets.doubles import Table, new_run
from tests.assets.truth import SCHEMA, STEPS, Row, Truth, write_contract
from tests.soaking import examples

SETTINGS = settings(
    max_examples=examples(2), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
ROWS = st.builds(
    lambda key, v, n, o, op, seq: {"id": key, "v": v, "n": n, "o": o, "_op": op, "_seq": seq},
    st.sampled_from([None, 1, 1, 2, 2, 3]),
    st.sampled_from(["a", "b", "b", "test", None]),
    st.sampled_from(["1", "2", "2", None, "-3", "x"]),
    st.sampled_from([None, 1, 1, 2, 3]),
    st.sampled_from(["read", "read", "read", "update", "delete"]),
    st.integers(1, 9),
)
NUMBERED = SCHEMA.append(pa.field("_seq", pa.int64()))
BATCHES = st.lists(ROWS, min_size=0, max_size=5)
CHANGES = st.one_of(
    st.tuples(st.just("load"), st.lists(BATCHES, min_size=1, max_size=3)),
    st.tuples(st.just("load"), st.lists(BATCHES, min_size=1, max_size=3)),
    st.tuples(st.just("land"), st.lists(BATCHES, min_size=1, max_size=2)),
    st.tuples(st.just("replay"), st.sampled_from(["all", "odd", "even"])),
    st.tuples(st.just("rules"), st.sampled_from([0, -5])),
    st.tuples(st.just("rebuild"), st.none()),
)
ODD = {"all": (0, 1), "odd": (1,), "even": (0,)}


class Play:
    """A table and its truth, changed together."""

    def __init__(self, *, ordered: bool, snapshot: bool = False, numbered: bool = False, commit_rows: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="etl-silver-"))
        self.truth = Truth(ordered, snapshot, numbered)
        self.contracts = {bound: load_contract(write_contract(self.folder, bound)) for bound in (0, -5)}
        order = ["o"] if ordered else []
        self.table = Table(self.folder, steps=STEPS, order=order, contract=self.contracts[0], snapshot=snapshot)
        self.commit_rows = commit_rows
        self.accounts = RowAccount()

    def close(self) -> None:
        shutil.rmtree(self.folder)

    def apply(self, change: tuple[str, Any]) -> None:
        kind, value = change
        if kind in ("load", "land"):
            for batch in value:
                self._land(batch)
        if kind == "load":
            self._refine()
        elif kind == "replay":
            self._replay(ODD[value])
        elif kind == "rules":
            self.table.contract, self.truth.minimum = self.contracts[value], value
        elif kind == "rebuild" and self.truth.judged:
            self.accounts += self.table.refine(full_refresh=True).account
            self.truth.refine(anew=True)
        if kind in ("load", "replay", "rebuild"):
            self.check()

    def _land(self, batch: list[Row]) -> None:
        source = self.table.source
        if self.truth.snapshot:  # a snapshot is everything that the source has now
            source._batches.clear()
        if not self.truth.numbered:
            batch = [{name: value for name, value in row.items() if name != "_seq"} for row in batch]
        source.give(batch, schema=NUMBERED if self.truth.numbered else SCHEMA)
        assert self.table.land().account.read == len(batch)
        self.truth.land(batch)

    def _refine(self) -> None:
        silver = self.table.silver
        silver.commit_rows = self.commit_rows
        self.accounts += silver.refine(new_run()).account
        self.truth.refine()

    def _replay(self, remainders: tuple[int, ...]) -> None:
        chosen = [error["error_id"] for error in self.table.errors() if error["row"] % 2 in remainders]
        account = replay(self.table.silver, new_run(), error_ids=chosen)
        assert account.read == len(chosen)
        assert account.balanced
        self.accounts += account
        self.truth.replay(lambda place: place[1] % 2 in remainders)

    def check(self) -> None:
        """Hold table, errors and ledger against the truth."""
        rows = sorted(self.table.rows(), key=lambda row: row["id"])
        assert rows == self.truth.table()
        errors = {(error["batch"], error["row"]) for error in self.table.errors()}
        assert errors == self.truth.open()
        ledger = self.table.silver.ledger.rows("silver/test/things")
        for row in ledger:
            single = sum(row[name] for name in ("inserted", "updated", "deleted", "unchanged", "superseded"))
            rules = {**json.loads(row["filtered"]), **json.loads(row["rejected"])}
            assert row["read"] == single + sum(rules.values())
        total = sum(row["inserted"] - row["deleted"] - row["removed"] for row in ledger)
        assert total == len(rows), "what came minus what went is what is there"
        assert sum(row["read"] for row in ledger) == self.accounts.read


def play(changes: list[tuple[str, Any]], **kind: Any) -> None:
    """Apply changes to a table and to its truth, comparing them after each, and a last load after all."""
    game = Play(**kind)
    try:
        for change in [*changes, ("load", [[]])]:
            game.apply(change)
    finally:
        game.close()


PLAYS = st.lists(CHANGES, min_size=1, max_size=6)


@pytest.mark.slow
@SETTINGS
@given(changes=PLAYS, ordered=st.booleans(), commit_rows=st.sampled_from([1, 4, 10**6]))
def test_the_newest_accepted_or_filtered_version_decides(
    changes: list[tuple[str, Any]], ordered: bool, commit_rows: int
) -> None:
    play(changes, ordered=ordered, commit_rows=commit_rows)


@pytest.mark.slow
@SETTINGS
@given(changes=PLAYS, ordered=st.booleans())
def test_the_number_that_the_source_gives_a_version_counts_and_not_its_arrival(
    changes: list[tuple[str, Any]], ordered: bool
) -> None:
    play(changes, ordered=ordered, numbered=True, commit_rows=4)


@pytest.mark.slow
@SETTINGS
@given(changes=PLAYS, ordered=st.booleans())
def test_a_key_that_vanishes_from_a_snapshot_leaves_the_table(changes: list[tuple[str, Any]], ordered: bool) -> None:
    play(changes, ordered=ordered, snapshot=True, commit_rows=10**6)
