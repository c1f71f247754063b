"""Statements in the log: what they mean for a table whose rows are followed."""

from __future__ import annotations

import re
from typing import Literal

Meaning = Literal["begin", "commit", "rollback", "prepare", "decide", "nothing", "truncate", "broken", "altered"]

_COMMENT = re.compile(r"/\*(?![!M]).*?\*/|#[^\n]*|--\s[^\n]*", re.DOTALL)
_STRING = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_NAME = r"(?:`(?:[^`]|``)+`|\"(?:[^\"]|\"\")+\"|[\w$\u0080-\uffff]+)"
_TABLE = re.compile(rf"(?<![\w$@`\"])(?:({_NAME})\s*\.\s*)?({_NAME})")
_ROWS = re.compile(r"(INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH|CALL)\b", re.IGNORECASE)
_TRUNCATE = re.compile(rf"TRUNCATE\s+(?:TABLE\s+)?((?:{_NAME}\s*\.\s*)?{_NAME})", re.IGNORECASE)
_BREAKS = re.compile(
    r"DROP\s+(?!TEMPORARY\b)TABLES?\b|RENAME\s+TABLES?\b|CREATE\s+OR\s+REPLACE\s+TABLE\b"
    r"|ALTER\s+.*?TABLE\b.*?\b(?:RENAME\s+(?!COLUMN\b|INDEX\b|KEY\b)"
    r"|(?:TRUNCATE|DROP|EXCHANGE|CONVERT|DISCARD|IMPORT)\s+(?:PARTITION|TABLESPACE|TABLE)\b)",
    re.IGNORECASE | re.DOTALL,
)
_DROPS_DATABASE = re.compile(rf"DROP\s+(?:DATABASE|SCHEMA)\s+(?:IF\s+EXISTS\s+)?({_NAME})", re.IGNORECASE)


_CONTROL: dict[str, Meaning] = {
    "BEGIN": "begin", "START TRANS": "begin", "COMMIT": "commit", "ROLLBACK": "rollback", "SAVEPOINT": "nothing",
    "RELEASE SAVE": "nothing", "XA START": "prepare", "XA BEGIN": "prepare", "XA END": "nothing", "XA COMMIT": "decide",
    "XA ROLLBACK": "decide",
}  # fmt: skip


def plain(text: str) -> str:
    """Return a statement without comments and without what its strings say."""
    return _STRING.sub("''", _COMMENT.sub(" ", text)).strip()


def control(text: str) -> Meaning | None:
    """Return what a statement is that begins or ends a transaction; None: it is another."""
    if re.match(r"ROLLBACK\s+(WORK\s+)?TO\b", text, re.IGNORECASE):
        return "nothing"
    word = text[:12].upper()
    return next((means for begin, means in _CONTROL.items() if word.startswith(begin)), None)


def meaning(text: str, database: str, table: tuple[str, str], *, folded: bool) -> Meaning:
    """Return what a statement means for `table` (database and name): `nothing` where it is not about it.

    truncate: it is empty afterwards. broken: its rows are others than the log tells, it has to be read anew.
    altered: its columns may have changed. `folded`: the server takes no notice of upper and lower case in names.
    """
    text = plain(text)
    if (dropped := _DROPS_DATABASE.match(text)) is not None:
        return "broken" if _same(_bare(dropped[1]), table[0], folded=folded) else "nothing"
    if (emptied := _TRUNCATE.match(text)) is not None:
        return "truncate" if _mentions(emptied[1], database, table, folded=folded) else "nothing"
    is_break, is_rows = _BREAKS.match(text) is not None, _ROWS.match(text) is not None
    is_alter = re.match(r"(ALTER|CREATE)\b", text, re.IGNORECASE) is not None
    if not (is_break or is_rows or is_alter) or not _mentions(text, database, table, folded=folded):
        return "nothing"
    return "broken" if is_break or is_rows else "altered"


def _mentions(text: str, database: str, table: tuple[str, str], *, folded: bool) -> bool:
    for schema, name in _TABLE.findall(text):
        if _same(_bare(name), table[1], folded=folded) and _same(_bare(schema) or database, table[0], folded=folded):
            return True
    return False


def _same(one: str, other: str, *, folded: bool) -> bool:
    return one == other or (folded and one.lower() == other.lower())


def _bare(name: str) -> str:
    for mark in '`"':
        if name.startswith(mark):
            return name[1:-1].replace(mark * 2, mark)
    return name
