"""How much is tried: little by `make test`, much by `make soak`, which runs what is marked `slow` or `soak`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import pytest

SOAK = bool(os.environ.get("ETL_SOAK"))


def examples(few: int) -> int:
    """Return how many random cases to try: `few`, unless ETL_EXAMPLES says how many."""
    return int(os.environ.get("ETL_EXAMPLES", few))


def some(values: Iterable[Any], keep: int) -> list[Any]:
    """Return parameters of which the first `keep` are run always, the others by `make soak`."""
    listed = list(values)
    return [*listed[:keep], *map(_soaked, listed[keep:])]


def _soaked(value: Any) -> Any:
    if isinstance(value, type(pytest.param())):
        return pytest.param(*value.values, id=value.id, marks=[*value.marks, pytest.mark.soak])
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.soak)
