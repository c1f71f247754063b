"""Names and values in Redshift's SQL text: always through these functions."""

from __future__ import annotations


def quote(*names: str) -> str:
    """Return a name, qualified if there are several parts, as an identifier that stands for itself."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(value: str) -> str:
    """Return a string as a literal; Redshift reads a backslash in it as an escape."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
