"""What a dlt resource raises, as errors of this project's tree."""

from __future__ import annotations

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

_BROKEN = {"ConnectionError", "ConnectError", "ChunkedEncodingError", "RemoteProtocolError"}


@contextmanager
def translated(resource: str) -> Iterator[None]:
    """Run the code of a resource, so that its errors come out as errors of the tree."""
    try:
        yield
    except (EtlError, StopIteration):
        raise
    except Exception as error:  # a resource is the user's code: it may raise anything, and all of it must be told
        raise translate(error, resource) from error


def translate(error: Exception, where: str) -> EtlError:
    """Return the error of the tree that says the same as the innermost cause."""
    from dlt.common.configuration.exceptions import ConfigurationException
    from dlt.extract.incremental.exceptions import IncrementalCursorPathMissing

    causes = list(_causes(error))
    for each in causes:
        if isinstance(each, EtlError):
            return each
        if isinstance(each, IncrementalCursorPathMissing):
            return NotFoundError(_text(each), where=where, fix="check the cursor of `dlt.sources.incremental`")
        if isinstance(each, ConfigurationException):
            return ConfigurationError(
                _text(each), where=where, fix="set what dlt names, e.g. as an environment variable"
            )
        status = getattr(getattr(each, "response", None), "status_code", None)
        if isinstance(status, int):
            return _of_status(status, each, where)
        name = type(each).__name__  # of clients that need not be installed
        if isinstance(each, ConnectionError | TimeoutError) or "Timeout" in name or name in _BROKEN:
            return UnavailableError(_text(each), where=where)
    return EngineError(
        f"{type(causes[-1]).__name__}: {_text(causes[-1])}", where=where, fix="the cause is in the code of the resource"
    )


def _of_status(status: int, error: BaseException, where: str) -> EtlError:
    text = f"HTTP {status}: {_text(error)}"
    if status in {401, 403}:
        return CredentialsRejectedError(text, where=where, fix="check the secrets of the resource")
    if status == 404:
        return NotFoundError(text, where=where)
    return UnavailableError(text, where=where) if status == 429 or status >= 500 else EngineError(text, where=where)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what caused it, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
