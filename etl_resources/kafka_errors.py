"""What librdkafka says, as errors of this project's tree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

_REJECTED = ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "ILLEGAL_SASL_STATE")
_FORBIDDEN = ("TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED")
_NOT_THERE = ("_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_ID")
_WRONG = ("_INVALID_ARG", "_UNSUPPORTED_FEATURE", "_CRIT_SYS_RESOURCE", "_NOT_IMPLEMENTED")
_AWAY = ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_TIMED_OUT_QUEUE", "_RESOLVE", "_SSL", "_WAIT_COORD")


def translate(error: KafkaError, where: str) -> EtlError:
    """Return the error of the tree that says the same."""
    kind, fix = _kind(error)
    return kind(_tidy(error.str()), where=where, fix=fix)


def _kind(error: KafkaError) -> tuple[type[EtlError], str]:
    if "certificate" in error.str().lower():
        return ConfigurationError, "give `ca_file`, the certificate of the authority that signed the broker's"
    for names, kind, fix in _KINDS:
        if error.name() in names:
            return kind, fix
    if error.name() in _AWAY or error.retriable():
        return UnavailableError, _AWAY_FIX.get(error.name(), "")
    return EngineError, ""


_KINDS: tuple[tuple[tuple[str, ...], type[EtlError], str], ...] = (
    (_REJECTED, CredentialsRejectedError, "check `user`, `password` and `mechanism`"),
    (_FORBIDDEN, CredentialsRejectedError, "grant the user Read and Describe on topic and group"),
    (_NOT_THERE, NotFoundError, "check the name of the topic"),
    (_WRONG, ConfigurationError, "check the settings of the connection"),
)
_AWAY_FIX = {
    "_RESOLVE": "check the names in `servers`",
    "_SSL": "check `security`: the broker may expect another protocol on this port",
}


def is_final(error: KafkaError) -> bool:
    """Tell whether the client need not be given more time: it will not be let in."""
    return error.name() in (*_REJECTED, *_FORBIDDEN) or error.fatal() or "certificate" in error.str().lower()


def _tidy(text: str) -> str:
    """Return librdkafka's text without its prefix of thread names and its counters."""
    text = re.sub(r"^(\S+: )?(\S+://\S+: )", r"\2", text)
    return re.sub(r" \(after \d+ms in state .*?\)|, \d+ identical error\(s\) suppressed", "", text).strip()
