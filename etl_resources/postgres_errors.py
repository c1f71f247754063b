"""What PostgreSQL and its drivers raise, as errors of this project's tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)


class RefusedStatementError(EngineError):
    """The server refused a value or a row: SQLSTATE class 22 (data) or 23 (constraint).

    `sqlstate`, `message` (the server's own) and the `constraint` or `column` it named, if any.
    """

    def __init__(self, message: str, *, where: str, sqlstate: str, diagnosis: Mapping[str, str]) -> None:
        super().__init__(message, where=where)
        self.sqlstate = sqlstate
        self.message = message
        self.constraint = diagnosis.get("CONSTRAINT_NAME", "")
        self.column = diagnosis.get("COLUMN_NAME", "")


# Class 22, but about the form of the message and not about a value in it.
_PROTOCOL = frozenset({"22P03", "22P04"})

_BY_SQLSTATE: tuple[tuple[str, type[EtlError], str], ...] = (
    ("28", CredentialsRejectedError, "check user and password"),
    ("42501", CredentialsRejectedError, "grant the user what it needs"),
    ("3D000", NotFoundError, "check the name of the database"),
    ("3F000", NotFoundError, "check the name of the schema"),
    ("42P01", NotFoundError, "check the name of the table"),
    ("42703", NotFoundError, "check the name of the column"),
    ("40", UnavailableError, ""),  # serialisation failure, deadlock, conflict with recovery on a replica
    ("08", UnavailableError, ""),
    ("53", UnavailableError, ""),  # too many connections, out of memory, disk full
    ("55P03", UnavailableError, ""),  # lock not available
    ("57", UnavailableError, ""),  # shut down, starting up, cancelled, timed out
    ("58", UnavailableError, ""),
)

# While a connection is being made, or rows are being streamed, the drivers give the server's text without its code.
_BY_TEXT: tuple[tuple[str, type[EtlError], str], ...] = (
    (r"authentication failed|no password supplied|role .* does not exist|no pg_hba\.conf entry|not permitted to log in",
     CredentialsRejectedError, "check user and password"),
    (r"database .* does not exist", NotFoundError, "check the name of the database"),
    (r"server does not support SSL|weak sslmode|root certificate|certificate verify failed|server certificate",
     ConfigurationError, "give `sslrootcert`, or another `sslmode` (`disable` only for a server on this machine)"),
    (r"canceling statement|terminating connection|server closed|starting up|shutting down", UnavailableError, ""),
    (r"could not connect|connection to server|translate host name|resolve host", UnavailableError, ""),
    (r"connection .*(closed|lost|refused|reset)|no connection|broken pipe|SSL SYSCALL", UnavailableError, ""),
    (r"could not receive|could not send|PQgetCopyData|timeout|timed out", UnavailableError, ""),
)  # fmt: skip


def translate(error: BaseException, where: str) -> EtlError:
    """Return the error of the tree that says the same."""
    sqlstate = getattr(error, "sqlstate", None) or ""
    diagnosis = _diagnosis(error)
    message = diagnosis.get("MESSAGE_PRIMARY") or _tidy(str(error))
    if detail := diagnosis.get("MESSAGE_DETAIL"):
        message = f"{message} ({detail})"
    if sqlstate[:2] in {"22", "23"} and sqlstate not in _PROTOCOL:
        return RefusedStatementError(message, where=where, sqlstate=sqlstate, diagnosis=diagnosis)
    for prefix, kind, fix in _BY_SQLSTATE if sqlstate else ():
        if sqlstate.startswith(prefix):
            return kind(message, where=where, fix=fix)
    if not sqlstate:
        for pattern, kind, fix in _BY_TEXT:
            if re.search(pattern, message, re.IGNORECASE):
                return kind(message, where=where, fix=fix)
        if "Failed to connect" in str(error) or "connection failed" in str(error):
            # A server that answers in another language, most likely: better to try again than to give up for good.
            return UnavailableError(message, where=where)
    return EngineError(message, where=where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run driver calls, and nothing else, so that their errors come out as errors of the tree."""
    import psycopg
    import pyarrow as pa
    from adbc_driver_manager import Error as AdbcError

    try:
        yield
    except EtlError:
        raise
    except (psycopg.Error, AdbcError, OSError, pa.ArrowException) as error:  # Arrow's: while rows are streamed
        raise translate(error, where) from error


def _diagnosis(error: BaseException) -> dict[str, str]:
    """Return the fields of the server's error report, by the names of libpq."""
    diag = getattr(error, "diag", None)
    if diag is not None:
        fields = {
            "MESSAGE_PRIMARY": diag.message_primary, "MESSAGE_DETAIL": diag.message_detail,
            "CONSTRAINT_NAME": diag.constraint_name, "COLUMN_NAME": diag.column_name,
        }  # fmt: skip
        return {name: value for name, value in fields.items() if value}
    details = getattr(error, "details", None) or ()
    return {_text(name).removeprefix("PG_DIAG_"): _text(value) for name, value in details}


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _tidy(message: str) -> str:
    """Return the driver's text without its own prefixes, on one line."""
    text = re.sub(r"^(\w+: )?(\[libpq\] )?(Failed to connect: )?", "", message.strip())
    return re.sub(r"\s+", " ", text)
