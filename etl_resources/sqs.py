"""How to reach Amazon SQS: settings and the client, and its errors as errors of this project's tree."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from etl_resources.exceptions import (
    ConfigurationError,
    CredentialsRejectedError,
    EngineError,
    EtlError,
    NotFoundError,
    UnavailableError,
)
from etl_resources.extras import client
from etl_resources.resilience import Policy
from etl_resources.secret import Secret

if TYPE_CHECKING:
    from botocore.client import BaseClient

LONGEST_POLL = 20
"""Seconds that SQS may keep a request for messages waiting."""
_THERE_NOT = ("QueueDoesNotExist", "NonExistentQueue")
_REFUSED = (
    "InvalidClientTokenId", "SignatureDoesNotMatch", "AccessDenied", "UnrecognizedClientException", "ExpiredToken",
    "InvalidAccessKeyId", "MissingAuthenticationToken", "IncompleteSignature", "InvalidSignature", "KmsAccessDenied",
    "InvalidSecurity",
)  # fmt: skip
_LATER = (
    "Throttl", "RequestLimitExceeded", "ServiceUnavailable", "InternalError", "InternalFailure", "OverLimit", "Timeout"
)  # fmt: skip


class SqsConnection(dg.ConfigurableResource):
    """Where the queues are and how to log in; without keys, as the AWS libraries find them (role, profile)."""

    region: str = Field(description="Region, e.g. eu-central-1.")
    endpoint: str | None = Field(default=None, description="URL of another server than AWS; http:// is clear text.")
    access_key_id: Secret | None = Field(default=None, description="{env: NAME}.")
    secret_access_key: Secret | None = Field(default=None, description="{env: NAME}.")
    session_token: Secret | None = Field(default=None, description="{env: NAME}; of temporary keys.")
    profile: str | None = Field(default=None, description="Profile of the AWS configuration file.")
    ca_file: str | None = Field(default=None, description="File with the authority's certificate; the system's else.")
    resilience: Policy = Policy()

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        return f"SQS at {self.endpoint or self.region}"

    @contextmanager
    def client(self, *, connections: int = 10, longest_poll: float = 0) -> Iterator[BaseClient]:
        """Give a client, which several threads may share; `longest_poll` is how long it may wait for messages (s).

        Raises:
            ConfigurationError: a variable is not set, or the profile or region is none.
        """
        core = client("botocore.session", extra="aws")
        from botocore.config import Config
        from botocore.exceptions import NoCredentialsError

        with translated(self.address):
            session = core.Session(profile=self.profile)
            session.register_component("data_loader", _descriptions(session.get_config_variable("data_path")))
            if self.session_token and not self.access_key_id:
                raise NoCredentialsError  # botocore would leave the token out and take what else it finds
            config = Config(
                connect_timeout=self.resilience.timeout,
                # An answer to a long poll may take its time; silence is what comes on top of it.
                read_timeout=self.resilience.silence + longest_poll,
                # Tried again by the policy that all clients share, and by nothing else.
                retries={"total_max_attempts": 1}, max_pool_connections=connections,
            )  # fmt: skip
            made = session.create_client(
                "sqs", region_name=self.region, endpoint_url=self.endpoint, config=config, verify=self.ca_file,
                aws_access_key_id=self.access_key_id.reveal() if self.access_key_id else None,
                aws_secret_access_key=self.secret_access_key.reveal() if self.secret_access_key else None,
                aws_session_token=self.session_token.reveal() if self.session_token else None,
            )  # fmt: skip
        try:
            yield made
        finally:
            made.close()

    def queue_url(self, sqs: Any, queue: str) -> str:
        """Return the URL of a queue; a URL is one already.

        Raises:
            NotFoundError, CredentialsRejectedError, UnavailableError: as their names say.
        """
        if re.match("https?://", queue):
            return queue

        def ask() -> str:
            with translated(f"queue {queue}, {self.address}"):
                return str(sqs.get_queue_url(QueueName=queue)["QueueUrl"])

        return self.resilience.call(ask)

    def ping(self) -> bool:
        """List a queue; raises as `queue_url`."""

        def ask() -> None:
            with translated(self.address):
                sqs.list_queues(MaxResults=1)

        with self.client() as sqs:
            self.resilience.call(ask)
        return True


@functools.cache
def _descriptions(path: str | None) -> Any:
    """Return what botocore knows of services: read once per process, as it takes longer than a request."""
    from botocore.loaders import create_loader

    return create_loader(path)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Run calls of the client, and nothing else, so that their errors come out as errors of the tree."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _of_service(error.response, where) from None
    except BotoCoreError as error:
        raise _of_client(error, where) from None


def _of_service(response: Any, where: str) -> EtlError:
    code, text = str(response["Error"].get("Code", "")), str(response["Error"].get("Message", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    what = f"{code}: {text}"
    if any(known in code for known in _THERE_NOT):
        return NotFoundError(what, where=where, fix="check `queue` and `region`")
    if any(known in code for known in _REFUSED) or status in {401, 403}:
        return CredentialsRejectedError(
            what, where=where, fix="check the keys; they need ReceiveMessage, DeleteMessage, ChangeMessageVisibility"
        )
    if any(known in code for known in _LATER) or status >= 500 or status == 429:
        return UnavailableError(what, where=where)
    return EngineError(what, where=where)


def _of_client(error: Exception, where: str) -> EtlError:
    from botocore import exceptions as known

    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError):
        return CredentialsRejectedError(str(error), where=where, fix="give `access_key_id` and `secret_access_key`")
    if isinstance(error, known.SSLError):
        return ConfigurationError(str(error), where=where, fix="give `ca_file`, the authority's certificate")
    away = known.HTTPClientError | known.ConnectionError | known.IncompleteReadError
    if isinstance(error, away) or type(error).__name__ == "ResponseParserError":
        return UnavailableError(str(error), where=where, fix="check `region`, `endpoint` and the network")
    return ConfigurationError(str(error), where=where)
