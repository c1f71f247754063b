"""What is known of the compaction of a change log: up to which batch, and how many events it left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from etl_assets.ledger import Ledger
    from etl_resources.lake import Handle

COMPACTED_MARK = "compacted"
"""Delta `txn` of a bronze table: its events of batches up to this one are compacted."""


@dataclass(frozen=True)
class Compacted:
    """The newest compaction of a bronze table."""

    number: int
    upto: int
    """The newest batch that was compacted."""
    kept: int
    """Events of batches up to `upto` that are in the table."""
    at: datetime


def compaction_of(table: str) -> str:
    """Return the application id under which the compactions of a bronze table are committed and accounted for."""
    return f"{table}#compaction"


def compacted(ledger: Ledger, bronze: Handle) -> Compacted | None:
    """Return the newest compaction that `bronze` shows; None: there is none."""
    app_id = compaction_of(bronze.table.name)
    number = bronze.committed(app_id)
    if number == 0:
        return None
    ledger.copy(bronze, app_id)
    # The ledger may know newer ones by now.
    row = next(row for row in ledger.rows(app_id, number - 1) if row["version"] == number)
    return Compacted(number, bronze.committed(COMPACTED_MARK), int(row["unchanged"]), row["committed_at"])
