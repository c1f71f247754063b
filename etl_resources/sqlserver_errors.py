"""What SQL Server and its driver raise, as errors of this project's tree."""

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

_TRUST = (
    "let OpenSSL trust the authority that signed it (the system's store, or SSL_CERT_FILE), give"
    " `hostname_in_certificate` where only the name differs, or `trust_server_certificate: true` to check nothing"
)
_NO_ENCRYPTION = "let the server encrypt, or give `encrypt: 'no'` for a server on the same machine"

# The driver hands on the server's text and its own words for the SQLSTATE, and neither number nor state.
_BY_TEXT: tuple[tuple[str, type[EtlError], str], ...] = (
    (r"connection string", ConfigurationError,
     "check the settings of the connection; a password has at most 128 characters"),
    (r"SSL Provider.*(reset|EOF|eof|[Tt]imeout|closed)", UnavailableError, ""),
    (r"script upgrade mode|not currently available|[Tt]ry again|[Rr]etry the connection", UnavailableError, ""),
    (r"certificate|SSL routines|SSL Provider", ConfigurationError, _TRUST),
    (r"[Ee]ncryption not supported", ConfigurationError, _NO_ENCRYPTION),
    (r"Cannot open database|[Dd]atabase '.*' does not exist", NotFoundError, "check the name of the database"),
    (r"Login failed|Invalid authorization specification", CredentialsRejectedError, "check user and password"),
    (r"permission was denied", CredentialsRejectedError, "grant the user what it needs"),
    (r"Invalid object name|Base table or view not found", NotFoundError, "check the name of the table"),
    (r"Invalid column name", NotFoundError, "check the name of the column"),
    (r"Snapshot isolation transaction failed accessing database .* not allowed", UnavailableError, ""),
    (r"Failed to load the driver", ConfigurationError,
     "install the libraries it needs: apt-get install libltdl7 libkrb5-3 libgssapi-krb5-2"),
    (r"link failure|Protocol error in TDS stream", UnavailableError, ""),
    (r"TCP Provider|Named Pipes Provider|unable to establish|[Tt]imeout|forcibly closed", UnavailableError,
     ""),
    (r"deadlock|lock request time out|shutdown is in progress|being recovered|is restoring", UnavailableError, ""),
    (r"Connection not open|[Cc]onnection is (closed|broken)|is busy|too many|limit .* has been reached",
     UnavailableError, ""),
)  # fmt: skip


def translate(error: BaseException, where: str) -> EtlError:
    """Return the error of the tree that says the same."""
    message = _tidy(error)
    for pattern, kind, fix in _BY_TEXT:
        if re.search(pattern, f"{error}"):
            return kind(message, where=where, fix=fix)
    return EngineError(message, where=where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run driver calls, and nothing else, so that their errors come out as errors of the tree."""
    import mssql_python

    try:
        yield
    except EtlError:
        raise
    # RuntimeError is what the native layer raises where the driver has no SQLSTATE for it.
    except (mssql_python.Error, OSError, RuntimeError) as error:
        raise translate(error, where) from error


def _tidy(error: BaseException) -> str:
    """Return the server's text where there is one, and the driver's without its prefixes where there is none."""
    said = str(getattr(error, "ddbc_error", None) or error)
    text = re.sub(r"^(\[[^\]]*\]\s*)+", "", said.strip())
    if text.startswith("TCP Provider"):
        text = f"{getattr(error, 'driver_error', '')}: {text}"
    return re.sub(r"\s+", " ", text)
