"""What MySQL, MariaDB and their driver raise, as errors of this project's tree."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)

_TLS = "give `ssl_ca`, or another `ssl_mode` (`disabled` only for a server on this machine)"

_PASSING = """
    1040 1053 1152 1158 1159 1160 1161 1184 1203 1205 1213 1226 1317 1412 1927 1969 3024
    2002 2003 2005 2006 2012 2013 2014 2055 4031
"""
_BY_NUMBER: dict[type[EtlError], dict[str, tuple[int, ...]]] = {
    CredentialsRejectedError: {
        # Refused, password expired, account locked, no such account for this host.
        "check user and password": (1045, 1698, 1130, 1820, 1862, 3118, 4151, 1275, 1524),
        "grant the user what it needs": (1044, 1142, 1143, 1227, 1370),
    },
    NotFoundError: {
        "check the name of the database": (1049,),
        "check the name of the table": (1146, 1109),
        "check the name of the column": (1054,),
    },
    UnavailableError: {
        # Gone, refused, or unable to answer for now; 1317 and 1927 are KILL, 1969 and 3024 a time-out of a statement.
        "": tuple(map(int, _PASSING.split())),
    },
    ConfigurationError: {_TLS: (2026, 3159), "rename one of the columns with AS": (1060,)},
}
_KINDS = {
    number: (kind, fix) for kind, fixes in _BY_NUMBER.items() for fix, numbers in fixes.items() for number in numbers
}


def translate(error: BaseException, where: str) -> EtlError:
    """Return the error of the tree that says the same."""
    cause = getattr(error, "original_exception", None) or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"the server's certificate is not trusted: {cause.verify_message}", where=where, fix=_TLS
        )
    number, message = _report(error)
    if number in _KINDS:
        kind, fix = _KINDS[number]
        return kind(message, where=where, fix=fix)
    if isinstance(cause, OSError):
        return UnavailableError(message, where=where)
    return EngineError(message, where=where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run driver calls, and nothing else, so that their errors come out as errors of the tree."""
    import pymysql

    try:
        yield
    except EtlError:
        raise
    except (pymysql.Error, OSError) as error:
        raise translate(error, where) from error


def _report(error: BaseException) -> tuple[int, str]:
    """Return the number and the text of an error, on one line."""
    arguments = error.args
    if len(arguments) >= 2 and isinstance(arguments[0], int):
        return arguments[0], re.sub(r"\s+", " ", str(arguments[1])).strip()
    return 0, re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
