"""How errors are told: what happened, where, how to fix it; without a traceback unless one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from etl_assets.cli.outcome import Outcome


def print_failures(console: Console, outcome: Outcome, *, debug: bool) -> None:
    """Print every failed step of a run."""
    from rich.markup import escape

    for failure in outcome.failures:
        name = failure.step.replace("__", "/")
        console.print(f"\n[red bold]✗ {escape(name or 'the run')}[/red bold]")
        console.print(indented(failure.trace if debug else failure.message), markup=False)
        if not debug and not known_kind(failure.kind):
            console.print(f"  ({failure.kind}; --debug shows where it came from)", markup=False)


def known_kind(name: str) -> bool:
    """Tell whether an exception is one that the project raises on purpose."""
    from etl_resources import exceptions

    return hasattr(exceptions, name) or name == "DagsterAssetCheckFailedError"


def indented(text: str) -> str:
    """Return a message under a heading."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def told(error: Exception) -> int:
    """Print an error that nobody raised on purpose, or the one of ours that it wraps; return the exit code."""
    import sys

    from etl_resources.exceptions import EtlError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, EtlError):
        cause = cause.__cause__ or cause.__context__
    unforeseen = f"{type(error).__name__}: {error}\n  fix:   --debug shows where it came from"
    sys.stderr.write(f"{unforeseen if cause is None else cause}\n")
    return 1
