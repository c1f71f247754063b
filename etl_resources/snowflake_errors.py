"""What Snowflake and its client raise, as errors of this project's tree."""

from __future__ import annotations

import re
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

_GRANT = "grant the role what it needs, or name another `role`"
_BY_NUMBER: dict[int, tuple[type[EtlError], str]] = {
    606: (ConfigurationError, "name a `warehouse` that the role may use"),
    604: (UnavailableError, ""),  # the query was cancelled
    625: (UnavailableError, ""),
    630: (UnavailableError, "raise `statement_timeout`, or narrow the stream"),
    904: (NotFoundError, "check the name of the column"),
    2003: (NotFoundError, "check the name, and what the role may see"),
    2043: (NotFoundError, "check the name, and what the role may see"),
    3001: (CredentialsRejectedError, _GRANT),
    290404: (NotFoundError, "check `account`"),
}
_REFUSED = (
    r"incorrect username or password|jwt token is invalid|password (has )?expired|authentication (failed|attempt)"
    r"|user.*(disabled|locked)|not allowed to access snowflake|invalid oauth|mfa"
)
_CERTIFICATE = "the server's certificate is not trusted: check `host`, and the proxy between"
_BY_TEXT: tuple[tuple[str, type[EtlError], str], ...] = (
    (r"certificate|SSL: |ocsp", ConfigurationError, _CERTIFICATE),
    (_REFUSED, CredentialsRejectedError, "check user and password, key or token"),
    (r"access denied", CredentialsRejectedError, "check what `storage_integration` may write to"),
    (r"insufficient privileges|not authorized to|requested role", CredentialsRejectedError, _GRANT),
)


def translate(error: BaseException, where: str) -> EtlError:
    """Return the error of the tree that says the same."""
    from snowflake.connector import errors

    number = getattr(error, "errno", None) or 0
    message = re.sub(r"\s+", " ", str(getattr(error, "msg", None) or error)).strip()
    # The address of a part of a result carries the signature that opens it.
    message = re.sub(r"\?[^\s'\"()]+=[^\s'\"()]+", "?…", message)
    # While a connection is made, the number only says that; what was wrong stands in the text.
    known = None if 250000 <= number < 260000 else _BY_NUMBER.get(number)
    if known is not None:
        return known[0](message, where=where, fix=known[1])
    for pattern, kind, fix in _BY_TEXT:
        if re.search(pattern, message, re.IGNORECASE):
            return kind(message, where=where, fix=fix)
    if getattr(error, "sqlstate", None) == "42501":
        return CredentialsRejectedError(message, where=where, fix=_GRANT)
    asked = isinstance(error, errors.ProgrammingError | errors.NotSupportedError)
    if asked and not 250000 <= number < 300000:
        return EngineError(message, where=where)
    return UnavailableError(message, where=where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run calls of the client, and nothing else, so that their errors come out as errors of the tree."""
    from snowflake.connector.errors import Error

    try:
        yield
    except EtlError:
        raise
    except (Error, OSError, EOFError) as error:  # what requests raises is an OSError
        raise translate(error, where) from error
