"""Every error this project raises on purpose, in one tree.

EtlError
├── ConfigurationError         what the user wrote cannot be run: unknown key, missing reference, unset variable
├── UnavailableError           transient: the far end did not answer; retried by the resilience policy
├── CredentialsRejectedError   the far end answered, and said no; never retried
├── NotFoundError              a table, column, file or object that is not there
├── LogLostError               the change log no longer has what comes next: the streams have to be read anew
├── SchemaConflictError        a type would narrow, or two types have no common one
├── ContractViolationError     a rule whose `on_fail` is `fail` did not hold; nothing was published
├── ErrorBudgetExceededError   more rows were rejected than the pipeline allows; nothing was published
├── RowsNotConservedError      an account does not balance: rows were lost or doubled on the way
├── ConcurrentCommitError      another run committed the same work first; nothing was written twice
└── EngineError                a query could not be run: neither "the data are bad" nor "passed"
"""

from __future__ import annotations

from collections.abc import Collection


class EtlError(Exception):
    """An error that a person can act on.

    `what` happened, `where` (pipeline, table, file, line) and how to `fix` it; all three are part of the text.
    """

    transient = False

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if fix:
            lines.append(f"  fix:   {fix}")
        super().__init__("\n".join(lines))


class ConfigurationError(EtlError):
    """What the user wrote cannot be run."""


class UnavailableError(EtlError):
    """The far end did not answer; trying again may help."""

    transient = True


class CredentialsRejectedError(EtlError):
    """The far end refused the credentials."""


class NotFoundError(EtlError):
    """A table, column, file or object is not there."""


class LogLostError(EtlError):
    """The change log no longer has what comes after the position in the lake, of some `streams` or (empty) of all."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", streams: Collection[str] = ()) -> None:
        super().__init__(what, where=where, fix=fix)
        self.streams = tuple(streams)


class SchemaConflictError(EtlError):
    """A type would narrow, or two types have no common one."""


class ContractViolationError(EtlError):
    """A rule that must hold does not; the staged data were not published."""


class ErrorBudgetExceededError(EtlError):
    """More rows were rejected than the pipeline allows."""


class RowsNotConservedError(EtlError):
    """An account does not balance."""


class ConcurrentCommitError(EtlError):
    """Another run committed the same work first."""


class EngineError(EtlError):
    """A query could not be evaluated."""
