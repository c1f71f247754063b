"""The Confluent schema registry: schemas by the id that stands in front of a message."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from etl_resources import tls
from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.resilience import Policy

_MAGIC = 0
_NO_SCHEMA = frozenset({40401, 40402, 40403})  # no such subject, version, schema
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})


class FramingError(ValueError):
    """A message does not begin as the registry's messages do."""


def unframed(body: bytes) -> tuple[int, bytes]:
    """Return the id of the schema and what follows it.

    Raises:
        FramingError: it does not begin with a zero and four bytes of id.
    """
    if len(body) < 5 or body[0] != _MAGIC:
        raise FramingError("it does not begin with a zero and the id of a schema, as messages with a registry do")
    return int.from_bytes(body[1:5], "big"), body[5:]


@dataclass(frozen=True)
class Schema:
    """A schema as it was registered: `kind` is AVRO, PROTOBUF or JSON; `references` are what its text imports."""

    kind: str
    text: str
    references: tuple[tuple[str, Schema], ...] = ()


class Registry:
    """Looks schemas up; each once, since an id never gets another schema."""

    def __init__(self, url: str, login: tuple[str | None, str] | None, ca_file: str | None, policy: Policy) -> None:
        if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
            raise ConfigurationError(f"registry {url!r} is no URL", fix="write https://host:port")
        self._url, self._policy = url.rstrip("/"), policy
        self._login, self._ca_file = login, ca_file
        self._schemas: dict[tuple[str, bool], Schema] = {}

    def schema(self, number: int, *, serialized: bool = False) -> Schema:
        """Return the schema of an id; `serialized`: Protobuf as a descriptor in base64, instead of its text.

        Raises:
            NotFoundError: there is no such schema.
            UnavailableError, CredentialsRejectedError, ConfigurationError: the registry does not answer, or says no.
        """
        return self._schema(f"/schemas/ids/{number}", serialized=serialized)

    def _schema(self, path: str, *, serialized: bool) -> Schema:
        key = (path, serialized)
        if key not in self._schemas:
            found = self._policy.call(self._get, path + ("?format=serialized" if serialized else ""))
            references = tuple(
                (str(r["name"]), self._schema(_version_path(r), serialized=serialized))
                for r in found.get("references", ())
            )
            self._schemas[key] = Schema(str(found.get("schemaType", "AVRO")), str(found["schema"]), references)
        return self._schemas[key]

    def _get(self, path: str) -> dict[str, Any]:
        where = f"schema registry {self._url}"
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            self._url + path, headers={"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        )
        if self._login is not None:
            user, password = self._login
            token = base64.b64encode(f"{user or ''}:{password}".encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        try:
            with self._opener(where).open(request, timeout=self._policy.timeout) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise _refusal(error, path, where) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise ConfigurationError(
                    str(error.reason), where=where, fix="give `registry_ca_file`, the authority's certificate"
                ) from None
            raise UnavailableError(f"no answer: {error.reason}", where=where, fix="check `registry`") from None
        except (OSError, ValueError) as error:  # cut in the middle, no answer in time, or no JSON
            raise UnavailableError(f"no whole answer: {error}", where=where) from None
        if not isinstance(found, dict) or "schema" not in found:
            raise EngineError(f"{path} answers without a schema", where=where, fix="check `registry`")
        return found

    def _opener(self, where: str) -> urllib.request.OpenerDirector:
        context = tls.context(self._ca_file, where=where, setting="registry_ca_file")
        return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))


def _version_path(reference: dict[str, Any]) -> str:
    return f"/subjects/{urllib.parse.quote(str(reference['subject']), safe='')}/versions/{reference['version']}"


def _refusal(error: urllib.error.HTTPError, path: str, where: str) -> EtlError:
    if error.code in {401, 403}:
        return CredentialsRejectedError(
            f"the registry refused access (HTTP {error.code})",
            where=where, fix="check `registry_user` and `registry_password`",
        )  # fmt: skip
    if error.code == 404 and _error_code(error) in _NO_SCHEMA:
        return NotFoundError(f"the registry has no schema at {path}", where=where)
    if error.code in _TRANSIENT:
        return UnavailableError(f"HTTP {error.code}", where=where)
    return ConfigurationError(f"HTTP {error.code} for {path}", where=where, fix="check `registry`")


def _error_code(error: urllib.error.HTTPError) -> int | None:
    try:
        return int(json.load(error)["error_code"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # an answer of something else than a registry
