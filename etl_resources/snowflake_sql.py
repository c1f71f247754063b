"""Names and values in Snowflake's SQL text: always through these functions."""

from __future__ import annotations

import re

from etl_resources.exceptions import ConfigurationError


def quote(*names: str) -> str:
    """Return a name, qualified if there are several parts, as an identifier that stands for itself."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(value: str) -> str:
    """Return a string as a literal; Snowflake reads a backslash in it as an escape."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def resolved(name: str) -> tuple[str, ...]:
    """Return the parts of `database.schema.table`, `schema.table` or `table` as Snowflake understands them.

    A part in double quotes stands for itself, any other is in upper case.

    Raises:
        ConfigurationError: it is no such name.
    """
    part = r'"(?:[^"]|"")+"|[A-Za-z_][\w$]*'
    if not re.fullmatch(rf"(?:(?:{part})\.){{0,2}}(?:{part})", name):
        raise ConfigurationError(
            f"{name!r} names no table",
            fix="write `table`, `schema.table` or `database.schema.table`; what needs quotes in SQL needs them here",
        )
    parts = re.findall(part, name)
    return tuple(p[1:-1].replace('""', '"') if p.startswith('"') else p.upper() for p in parts)
