"""How to reach an HTTP API: settings and the client, shared by the sources `rest` and `graphql`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import dagster as dg
from pydantic import Field

from etl_resources import tls
from etl_resources.exceptions import ConfigurationError, NotFoundError
from etl_resources.http_settings import Authentication, RateLimit
from etl_resources.resilience import Policy

if TYPE_CHECKING:
    import ssl

    from etl_resources.http_client import HttpClient

_PORTS = {"http": 80, "https": 443}


class HttpConnection(dg.ConfigurableResource):
    """Where an API is and how to ask it. Nothing connects before it is used."""

    base_url: str = Field(description="What the paths of streams are added to, e.g. https://api.example.org/v2.")
    auth: Authentication = Authentication()
    headers: dict[str, str] = Field(
        default_factory=dict, description="Headers of every request, e.g. a version. None of them secret: see `auth`."
    )
    allow_http: bool = Field(default=False, description="Whether http:// is allowed: nothing is encrypted then.")
    ca_file: str | None = Field(
        default=None, description="File with certificates of authorities to trust, instead of the usual ones."
    )
    hosts: list[str] = Field(
        default_factory=list,
        description="Further addresses (https://host) that the API may send on to; they get the credentials, too.",
    )
    rate: RateLimit | None = Field(default=None, description="At most {requests: 10, seconds: 1}, in each process.")
    longest_pause: float = Field(
        default=300.0, gt=0, description="Seconds for which the server may ask to be left alone; longer is an error."
    )
    longest_answer: float = Field(default=600.0, gt=0, description="Seconds that one answer may take in all.")
    max_response_bytes: int = Field(default=64 << 20, gt=0, description="Size of an answer, unpacked.")
    resilience: Policy = Policy()

    @property
    def address(self) -> str:
        """Where this points to, for messages."""
        # A password may stand in it though it must not, with marks in it that end a host for every parser.
        return re.sub(r"//.*@", "//***@", self.base_url.partition("?")[0])

    def origin(self, url: str) -> str:
        """Return scheme, host and port of an address.

        Raises:
            ConfigurationError: it has none, is not encrypted though it should be, or holds a password.
        """
        parts = urlsplit(url)
        where = self.address
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ConfigurationError("this is no address of an API", where=where, fix="write https://host/path")
        if parts.username is not None or parts.password is not None:
            raise ConfigurationError("an address must not hold credentials", where=where, fix="use `auth`")
        if parts.scheme == "http" and not self.allow_http:
            raise ConfigurationError(
                "http:// sends everything in clear text", where=where,
                fix="write https://, or say `allow_http: true` for a server on the same machine",
            )  # fmt: skip
        try:
            port = parts.port or _PORTS[parts.scheme]
        except ValueError:
            raise ConfigurationError("this is no address of an API", where=where, fix="check the port") from None
        return f"{parts.scheme}://{parts.hostname}:{port}"

    def ssl_context(self) -> ssl.SSLContext:
        """Return how certificates are verified.

        Raises:
            ConfigurationError: `ca_file` cannot be used.
        """
        file, folder = (self.ca_file, None) if self.ca_file else tls.usual_of_http()
        return tls.context(file, ca_folder=folder, offered=tls.HTTP, where=self.address, setting="ca_file")

    @contextmanager
    def client(self) -> Iterator[HttpClient]:
        """Give a client, which is closed at the end.

        Raises:
            ConfigurationError: an address or a secret is not as it must be.
        """
        from etl_resources.http_client import HttpClient

        client = HttpClient(self)
        try:
            yield client
        finally:
            client.close()

    def ping(self) -> bool:
        """Ask for the base address. Any answer will do but one that refuses the credentials.

        Raises:
            UnavailableError, CredentialsRejectedError, ConfigurationError: as their names say.
        """
        from etl_resources.http_client import Request

        with self.client() as client:
            try:
                client.fetch(Request(""), lambda answer: answer, self.address)
            except (NotFoundError, ConfigurationError) as error:
                if not error.what.startswith("the server answered"):
                    raise
        return True
