"""The ledger follows the commits of a run at a distance, and has them all when the run has ended, however it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl_assets import landing
from etl_assets.bronze import Bronze
from etl_assets.ledger import Ledger
from etl_resources.exceptions import UnavailableError
from tests.assets.doubles import Table, new_run

PIECES = [[{"id": n}] for n in range(4)]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    made = Table(tmp_path)
    made.source.give(*PIECES)
    return made


def land(table: Table) -> None:
    """Commit every batch of the source by itself."""
    Bronze(table.lake, "test", table.stream, commit_rows=1).land(table.source, new_run())


def known(table: Table) -> list[int]:
    return [row["version"] for row in Ledger(table.lake).rows("bronze/test/things")]


def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of rows of every commit of the ledger."""
    given: list[int] = []
    write = Ledger.write

    def counted(self: Ledger, app_id: str, rows: list[dict[str, Any]], version: int) -> None:
        given.append(len(rows))
        write(self, app_id, rows, version)

    monkeypatch.setattr(Ledger, "write", counted)
    return given


def test_a_run_of_many_commits_is_copied_at_once(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    given = commits(monkeypatch)
    land(table)
    assert (known(table), given) == ([1, 2, 3, 4], [4])


def test_a_run_that_takes_long_is_copied_meanwhile(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "LEDGER_SECONDS", 0.0)
    given = commits(monkeypatch)
    land(table)
    assert (known(table), given) == ([1, 2, 3, 4], [1, 1, 1, 1])


def test_what_a_run_committed_before_it_failed_is_accounted_for(table: Table) -> None:
    table.source.break_at(3)
    with pytest.raises(ConnectionResetError):
        land(table)
    assert known(table) == [1, 2, 3]


@pytest.mark.parametrize(
    "error", [UnavailableError("the store is gone", where="ops/accounts"), OSError("no space left on device")]
)
def test_a_ledger_that_cannot_be_written_does_not_hide_the_error(
    table: Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    table.source.break_at(3)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "write", refuse)
        with pytest.raises(ConnectionResetError):
            land(table)
    assert "the accounts of bronze/test/things were not copied" in caplog.text
    assert known(table) == []
    table.source.break_at(None)
    land(table)
    assert known(table) == [1, 2, 3, 4]
