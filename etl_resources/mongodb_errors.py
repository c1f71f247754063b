"""What pymongo raises and MongoDB answers, as errors of this project's tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    LogLostError,
    NotFoundError,
    UnavailableError,
)

if TYPE_CHECKING:
    from pymongo.errors import PyMongoError

_TOO_OLD = (
    "the snapshot is older than the server keeps: raise its minSnapshotHistoryWindowInSeconds above the time that the"
    " read takes, or set `consistency: majority`"
)

_LOST = "read the streams anew (etl capture resnapshot), and make the oplog greater, or read more often"
_NO_IMAGE = (
    "read the streams anew (etl capture resnapshot); post-images have to be kept (changeStreamPreAndPostImages), and"
    " for longer than a reader may be away (expireAfterSeconds)"
)

_BY_CODE: dict[int, tuple[type[EtlError], str]] = {
    **dict.fromkeys((18, 11, 8000), (CredentialsRejectedError, "check user, password and auth_source")),
    13: (CredentialsRejectedError, "grant the user the role `read` on the database"),
    33: (CredentialsRejectedError, "grant the user the role `read` on the database"),
    334: (CredentialsRejectedError, "set auth_mechanism to one that the server knows"),
    26: (NotFoundError, "check the names of database and collection"),
    **dict.fromkeys((2, 9, 40, 51173, 31253, 31254), (ConfigurationError, "check `filter` and `fields`")),
    **dict.fromkeys((239, 246), (ConfigurationError, _TOO_OLD)),
    **dict.fromkeys((286, 280, 260), (LogLostError, _LOST)),
    # Cursors that timed out, were killed, or went with a server that was restarted; elections; shutting down.
    **dict.fromkeys(
        (6, 7, 43, 50, 63, 89, 91, 133, 134, 136, 150, 175, 189, 202, 237, 262, 290, 317, 365, 391, 9001, 10107, 11600,
         11602, 13388, 13435, 13436),
        (UnavailableError, ""),
    ),
}  # fmt: skip

_CERTIFICATE = r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|SSL handshake failed|WRONG_VERSION_NUMBER"
_NO_NAME = r"Name or service not known|nodename nor servname|Temporary failure in name resolution|getaddrinfo|DNS query"


def translate(error: PyMongoError | OSError, where: str) -> EtlError:
    """Return the error of the tree that says the same."""
    from pymongo import errors

    message = _tidy(str(error))
    if isinstance(error, errors.OperationFailure):
        message = _tidy(str((error.details or {}).get("errmsg") or error))
        kind, fix = _BY_CODE.get(error.code or 0, (EngineError, ""))
        labels = ("RetryableError", "TransientTransactionError", "ResumableChangeStreamError")
        if error.code == 47 and "-image" in message:  # of documents that are missing otherwise
            kind, fix = LogLostError, _NO_IMAGE
        if kind is EngineError and any(error.has_error_label(label) for label in labels):
            kind = UnavailableError
        return kind(f"{message} (MongoDB error {error.code})", where=where, fix=fix)
    if re.search(_CERTIFICATE, message):
        return ConfigurationError(
            message, where=where,
            fix="give `tls_ca_file` with the authority that signed the server's certificate; `tls: false` only for a"
            " server on this machine",
        )  # fmt: skip
    if isinstance(error, FileNotFoundError | PermissionError):
        return ConfigurationError(message, where=where, fix="check tls_ca_file and tls_certificate_key_file")
    if isinstance(error, errors.ConfigurationError) and not re.search(_NO_NAME, message):
        return ConfigurationError(message, where=where, fix="check `uri`")
    if isinstance(error, errors.ConnectionFailure | errors.ConfigurationError | errors.CursorNotFound | OSError):
        fix = "check the host name in `uri`" if re.search(_NO_NAME, message) else "check that the server is running"
        return UnavailableError(message, where=where, fix=f"{fix}; it is tried again by itself")
    return EngineError(message, where=where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run driver calls, and nothing else, so that their errors come out as errors of the tree."""
    from pymongo.errors import PyMongoError

    try:
        yield
    except EtlError:
        raise
    except (PyMongoError, OSError) as error:
        raise translate(error, where) from error


def _tidy(message: str) -> str:
    """Return the driver's text without its dump of the topology and of the whole reply, on one line."""
    text = re.sub(r", (Timeout: [0-9.]+s, )?Topology Description: .*| \(configured timeouts: .*?\)", "", message)
    text = re.sub(r", full error: .*", "", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", text).strip()
