"""What a log looks like: the regular expressions of its entries, and the columns they become.

An entry is matched in stages, each with at most four groups: RE2 walks through so few in one pass, and is two or three
times as fast as with all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "integer", "number", "time", "iso_time", "yearless_time", "epoch", "request", "priority"]
REST = "_rest"

_QUOTED = r'(?:[^"\\]|\\.)*'
_FIELDS_PER_STAGE = 3


@dataclass(frozen=True, slots=True)
class Column:
    """One field of an entry: what type its text becomes, and which texts mean that there is nothing."""

    name: str
    kind: Kind = "text"
    formats: tuple[str, ...] = ()
    """Of a time: `strptime` formats, of which one has to fit."""
    nothing: tuple[str, ...] = ("-", "")


@dataclass(frozen=True, slots=True)
class LogFormat:
    """A format of text logs. A group `_rest` of a stage is what the next one matches, else that is all of the entry.

    With `literals`, the next one matches what is behind the fields of a stage and so many bytes of literal text.
    """

    name: str
    stages: tuple[str, ...]
    columns: tuple[Column, ...]
    start: str
    """Matches a line that begins an entry; any other line continues the entry before it."""
    multiline: bool = False
    """Entries may have continuation lines, unless the user says otherwise."""
    literals: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A column, the expression of its text, and the literal text behind it."""

    column: Column
    expression: str
    behind: str
    certain: bool = True
    """It can only end where the text behind it begins."""


def staged(before: str, fields: Sequence[Field]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the stages of entries that are `before`, then fields and literal texts by turns (as expressions).

    And the bytes of literal text of each stage but the last: the next one begins behind them. That is the same as one
    expression only where each field can end in one place alone; else there is only one stage.
    """
    if not all(field.certain for field in fields):
        return (f"^{before}{''.join(_captured(field) for field in fields)}$",), ()
    stages, literals = [], []
    for first in range(0, len(fields), _FIELDS_PER_STAGE):
        own = fields[first : first + _FIELDS_PER_STAGE]
        stages.append(f"^{before}{''.join(_captured(field) for field in own)}")
        literals.append(len(_literal("".join([before, *(field.behind for field in own)])).encode()))
        before = ""
    return (*stages[:-1], f"{stages[-1]}$"), tuple(literals[:-1])


def _literal(expression: str) -> str:
    """Return the text that an expression of literal text stands for."""
    return re.sub(r"\\(.)", r"\1", expression, flags=re.DOTALL)


def _captured(field: Field) -> str:
    return f"(?P<{field.column.name}>{field.expression}){field.behind}"


def _access(name: str, *, combined: bool) -> LogFormat:
    fields = [
        Field(Column("host"), r"[^ ]+", " "),
        Field(Column("ident"), r"[^ ]+", " "),
        Field(Column("user"), r"[^ ]+", r" \["),
        Field(Column("time", "time", ("%d/%b/%Y:%H:%M:%S %z",)), r"[^\]]+", r'\] "'),
        Field(Column("request", "request"), _QUOTED, '" '),
        Field(Column("status", "integer"), r"\d{3}|-", " "),
        Field(Column("bytes", "integer"), r"\d+|-", ' "' if combined else ""),
    ]
    if combined:
        fields.append(Field(Column("referer"), _QUOTED, '" "'))
        fields.append(Field(Column("agent"), _QUOTED, '"'))
    stages, literals = staged("", fields)
    columns = tuple(field.column for field in fields)
    return LogFormat(name, stages, columns, r"^[^ ]+ [^ ]+ [^ ]+ \[", literals=literals)


_APACHE_ERROR_TIME = r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? \d{4}"
_APACHE_ERROR = LogFormat(
    "apache_error",
    (
        rf"^\[(?P<time>{_APACHE_ERROR_TIME})\] \[(?:(?P<module>[\w-]*):)?(?P<level>\w+)\](?P<{REST}>(?s:.*))$",
        r"^(?: \[pid (?P<pid>\d+)(?::tid (?P<tid>\d+))?\])?(?: \[client (?P<client>[^\]]*)\])? (?P<message>(?s:.*))$",
    ),
    (
        Column("time", "time", ("%a %b %d %H:%M:%S.%f %Y", "%a %b %d %H:%M:%S %Y")),
        Column("module", nothing=("",)),
        Column("level", nothing=()),
        Column("pid", "integer", nothing=("",)),
        Column("tid", "integer", nothing=("",)),
        Column("client", nothing=("",)),
        Column("message", nothing=()),
    ),
    rf"^\[{_APACHE_ERROR_TIME}\] \[",
    multiline=True,
)

_NGINX_ERROR_TIME = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d"
_NGINX_ERROR = LogFormat(
    "nginx_error",
    (
        rf"^(?P<time>{_NGINX_ERROR_TIME}) \[(?P<level>\w+)\] (?P<{REST}>(?s:.*))$",
        r"^(?P<pid>\d+)#(?P<tid>\d+): (?:\*(?P<connection>\d+) )?(?P<message>(?s:.*))$",
    ),
    (
        Column("time", "time", ("%Y/%m/%d %H:%M:%S",)),
        Column("level", nothing=()),
        Column("pid", "integer"),
        Column("tid", "integer"),
        Column("connection", "integer", nothing=("",)),
        Column("message", nothing=()),
    ),
    rf"^{_NGINX_ERROR_TIME} \[",
    multiline=True,
)

_SYSLOG_TIME = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+"
_RFC3164 = LogFormat(
    "syslog_rfc3164",
    (
        rf"^(?:<(?P<priority>\d{{1,3}})>)?(?P<time>{_SYSLOG_TIME}) (?P<host>[^ ]+) (?P<{REST}>(?s:.*))$",
        r"^(?:(?P<app>[^\s:\[\]]+)(?:\[(?P<pid>[^\]]*)\])?: ?)?(?P<message>(?s:.*))$",
    ),
    (
        Column("priority", "priority", nothing=("",)),
        Column("time", "yearless_time"),
        Column("host", nothing=()),
        Column("app", nothing=("",)),
        Column("pid", nothing=("",)),
        Column("message", nothing=()),
    ),
    rf"^(?:<\d{{1,3}}>)?(?:{_SYSLOG_TIME}) ",
)

_SD = r'-|(?:\[[^ \]"=]+(?: [^ \]"=]+="(?:[^"\\\]]|\\.)*")*\])+'
_RFC5424 = LogFormat(
    "syslog_rfc5424",
    (
        rf"^<(?P<priority>\d{{1,3}})>1 (?P<time>[^ ]+) (?P<host>[^ ]+) (?P<{REST}>(?s:.*))$",
        rf"^(?P<app>[^ ]+) (?P<pid>[^ ]+) (?P<message_id>[^ ]+) (?P<{REST}>(?s:.*))$",
        rf"^(?P<structured_data>{_SD})(?: (?P<message>(?s:.*)))?$",
    ),
    (
        Column("priority", "priority"),
        Column("time", "iso_time"),
        Column("host"),
        Column("app"),
        Column("pid"),
        Column("message_id"),
        Column("structured_data"),
        Column("message", nothing=("",)),
    ),
    r"^<\d{1,3}>1 ",
)

FORMATS = {
    found.name: found
    for found in (
        _access("apache_common", combined=False),
        _access("apache_combined", combined=True),
        _APACHE_ERROR,
        _NGINX_ERROR,
        _RFC3164,
        _RFC5424,
    )
}
"""Formats that need nothing declared."""
