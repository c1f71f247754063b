"""Names and values in PostgreSQL's SQL text: always through these functions."""

from __future__ import annotations


def quote(*names: str) -> str:
    """Return a name, qualified if there are several parts, as an identifier that stands for itself."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(value: str) -> str:
    """Return a string as a literal that means the same whatever `standard_conforming_strings` is set to."""
    quoted = value.replace("'", "''")
    if "\\" not in quoted:
        return f"'{quoted}'"
    doubled = quoted.replace("\\", "\\\\")
    return f" E'{doubled}'"


def columns(names: list[str] | tuple[str, ...], prefix: str = "") -> str:
    """Return a list of columns, each as `prefix."name"`."""
    return ", ".join(f"{prefix}{quote(name)}" for name in names)
