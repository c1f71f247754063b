"""Formats that are declared: of Nginx by `log_format`, of Python by `format`, any by a pattern of named groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from etl_resources.exceptions import ConfigurationError
from etl_resources.logs.formats import Column, Field, LogFormat, staged

NGINX_DEFAULT = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'
)
PYTHON_DEFAULT = "%(levelname)s:%(name)s:%(message)s"

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_ATTRIBUTE = re.compile(r"%\((\w+)\)([-#0 +]*)(\d*)(?:\.\d+)?([sdf])")
_NGINX = {
    "time_local": Column("time_local", "time", ("%d/%b/%Y:%H:%M:%S %z",)),
    "time_iso8601": Column("time_iso8601", "iso_time"),
    "msec": Column("msec", "epoch"),
    "request": Column("request", "request"),
    **{
        name: Column(name, "integer")
        for name in (
            "status", "body_bytes_sent", "bytes_sent", "bytes_received", "request_length", "content_length",
            "connection", "connection_requests", "server_port", "remote_port", "pid",
        )
    },
    **{name: Column(name, "number") for name in ("request_time", "connection_time", "gzip_ratio")},
}  # fmt: skip
_PYTHON = {
    "asctime": Column("asctime", "time", ("%Y-%m-%d %H:%M:%S,%g", "%Y-%m-%d %H:%M:%S")),
    "created": Column("created", "epoch"),
    **{name: Column(name, "integer", nothing=()) for name in ("levelno", "lineno", "process", "thread")},
    **{name: Column(name, "number", nothing=()) for name in ("msecs", "relativeCreated")},
}
_UPSTREAMS = r"\S+(?:(?:,| :) \S+)*"
_BARE_REQUEST = r"\S+ .*? HTTP/[\d.]+|\S*"
_SHORTEST = "(?s:.*?)"
_UNCERTAIN = {_UPSTREAMS, _BARE_REQUEST, _SHORTEST}
_ASCTIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:,\d{3})?"


def nginx_format(declared: str | None) -> LogFormat:
    """Return the format of a `log_format` string; None: the one that Nginx has by default, `combined`.

    Raises:
        ConfigurationError: it cannot be read back: no variable, one twice, or two without text between them.
    """
    text = declared or NGINX_DEFAULT
    found = [(m.start(), m.end(), m[1] or m[2]) for m in _VARIABLE.finditer(text)]

    def field(name: str, behind: str, before: str) -> tuple[Column, str]:
        column = _NGINX.get(name, Column(name))
        if name.startswith("upstream_") and behind[:1] == " ":
            # One value for each server that was asked, with commas or colons between.
            return column, _UPSTREAMS
        if name == "request" and behind[:1] == " ":
            return column, _BARE_REQUEST
        return column, _up_to(behind, quoted=before.endswith('"'))

    return _compiled("nginx", text, found, field)


def python_format(declared: str | None, time_formats: Mapping[str, str]) -> LogFormat:
    """Return the format of a `logging` format string (`%` style); None: `logging.BASIC_FORMAT`; raises as above."""
    text = declared or PYTHON_DEFAULT
    matches = list(_ATTRIBUTE.finditer(text))
    padded = {m[1] for m in matches if m[3]}

    def field(name: str, behind: str, _: str) -> tuple[Column, str]:
        column = _PYTHON.get(name, Column(name, nothing=()))
        if name == "asctime":
            expression = _SHORTEST if name in time_formats else _ASCTIME
        elif name == "levelname":
            expression = r"[A-Z][A-Z0-9_]*|Level \d+"
        elif name == "message":
            expression = _SHORTEST if behind else "(?s:.*)"
        else:
            expression = _up_to(behind, quoted=False) if not padded & {name} else r"\S+"
        return column, expression

    found = [(m.start(), m.end(), m[1]) for m in matches]
    return _compiled("python", text, found, field, padded=padded, multiline=True)


def pattern_format(pattern: str) -> LogFormat:
    """Return the format of a pattern with named groups.

    Raises:
        ConfigurationError: RE2 does not know such a pattern, or it has no named groups.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        kind = pc.extract_regex(pa.array([], pa.string()), pattern).type
    except pa.ArrowInvalid as error:
        raise ConfigurationError(
            f"pattern: {error}", where=pattern,
            fix="write it for RE2, which has no look-around or back-references, every group `(?P<name>…)` or `(?:…)`",
        ) from None  # fmt: skip
    columns = tuple(Column(field.name, nothing=("",)) for field in kind)
    if not columns:
        raise ConfigurationError("pattern: has no named groups", where=pattern, fix="write `(?P<name>…)`")
    return LogFormat("pattern", (f"^(?s:{pattern})$",), columns, f"^(?:{pattern})")


def _up_to(behind: str, *, quoted: bool) -> str:
    """Return an expression for a value that ends where the literal text behind it begins."""
    if quoted and behind.startswith('"'):
        return r'(?:[^"\\]|\\.)*'
    return rf"[^{re.escape(behind[0])}]*" if behind else ".*"


def _compiled(
    name: str,
    text: str,
    found: list[tuple[int, int, str]],
    field: Callable[[str, str, str], tuple[Column, str]],
    *,
    padded: frozenset[str] | set[str] = frozenset(),
    multiline: bool = False,
) -> LogFormat:
    names = [variable for *_, variable in found]
    if not found or len(set(names)) < len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        what = f"{', '.join(twice)} comes twice" if twice else "names no field"
        raise ConfigurationError(f"log_format: {what}", where=text, fix="give the string as the server has it")
    fields = []
    for n, (start, end, variable) in enumerate(found):
        behind = text[end : found[n + 1][0] if n + 1 < len(found) else len(text)]
        if not behind and n + 1 < len(found):
            raise ConfigurationError(
                f"log_format: nothing stands between {variable} and {names[n + 1]}", where=text,
                fix="put a text between them, so that it can be told where one ends",
            )  # fmt: skip
        column, expression = field(variable, behind, text[:start])
        pad = " *" if variable in padded else ""
        certain = not pad and expression not in _UNCERTAIN and bool(behind or n + 1 == len(found))
        fields.append(Field(column, expression, pad + re.escape(behind), certain))
    before = re.escape(text[: found[0][0]])
    # Only the first field tells the line that begins an entry, with what stands around it.
    begins = f"^{before}(?:{fields[0].expression}){fields[0].behind}"
    stages, literals = staged(before, fields)
    return LogFormat(name, stages, tuple(f.column for f in fields), begins, multiline, literals)
