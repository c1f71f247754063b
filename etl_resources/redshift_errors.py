"""What Redshift and Amazon's driver raise, as errors of this project's tree."""

from __future__ import annotations

import re
import ssl
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
from etl_resources.redshift_wire import ServerError

_GRANT = "grant the user what it needs"
_LOGIN = "check user and password, or whether `host` is what `iam` names"
_STORE = "check the role (may the cluster assume it, may it write there?), or the keys under `store`"
_CERTIFICATE = "check `host`, and the proxy between; SSL_CERT_FILE names a certificate authority of your own"

_REFUSED = (
    r"password authentication failed|authentication failed|no pg_hba\.conf entry|(role|user) .* does not exist"
)  # fmt: skip

_BY_TEXT: tuple[tuple[str, type[EtlError], str], ...] = (
    # What comes from S3 has no SQLSTATE of its own.
    (r"NoSuchBucket|bucket does not exist", NotFoundError, "check the bucket of `unload`"),
    (r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|not authorized to assume|ExpiredToken",
     CredentialsRejectedError, _STORE),
    (r"S3ServiceException|SlowDown|curlCode|S3 query exception", UnavailableError, ""),
    (_REFUSED, CredentialsRejectedError, _LOGIN),
    (r"database .* does not exist", NotFoundError, "check the name of the database"),
)  # fmt: skip
_BY_SQLSTATE: tuple[tuple[str, type[EtlError], str], ...] = (
    ("28", CredentialsRejectedError, _LOGIN),
    ("42501", CredentialsRejectedError, _GRANT),
    ("3D000", NotFoundError, "check the name of the database"),
    ("3F000", NotFoundError, "check the name of the schema"),
    ("42P01", NotFoundError, "check the name of the table"),
    ("42703", NotFoundError, "check the name of the column"),
    ("40", UnavailableError, ""),  # a conflict between serialisable transactions
    ("08", UnavailableError, ""),
    ("53", UnavailableError, ""),  # too many connections, out of memory, disk full
    ("55P03", UnavailableError, ""),
    ("57", UnavailableError, ""),  # shut down, starting up, cancelled
    ("58", UnavailableError, ""),
)


def reported(fields: Mapping[str, str], where: str) -> EtlError:
    """Return the error of the tree that says the same as a report of the server."""
    message = re.sub(r"\s+", " ", fields.get("M", "")).strip()
    if detail := re.sub(r"[\s-]+", " ", fields.get("D", "")).strip():
        message = f"{message} ({detail})"
    state = fields.get("C", "")
    for pattern, kind, fix in _BY_TEXT:
        if re.search(pattern, message, re.IGNORECASE):
            return kind(message, where=where, fix=fix)
    for prefix, kind, fix in _BY_SQLSTATE:
        if state.startswith(prefix):
            return kind(message, where=where, fix=fix)
    return EngineError(message, where=where)


def translate(error: BaseException, where: str) -> EtlError:
    """Return the error of the tree that says the same as what the driver, or the connection itself, raised."""
    if isinstance(error, ServerError):
        return reported(error.fields, where)
    told = next((a for a in error.args if isinstance(a, dict)), None)
    if told is not None:  # the driver hands on the server's report as it is
        return reported({str(k): str(v) for k, v in told.items()}, where)
    # An outer message of the driver says less than the error that it carries along.
    carried = [a for a in error.args if isinstance(a, BaseException)]
    cause = carried[0] if carried else error
    text = re.sub(r"\s+", " ", str(cause)).strip() or type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConfigurationError(f"the server's certificate is not trusted: {text}", where=where, fix=_CERTIFICATE)
    if "refuses SSL" in text:
        return ConfigurationError(
            "the server speaks no TLS", where=where, fix="sslmode: disable, for a server on this machine only"
        )
    if isinstance(cause, TimeoutError):
        return UnavailableError("the server did not answer in time", where=where)
    return UnavailableError(text, where=where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run calls of the driver or its connection, and nothing else, so that errors come out as errors of the tree."""
    from redshift_connector.error import Error

    try:
        yield
    except EtlError:
        raise
    except (Error, ServerError, OSError, EOFError) as error:
        raise translate(error, where) from error
