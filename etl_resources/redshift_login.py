"""How to log in to Redshift without a password of one's own: AWS hands out one that holds for a quarter of an hour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from pydantic import ConfigDict, Field, model_validator

from etl_resources import aws
from etl_resources.exceptions import UnavailableError
from etl_resources.extras import client
from etl_resources.resilience import Policy


@dataclass(frozen=True)
class Login:
    """A user, and what it proves itself with."""

    user: str
    password: str = field(repr=False)


class Iam(aws.AwsSettings, dg.Config):
    """Which cluster or workgroup AWS is asked to let us into, and with which keys.

    Amazon's driver could ask as well. It keeps keys and passwords in a table of its class, asks without the time limits
    that hold here and tries again by itself, and takes a host that is not named as AWS names them for an alias that has
    to be looked up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cluster: str | None = Field(default=None, description="Identifier of a provisioned cluster.")
    workgroup: str | None = Field(default=None, description="Name of a workgroup of Redshift Serverless.")
    groups: list[str] = Field(
        default_factory=list, description="With `cluster` and `user`: groups whose rights sessions have on top."
    )
    create_user: bool = Field(
        default=False, description="With `cluster` and `user`: whether a user that is not there is made."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Iam:
        if (self.cluster is None) == (self.workgroup is None):
            raise ValueError("give one of `cluster` and `workgroup`")
        return self

    def check(self, user: str | None) -> None:
        """See that these settings go together with the connection's `user`.

        Raises:
            ValueError: they do not.
        """
        if user is not None and self.workgroup is not None:
            raise ValueError("a workgroup makes the user out of who asks AWS: leave `user` out")
        if user is None and (self.groups or self.create_user):
            raise ValueError("`groups` and `create_user` of `iam` need a `cluster` and a `user`")

    @property
    def place(self) -> str:
        """Whom AWS is asked about, for messages."""
        kind = f"cluster {self.cluster}" if self.cluster else f"workgroup {self.workgroup}"
        return f"credentials for Redshift {kind} by AWS at {self.endpoint or self.region}"

    def login(self, user: str | None, database: str, policy: Policy) -> Login:
        """Return a login to a database, fetched anew; `user` None: as the one that AWS makes of who asks.

        Raises:
            CredentialsRejectedError: AWS does not know the keys, they have expired, or may not ask for this.
            NotFoundError: there is no such cluster or workgroup.
            UnavailableError: AWS does not answer, or is asked too often. It is not tried again here.
            ConfigurationError: a variable is not set, or the profile is none.
        """
        service, call, asked = self._request(user, database)
        advice = aws.Advice(
            absent="check `cluster` or `workgroup`, and `region`, of `iam`",
            refused=f"check the keys (have they expired?); they need {service}:{call}",
        )
        client("botocore", extra="redshift")
        from botocore import xform_name

        with (
            self.service(
                service, extra="redshift", where=self.place, advice=advice,
                timeout=policy.timeout, silence=policy.silence, connections=1,
            ) as redshift,
            aws.translated(self.place, advice),
        ):  # fmt: skip
            answer = getattr(redshift, xform_name(call))(**asked)
        return _login(answer, self.place)

    def _request(self, user: str | None, database: str) -> tuple[str, str, dict[str, Any]]:
        if self.workgroup is not None:
            return "redshift-serverless", "GetCredentials", {"workgroupName": self.workgroup, "dbName": database}
        asked: dict[str, Any] = {"ClusterIdentifier": self.cluster, "DbName": database}
        if user is None:
            return "redshift", "GetClusterCredentialsWithIAM", asked
        asked |= {"DbUser": user, "DbGroups": self.groups, "AutoCreate": self.create_user}
        return "redshift", "GetClusterCredentials", asked


def _login(answer: dict[str, Any], where: str) -> Login:
    told = {name.lower(): str(value) for name, value in answer.items()}
    if not told.get("dbuser") or not told.get("dbpassword"):
        raise UnavailableError("the answer holds no user and password", where=where, fix="check `endpoint`")
    return Login(told["dbuser"], told["dbpassword"])
