"""The `etl` command: parses what was typed, tells errors, and ends with 0 (done), 1 (failed) or 2 (wrong usage)."""

from __future__ import annotations

import functools
import sys
import time
import warnings
from collections.abc import Sequence

import click
import typer

from etl_assets.cli import capture, check, demo, doctor, errors, history, new, plan, query, run, status
from etl_assets.cli.state import STATE
from etl_resources.exceptions import EtlError

app = typer.Typer(
    name="etl",
    help="Run pipelines, see what they did, and look after the rows that they could not take.",
    epilog="Everything goes through Dagster: `dagster dev` shows the same runs, tables and checks in a browser.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    new.new,
    plan.plan,
    run.run,
    check.check,
    query.query,
    status.status,
    history.history,
    history.stats,
    doctor.doctor,
):
    app.command()(command)
app.add_typer(errors.app)
app.add_typer(capture.app)
app.add_typer(demo.app)


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks and Dagster's own log; works in any place."),
) -> None:
    STATE.debug = STATE.debug or debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` as in a shell, default: those of the process."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    STATE.debug, STATE.started = "--debug" in typed, time.perf_counter()
    with warnings.catch_warnings():
        if not STATE.debug:
            warnings.simplefilter("ignore")  # what libraries tell their programmers is nothing to a user's terminal
        return _guarded([word for word in typed if word != "--debug"])


@functools.cache
def _command() -> click.Command:
    """Return what the words are parsed with; making it takes longer than many a command."""
    return typer.main.get_command(app)


def _guarded(typed: list[str]) -> int:
    try:
        result = _command()(typed, standalone_mode=False)
    except click.UsageError as error:
        return _wrong_usage(error)
    except (KeyboardInterrupt, click.Abort):
        _say("stopped")
        return 1
    except EtlError as error:
        return _told(error)
    except Exception as error:  # the last place before the user: whatever it is, it is told
        from etl_assets.cli.failures import told

        if STATE.debug:
            raise
        return told(error)
    return int(result or 0)


def _wrong_usage(error: click.UsageError) -> int:
    """Say what is wrong with the call itself."""
    path = error.ctx.command_path if error.ctx is not None else "etl"
    message = error.format_message()
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        message += f" (did you mean {', '.join(error.possibilities)}?)"
    _say(f"{message}\n  fix:   see {path} --help")
    return 2


def _told(error: EtlError) -> int:
    from etl_assets.cli.usage import WrongUsage

    if STATE.debug:
        raise error
    _say(str(error))
    return 2 if isinstance(error, WrongUsage) else 1


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
