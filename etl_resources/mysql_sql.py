"""Names and values in MySQL's SQL text: always through these functions."""

from __future__ import annotations


def quote(*names: str) -> str:
    """Return a name, qualified if there are several parts, as an identifier that stands for itself."""
    return ".".join("`" + name.replace("`", "``") + "`" for name in names)


def unquoted(relation: str) -> tuple[str, str]:
    """Return database and table of what `quote` has made."""
    schema, table = relation[1:-1].split("`.`")
    return schema.replace("``", "`"), table.replace("``", "`")


def literal(value: str) -> str:
    """Return a string as a literal that means the same whatever `sql_mode` is set to."""
    return f"_utf8mb4 x'{value.encode().hex()}'" if "\\" in value else "'" + value.replace("'", "''") + "'"
