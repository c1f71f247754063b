"""Rows that the server refuses: found by halving, kept with the server's reason, handed over before the commit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from etl_resources.postgres_errors import RefusedStatementError
from etl_resources.target import refused_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from etl_resources.postgres_session import Session

_HAND_OVER = 1000
_RULES = {
    "23502": "not_null", "23503": "foreign_key", "23505": "unique", "23514": "check", "23P01": "exclusion",
    "22001": "length", "22003": "range", "22007": "format", "22008": "range", "22P02": "format", "22021": "encoding",
}  # fmt: skip
_DEPENDS_ON_OTHERS = frozenset({"23503", "23505", "23P01"})


class Refusals:
    """Collects refused rows of one load and hands them on; `counts` has the rows per rule."""

    def __init__(self, hand_over: Callable[[pa.Table], None] | None) -> None:
        self._hand_over = hand_over
        self._held: list[dict[str, str]] = []
        self.counts: Counter[str] = Counter()

    def add(self, record: str, error: RefusedStatementError) -> None:
        """Take one row, as JSON.

        Raises:
            RefusedStatementError: nobody takes refused rows, and they must not vanish.
        """
        if self._hand_over is None:
            raise error
        rule = rule_of(error)
        self.counts[rule] += 1
        self._held.append({"rule": rule, "reason": error.message, "record": record})
        if len(self._held) >= _HAND_OVER:
            self.flush()

    def flush(self) -> None:
        """Hand over what is held; called before the commit, and whenever a good many have come together."""
        import pyarrow as pa

        if self._held and self._hand_over is not None:
            self._hand_over(pa.Table.from_pylist(self._held, schema=refused_schema()))
            self._held = []


def rule_of(error: RefusedStatementError) -> str:
    """Return the name of the rule that was broken, such as `check.orders_amount_check`."""
    kind = _RULES.get(error.sqlstate, "constraint" if error.sqlstate.startswith("23") else "value")
    subject = error.constraint or error.column
    return f"{kind}.{subject}" if subject else kind


def apply_in_halves(
    session: Session,
    first: int,
    last: int,
    statement: Callable[[int, int], int],
    *,
    before_halving: Callable[[], object] = lambda: None,
) -> tuple[int, list[tuple[int, RefusedStatementError]]]:
    """Run `statement(first, last)` over a range of row numbers; return its count, and the rows that were refused.

    Where the server refuses a range, its halves are tried, down to single rows: a set-based statement for all the good
    ones, about `2 log2 n` small ones for a bad one. Rows that were refused only because another one had to come first
    (a parent row, a unique value that is given up) get further turns for as long as that helps. `before_halving` is
    called once, before the first part of a range is tried.
    """
    done = 0
    refused: list[tuple[int, RefusedStatementError]] = []
    ranges = [(first, last)]
    while ranges:
        low, high = ranges.pop()
        count, error = _attempt(session, low, high, statement)
        done += count
        if error is None:
            continue
        if low == high:
            refused.append((low, error))
            continue
        if (low, high) == (first, last):
            before_halving()
        middle = (low + high) // 2
        ranges += [(middle + 1, high), (low, middle)]
    before = -1
    while first != last and len(refused) != before:
        before, waiting = len(refused), refused
        refused = []
        for number, error in waiting:
            again: RefusedStatementError | None = error
            count = 0
            if error.sqlstate in _DEPENDS_ON_OTHERS:
                count, again = _attempt(session, number, number, statement)
            done += count
            if again is not None:
                refused.append((number, again))
    return done, refused


def _attempt(
    session: Session, first: int, last: int, statement: Callable[[int, int], int]
) -> tuple[int, RefusedStatementError | None]:
    try:
        with session.savepoint():
            return statement(first, last), None
    except RefusedStatementError as error:
        return 0, error


def record_of(row: dict[str, object]) -> str:
    """Return a row as JSON text."""
    return json.dumps(row, default=str, ensure_ascii=False)
