"""What a target is: the one interface between a table of the lake and an outside system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import pyarrow as pa

Mode = Literal["replace", "append", "upsert"]


class TargetOptions(BaseModel):
    """What a user writes under `target:`; each target derives its own. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    connection: str | None = Field(default=None, description="Name of an entry of the Connections component.")


@dataclass(frozen=True, slots=True)
class CommitToken:
    """Identity of one load: the same token is never applied twice.

    `app_id` names the publishing asset, `version` the version of the lake table that is published; the target keeps
    the pair in the transaction of the data (`_etl_commits`), or in the object's name where it has no transactions.
    """

    app_id: str
    version: int
    run_id: str


@dataclass(frozen=True, slots=True)
class Load:
    """One load into a target."""

    options: TargetOptions
    schema: pa.Schema
    mode: Mode
    token: CommitToken
    key: tuple[str, ...] = ()
    """Columns that identify a row; required by `upsert`."""
    on_refused: Callable[[pa.Table], None] | None = None
    """Receives rows that the target refuses, in `refused_schema()`, *before* the target commits, so that a crash
    cannot lose them. May be called again with the same rows after a crash."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows: `read = inserted + updated + unchanged + superseded + sum(rejected)`; `deleted` counts
    rows of the target that a `replace` removed because they were not in the load, and is not part of `read`."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    """Rows of an upsert whose key comes again later in the same load."""
    deleted: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Rule or error class -> rows."""
    already_committed: bool = False
    """The token was there: nothing was read or written. The other figures are then those of the load that had it, so
    that an account which a killed run did not keep is not lost; all 0 where a newer token is there as well."""


def refused_schema() -> pa.Schema:
    """Columns of refused rows: `rule` (e.g. `not_null.email`), `reason` (the target's message), `record` (JSON)."""
    import pyarrow as pa

    return pa.schema([("rule", pa.string()), ("reason", pa.string()), ("record", pa.string())])


class Target(dg.ConfigurableResource, ABC):
    """A system that is written. Holds settings only; connections open inside `write` and are closed when it ends.

    A subclass lives in `etl_resources/targets/<type>.py`, which binds it to the module name `TARGET`.
    """

    options_type: ClassVar[type[TargetOptions]]
    modes: ClassVar[frozenset[str]]
    gaps: ClassVar[Mapping[str, str]] = {}
    """Conformance case -> reason why this target cannot pass it (a strict expected failure)."""

    @abstractmethod
    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> Counts:
        """Apply the load in one transaction, or not at all; a token that is already there changes nothing.

        Raises:
            UnavailableError, CredentialsRejectedError, NotFoundError, SchemaConflictError: as their names say.
        """

    @abstractmethod
    def committed_version(self, options: TargetOptions, app_id: str) -> int | None:
        """Return the highest version committed under `app_id`, or None."""

    def ping(self) -> bool:
        """Connect and hang up, as `Source.ping`."""
        return False
