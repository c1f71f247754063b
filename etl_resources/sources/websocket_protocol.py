"""What a user says of the protocol that is spoken over a WebSocket: what to send, what is a record, where to resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from etl_resources.live_feed import Token
from etl_resources.live_reading import LiveOptions
from etl_resources.secret import Secret

Message = str | dict[str, Any] | list[Any]
TOKEN = "token"  # noqa: S105 - the name of a placeholder


def _path(value: str) -> str:
    if not value.removeprefix("$.") or not all(value.removeprefix("$.").split(".")):
        raise ValueError("write the keys from the outside to the inside, such as $.data.sequence")
    return value


class Resume(BaseModel):
    """How the server goes on where it stopped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: str = Field(description="Where the token stands in a message, e.g. `$.sequence`.")
    subscribe: tuple[Message, ...] = Field(
        description="Messages to send instead of `subscribe` when there is a token; it stands for `{token}`."
    )

    _check = field_validator("token")(_path)


class WebsocketOptions(LiveOptions):
    """What is written under `source: {type: websocket, ...}`."""

    subscribe: tuple[Message, ...] = Field(
        default=(), description="Messages to send after connecting: text, or what is sent as JSON."
    )
    secrets: dict[str, Secret] = Field(
        default_factory=dict, description="Secrets of `subscribe`, each standing for `{name}` in it."
    )
    resume: Resume | None = Field(default=None, description="How to go on; left out, the stream cannot be resumed.")
    ignore: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Messages that are no records: those with one of these values at this path, e.g."
        " `{$.type: [heartbeat, subscribed]}`.",
    )
    heartbeat_seconds: float = Field(
        default=20.0, gt=0, description="A server that is silent for so long is asked whether it is there."
    )
    heartbeat_message: str | None = Field(
        default=None, description="Text to ask with; left out, a ping of the protocol, which has to be answered."
    )
    subprotocols: tuple[str, ...] = Field(default=(), description="Sub-protocols to offer, e.g. graphql-transport-ws.")

    @field_validator("ignore")
    @classmethod
    def _check_paths(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for path in value:
            _path(path)
        return value


def opening(options: WebsocketOptions, token: Token | None, secrets: Mapping[str, str]) -> list[str]:
    """Return the texts to send after connecting."""
    resumes = options.resume is not None and token is not None
    messages = options.resume.subscribe if options.resume is not None and resumes else options.subscribe
    values: dict[str, Any] = {**secrets, TOKEN: token}
    filled = [_filled(message, values) for message in messages]
    return [m if isinstance(m, str) else json.dumps(m, ensure_ascii=False) for m in filled]


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    """Return the template with its placeholders replaced; one that is a whole value keeps the type of what it is."""
    if isinstance(template, dict):
        return {key: _filled(value, values) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [_filled(value, values) for value in template]
    if isinstance(template, str):
        for name, value in values.items():
            if template == f"{{{name}}}":
                return value
            template = template.replace(f"{{{name}}}", str(value))
    return template


class Reader:
    """Looks into messages, where that is needed at all."""

    def __init__(self, options: WebsocketOptions) -> None:
        self._token = _keys(options.resume.token) if options.resume is not None else None
        self._ignore = [(_keys(path), frozenset(values)) for path, values in options.ignore.items()]

    def read(self, body: bytes) -> tuple[bool, Token | None]:
        """Return whether a message is a record, and the token in it."""
        if self._token is None and not self._ignore:
            return True, None
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            return True, None  # what is wrong with it is said where it is decoded
        if any(_text(_at(message, keys)) in values for keys, values in self._ignore):
            return False, None
        token = _at(message, self._token) if self._token is not None else None
        return True, token if isinstance(token, str | int) and not isinstance(token, bool) else None


def _keys(path: str) -> list[str]:
    return path.removeprefix("$.").split(".")


def _at(message: Any, keys: list[str]) -> Any:
    for key in keys:
        if not isinstance(message, dict):
            return None
        message = message.get(key)
    return message


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, dict | list):
        return None
    return value if isinstance(value, str) else json.dumps(value)
