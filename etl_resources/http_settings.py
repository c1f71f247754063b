"""What a user writes about a connection over HTTP: who asks, how often, and where to."""

from __future__ import annotations

from typing import Literal

import dagster as dg
from pydantic import Field, model_validator

from etl_resources.secret import Secret


class ApiKey(dg.Config):
    """A key in a header or in the query; exactly one of `header` and `query` names where."""

    value: Secret
    header: str | None = Field(default=None, description="Name of the header, e.g. X-Api-Key.")
    query: str | None = Field(default=None, description="Name of the parameter of the query.")

    @model_validator(mode="after")
    def _one_place(self) -> ApiKey:
        if (self.header is None) == (self.query is None):
            raise ValueError("give either `header` or `query`")
        return self


class Basic(dg.Config):
    """User name and password."""

    user: str
    password: Secret


class OAuth2(dg.Config):
    """OAuth 2 client credentials: a token that is fetched, used until shortly before it expires, and fetched anew."""

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str | None = None
    client_auth: Literal["basic", "body"] = Field(
        default="basic", description="Whether the client's id and secret go as basic authentication or in the body."
    )
    parameters: dict[str, str] = Field(default_factory=dict, description="More fields of the request, e.g. audience.")


class Authentication(dg.Config):
    """How requests say who asks; at most one of the keys."""

    api_key: ApiKey | None = None
    basic: Basic | None = None
    bearer: Secret | None = Field(default=None, description="{env: NAME} of a token that does not expire.")
    oauth2: OAuth2 | None = None

    @model_validator(mode="after")
    def _one_at_most(self) -> Authentication:
        if sum(way is not None for way in (self.api_key, self.basic, self.bearer, self.oauth2)) > 1:
            raise ValueError("give one of api_key, basic, bearer and oauth2")
        return self


class RateLimit(dg.Config):
    """At most so many requests in so many seconds, counted by each process for itself."""

    requests: int = Field(ge=1)
    seconds: float = Field(default=1.0, gt=0)
