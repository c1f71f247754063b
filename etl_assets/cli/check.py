"""`etl check`: evaluate the contracts of a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl_assets.cli.options import Env, Json, Pipeline, Select
from etl_resources.exceptions import ConfigurationError

if TYPE_CHECKING:
    import dagster as dg

    from etl_assets.cli.outcome import Outcome
    from etl_assets.cli.project import Project


def check(pipeline: Pipeline, select: Select = None, env: Env = None, json: Json = False) -> int:
    """Evaluate the contracts over the tables as they are now; Dagster keeps the results."""
    from etl_assets.cli.output import emit, own_streams
    from etl_assets.cli.project import entered
    from etl_assets.cli.run import waiting
    from etl_assets.cli.state import STATE

    with entered(env) as project:
        with waiting("checking"):
            outcome = _evaluated(project, pipeline, select or [], own_streams(silence=not STATE.debug))
        good = outcome.status == "success" or not outcome.failures
        bad = [one for one in outcome.broken if one.severity == "ERROR"]
        if json:
            emit({"pipeline": pipeline, **_to_json(outcome)})
        else:
            _print(pipeline, outcome)
    return 0 if good and not bad else 1


def _evaluated(project: Project, pipeline: str, select: list[str], streams: Any) -> Outcome:
    from etl_assets.cli.records import CHECKS_TAG
    from etl_assets.cli.running import Request, execute
    from etl_assets.cli.usage import WrongUsage

    checks = standing_checks(project, project.location.select(pipeline, select))
    if not checks:
        raise WrongUsage(
            f"{pipeline} has no checks that can be evaluated alone",
            fix="give a silver table a contract; those of gold are checked whenever the table is built",
        )
    unloaded = sorted({"/".join(one.asset_key.path) for one in checks if not _is_loaded(project, one)})
    if unloaded:
        raise ConfigurationError(
            f"{', '.join(unloaded)}: not loaded yet, so there is nothing to check", fix=f"etl run {pipeline}"
        )
    with streams:
        return execute(project, Request(pipeline, checks=checks, tags={CHECKS_TAG: "only"}))


def _is_loaded(project: Project, check: dg.AssetCheckKey) -> bool:
    return project.location.lake.table(*check.asset_key.path).open() is not None


def standing_checks(project: Project, keys: list[dg.AssetKey]) -> list[dg.AssetCheckKey]:
    """Return the checks of some tables that can be evaluated without loading the table."""
    graph, wanted = project.location.graph, set(keys)
    return sorted(
        check
        for check in graph.asset_check_keys
        if check.asset_key in wanted and not graph.get_execution_set_asset_and_check_keys(check) & wanted
    )


def _to_json(outcome: Outcome) -> dict[str, Any]:
    found = outcome.to_json()
    return {
        "run_id": outcome.run_id,
        "checks": [one.to_json() for one in outcome.checks],
        "failures": [one for one in found["failures"] if one["kind"] != "DagsterAssetCheckFailedError"],
    }


def _print(pipeline: str, outcome: Outcome) -> None:
    from etl_assets.cli.failures import print_failures
    from etl_assets.cli.location import short_name
    from etl_assets.cli.output import plural, stdout, table
    from etl_assets.cli.state import STATE

    console = stdout()
    rows = [
        [
            short_name(one.key, pipeline),
            one.name,
            "passed" if one.passed else one.severity.lower(),
            one.metadata.get("failed"),
            one.metadata.get("checked"),
            "" if one.passed else one.description,
        ]
        for one in sorted(outcome.checks, key=lambda one: (one.passed, one.key.path, one.name))
    ]
    console.print(table(["table", "check", "result", "failed", "of", "what"], rows, fold=["what"]))
    passed = sum(one.passed for one in outcome.checks)
    console.print(f"{passed} of {plural(len(outcome.checks), 'check')} passed.")
    outcome.failures[:] = [one for one in outcome.failures if one.kind != "DagsterAssetCheckFailedError"]
    print_failures(console, outcome, debug=STATE.debug)
