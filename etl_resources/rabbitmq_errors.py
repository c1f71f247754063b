"""What RabbitMQ and its client raise, as errors of this project's tree."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)

_CERTIFICATE = "give `ca_file`, or have the certificate name this host; `tls: false` only for a server on this machine"


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run calls of the client, and nothing else, so that their errors come out as errors of the tree."""
    from pika.adapters.utils.connection_workflow import AMQPConnectorException
    from pika.exceptions import AMQPError

    try:
        yield
    except EtlError:
        raise
    except (AMQPError, AMQPConnectorException, OSError) as error:
        raise translate(error, where) from error


def translate(error: BaseException, where: str) -> EtlError:
    """Return the error of the tree that says the same."""
    from pika import exceptions
    from pika.adapters.utils.connection_workflow import AMQPConnectorException

    causes = list(_causes(error))
    text = _text(causes)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _of_tls(cause, where)
        if isinstance(cause, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError):
            return CredentialsRejectedError(text, where=where, fix="check user and password")
        if isinstance(cause, exceptions.ProbableAccessDeniedError):
            return CredentialsRejectedError(text, where=where, fix="check `vhost`, and what the user may do in it")
        if isinstance(cause, exceptions.ConnectionClosedByBroker | exceptions.ChannelClosedByBroker):
            return _of_reply(cause.reply_code, cause.reply_text, where)
    unreachable = (OSError, exceptions.AMQPConnectionError, exceptions.ChannelWrongStateError, AMQPConnectorException)
    if isinstance(error, unreachable):
        return UnavailableError(text, where=where, fix="check that the server runs, and `host`, `port` and `tls`")
    return EngineError(text, where=where)


def _of_reply(code: int, text: str, where: str) -> EtlError:
    """Return the error for a reply code of AMQP."""
    if code == 404 and "is down or inaccessible" not in text:
        return NotFoundError(text, where=where, fix="check the name of the queue and `vhost`")
    if code == 403:
        return CredentialsRejectedError(text, where=where, fix="grant the user what it needs")
    if code == 405:
        return UnavailableError(text, where=where, fix="another connection has the queue for itself")
    if code == 530:
        return NotFoundError(text, where=where, fix="check `vhost`")
    if code == 540:
        return ConfigurationError(text, where=where, fix="check `queue_type`")
    # 320 closed by an operator, 404 of a node that is down, 406 acknowledged too late, 541 internal error …
    return UnavailableError(f"the server hung up: {code} {text}", where=where)


def _of_tls(error: ssl.SSLError, where: str) -> EtlError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"the server's certificate is not trusted: {error.verify_message}", where=where, fix=_CERTIFICATE
        )
    if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return ConfigurationError("the port does not talk TLS", where=where, fix="check `port`, and `tls`")
    return UnavailableError(f"TLS: {error.reason or error}", where=where)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what it carries: the client wraps, and keeps the reason in the arguments or attributes."""
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [*current.args, getattr(current, "exception", None), *getattr(current, "exceptions", ())]
        pending += [current.__cause__]


def _text(causes: list[BaseException]) -> str:
    """Return what the innermost error says; the client's outer ones are often without a text."""
    for cause in reversed(causes):
        if said := str(cause).strip():
            return f"{type(cause).__name__}: {said}"
    return type(causes[0]).__name__
