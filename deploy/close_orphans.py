"""Close the runs that a machine going down left open: run before the code server starts.

Runs are children of the code server. While it is down, a run that it had started and that is not finished is dead, but
Dagster would hold it for running until `max_runtime_seconds`, and its pipeline would wait in the queue behind it.
"""

from __future__ import annotations

import sys

import dagster as dg

OPEN = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
LAUNCHED = ".dagster/grpc_info"
"""Tag of runs that a code server started; a run of the command line has none, and may well be alive."""


def close_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Report every orphan as failed, so that `run_retries` starts it again, and return their ids."""
    orphans = [run for run in instance.get_runs(dg.RunsFilter(statuses=OPEN)) if LAUNCHED in run.tags]
    for run in orphans:
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(
                run, "The machine or the code server went down while the run was being cancelled."
            )
        else:
            instance.report_run_failed(run, "The machine or the code server went down while the run was working.")
    return [run.run_id for run in orphans]


if __name__ == "__main__":
    with dg.DagsterInstance.get() as home:
        for run_id in close_orphans(home):
            sys.stdout.write(f"closed {run_id}\n")
