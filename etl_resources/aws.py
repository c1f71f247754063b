"""How a service of AWS is asked: where it is, with which keys, and its errors as errors of this project's tree."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.extras import client
from etl_resources.secret import Secret

if TYPE_CHECKING:
    from botocore.client import BaseClient

_THERE_NOT = ("QueueDoesNotExist", "NonExistentQueue", "ClusterNotFound", "ResourceNotFound")
_REFUSED = (
    "InvalidClientTokenId", "SignatureDoesNotMatch", "AccessDenied", "UnrecognizedClientException", "ExpiredToken",
    "InvalidAccessKeyId", "MissingAuthenticationToken", "IncompleteSignature", "InvalidSignature", "KmsAccessDenied",
    "InvalidSecurity", "RequestExpired",
)  # fmt: skip
_LATER = (
    "Throttl", "RequestLimitExceeded", "ServiceUnavailable", "InternalError", "InternalFailure", "InternalServer",
    "OverLimit", "Timeout",
)  # fmt: skip
_TALKATIVE = ("auth", "endpoint", "parsers")
"""Loggers of botocore that tell, at level DEBUG, what secret tokens and passwords go out and come in."""
_KEYS = "give `access_key_id` and `secret_access_key`, or see to the profile or role that the AWS libraries find"
_REACH = "check `region`, `endpoint` and the network"


class AwsSettings(BaseModel):
    """Where services of AWS are and who asks them; without keys, as the AWS libraries find them (role, profile)."""

    region: str = Field(description="Region, e.g. eu-central-1.")
    endpoint: str | None = Field(default=None, description="URL of another server than AWS; http:// is clear text.")
    access_key_id: Secret | None = Field(default=None, description="{env: NAME}.")
    secret_access_key: Secret | None = Field(default=None, description="{env: NAME}.")
    session_token: Secret | None = Field(default=None, description="{env: NAME}; of temporary keys.")
    profile: str | None = Field(default=None, description="Profile of the AWS configuration file.")
    ca_file: str | None = Field(default=None, description="File with the authority's certificate; the system's else.")

    @contextmanager
    def service(
        self,
        kind: str,
        *,
        extra: str,
        where: str,
        advice: Advice,
        timeout: float,
        silence: float,
        connections: int = 10,
    ) -> Iterator[BaseClient]:
        """Give a client of a service (`sqs` …), which several threads may share; calls go within `translated`.

        `extra` brings the library, `timeout` are seconds to connect, `silence` those that an answer may take. What
        fails is not tried again here.

        Raises:
            ConfigurationError: a variable is not set, or the profile or region is none.
            CredentialsRejectedError, UnavailableError: there are no keys; where a role's come from does not answer.
        """
        core = client("botocore.session", extra=extra)
        from botocore.config import Config
        from botocore.exceptions import NoCredentialsError

        for name in _TALKATIVE:
            logging.getLogger(f"botocore.{name}").setLevel(logging.INFO)
        with translated(where, advice):
            session = core.Session(profile=self.profile)
            session.register_component("data_loader", _descriptions(session.get_config_variable("data_path")))
            if self.session_token and not self.access_key_id:
                raise NoCredentialsError  # botocore would leave the token out and take what else it finds
            config = Config(
                connect_timeout=timeout, read_timeout=silence, max_pool_connections=connections,
                # Tried again by the policy that all clients share, and by nothing else.
                retries={"total_max_attempts": 1},
            )  # fmt: skip
            session.set_default_client_config(config)  # also of the client that assumes a role
            made = session.create_client(
                kind, region_name=self.region, endpoint_url=self.endpoint, verify=self.ca_file,
                aws_access_key_id=self.access_key_id.reveal() if self.access_key_id else None,
                aws_secret_access_key=self.secret_access_key.reveal() if self.secret_access_key else None,
                aws_session_token=self.session_token.reveal() if self.session_token else None,
            )  # fmt: skip
        try:
            yield made
        finally:
            made.close()


@dataclass(frozen=True)
class Advice:
    """What to do about an error of one service: if a thing is not there, and if the caller is refused."""

    absent: str
    refused: str


@functools.cache
def _descriptions(path: str | None) -> Any:
    """Return what botocore knows of services: read once per process, as it takes longer than a request."""
    from botocore.loaders import create_loader

    return create_loader(path)


@contextmanager
def translated(where: str, advice: Advice) -> Iterator[None]:
    """Run calls of the client, and nothing else, so that their errors come out as errors of the tree."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise _of_service(error.response, where, advice) from None
    except BotoCoreError as error:
        raise _of_client(error, where) from None
    except ResponseParserError:
        # Its text is the answer, and what is secret in it.
        raise UnavailableError("the answer cannot be read", where=where, fix=_REACH) from None


def _of_service(response: Any, where: str, advice: Advice) -> EtlError:
    code, text = str(response["Error"].get("Code", "")), str(response["Error"].get("Message", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    what = f"{code}: {text}"
    if any(known in code for known in _THERE_NOT):
        return NotFoundError(what, where=where, fix=advice.absent)
    if any(known in code for known in _REFUSED) or status in {401, 403}:
        return CredentialsRejectedError(what, where=where, fix=advice.refused)
    if any(known in code for known in _LATER) or status >= 500 or status == 429:
        return UnavailableError(what, where=where)
    return EngineError(what, where=where)


def _of_client(error: Exception, where: str) -> EtlError:
    from botocore import exceptions as known

    keyless = known.NoCredentialsError | known.PartialCredentialsError | known.CredentialRetrievalError | known.SSOError
    if isinstance(error, keyless):
        return CredentialsRejectedError(str(error), where=where, fix=_KEYS)
    if isinstance(error, known.SSLError):
        return ConfigurationError(str(error), where=where, fix="give `ca_file`, the authority's certificate")
    if isinstance(error, known.HTTPClientError | known.ConnectionError | known.IncompleteReadError):
        return UnavailableError(str(error), where=where, fix=_REACH)
    return ConfigurationError(str(error), where=where)
