"""Names and values in T-SQL text: always through these functions."""

from __future__ import annotations


def quote(*names: str) -> str:
    """Return a name, qualified if there are several parts, as an identifier that stands for itself."""
    return ".".join("[" + name.replace("]", "]]") + "]" for name in names)


def literal(value: str) -> str:
    """Return a string as an nvarchar literal; T-SQL knows no other escape than the doubled quote."""
    return "N'" + value.replace("'", "''") + "'"
