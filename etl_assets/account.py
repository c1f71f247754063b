"""The row account: what a step read, and what became of every row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from etl_resources.exceptions import RowsNotConservedError


@dataclass(frozen=True)
class RowAccount:
    """`read = inserted + updated + deleted + unchanged + superseded + filtered[rule] + rejected[rule]`, in rows.

    `read` is counted where rows enter a step, the rest where they leave it, so that a row which is lost or doubled in
    between makes the two sides differ.
    """

    read: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    superseded: int = 0
    filtered: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    removed: int = 0
    """Rows that left the table without being read: their key is gone from a snapshot, or its newest version is
    filtered. They stand beside the equation."""

    @property
    def accounted(self) -> int:
        """The right-hand side of the equation."""
        single = self.inserted + self.updated + self.deleted + self.unchanged + self.superseded
        return single + sum(self.filtered.values()) + sum(self.rejected.values())

    @property
    def rejected_rows(self) -> int:
        """Rows rejected by any rule."""
        return sum(self.rejected.values())

    @property
    def balanced(self) -> bool:
        """Whether every row that was read has exactly one fate."""
        return self.read == self.accounted

    def check(self, *, where: str) -> RowAccount:
        """Return the account itself if it balances.

        Raises:
            RowsNotConservedError: it does not; names both sides.
        """
        if self.balanced:
            return self
        difference = self.read - self.accounted
        word = "lost" if difference > 0 else "too many"
        raise RowsNotConservedError(
            f"{abs(difference)} rows {word}: read {self.read}, accounted for {self.accounted} ({self})",
            where=where,
            fix="nothing was committed; this is a defect of a source, a step or the platform: please report it",
        )

    def __add__(self, other: RowAccount) -> RowAccount:
        def rules(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
            return {rule: left.get(rule, 0) + right.get(rule, 0) for rule in sorted({*left, *right})}

        return RowAccount(
            self.read + other.read,
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.deleted + other.deleted,
            self.unchanged + other.unchanged,
            self.superseded + other.superseded,
            rules(self.filtered, other.filtered),
            rules(self.rejected, other.rejected),
            self.removed + other.removed,
        )

    def __str__(self) -> str:
        parts = [f"{name} {getattr(self, name)}" for name in _SINGLE if getattr(self, name)]
        parts += [f"filtered:{rule} {rows}" for rule, rows in self.filtered.items()]
        parts += [f"rejected:{rule} {rows}" for rule, rows in self.rejected.items()]
        return " + ".join(parts) or "0"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the commit record."""
        return {
            "read": self.read,
            **{name: getattr(self, name) for name in _SINGLE},
            "filtered": dict(self.filtered),
            "rejected": dict(self.rejected),
            "removed": self.removed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RowAccount:
        """Read what `to_json` wrote."""
        return cls(**data)

    def metadata(self) -> dict[str, int | float | str]:
        """Return Dagster metadata: every figure as a number, so that the UI plots it, and the equation as text."""
        figures: dict[str, int | float | str] = {
            f"rows/{name}": getattr(self, name) for name in ("read", *_SINGLE, "removed")
        }
        figures["rows/filtered"] = sum(self.filtered.values())
        figures["rows/rejected"] = self.rejected_rows
        if self.read:
            figures["share/rejected"] = round(self.rejected_rows / self.read, 6)
        figures["row account"] = f"read {self.read} = {self}"
        return figures


_SINGLE = ("inserted", "updated", "deleted", "unchanged", "superseded")
