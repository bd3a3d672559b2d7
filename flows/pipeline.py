"""`python -m flows.pipeline`: the DVC graph as a Prefect flow, one task per stage, in graph order.

Retries, delays and timeouts stand in the `meta` of each stage in dvc.yaml; the stages themselves know nothing of it.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow, get_run_logger

from flows.command import program
from flows.execution.stage_process import Outcome
from flows.execution.stage_tasks import StageTasks
from flows.plan import chosen, forced_stages, read_options
from flows.prefect_server import api_server
from flows.prepare import prepare
from flows.reporting.artifact import publish
from flows.reporting.reports import read_reports
from flows.search.params_patch import change, rewrite
from stages.common.errors import AttuneError
from stages.common.locks import in_turn
from stages.common.params import PARAMS_FILE, check_params, load_params, read_yaml
from stages.common.pipeline.stage import WORK

LOCK = WORK / "pipeline.lock"  # held by `make run` as well


@flow(name="attune", log_prints=True, persist_result=False)
def pipeline(
    targets: list[str] | None = None, force: bool = False, set: dict[str, Any] | None = None, refresh: bool = False
) -> dict[str, str]:
    """Run what has to run of the pipeline in the current folder; return the state of each stage.

    Args:
        targets: stages to bring up to date, with those that they need; none: all.
        force: run them even if nothing changed.
        set: other values for params.yaml, by dotted key; they stay there.
        refresh: look at sources again whose content may have changed without a pin that knows.

    Raises:
        AttuneError: if a parameter or params.yaml is wrong, before anything runs.
        StageFailed: if a stage failed.
    """
    outcomes = bring_up_to_date(targets or (), force=force, set=set, refresh=refresh)
    return {name: outcome.state for name, outcome in outcomes.items()}


def bring_up_to_date(
    targets: Sequence[str], *, force: bool, set: Mapping[str, Any] | None, refresh: bool
) -> dict[str, Outcome]:
    """Do the work of `pipeline` inside of whatever flow calls it; parameters and errors are the same."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    log = get_run_logger().info
    with in_turn(LOCK, lambda: log("another run is at work in this checkout: waiting for it to end")):
        if set and (lines := rewrite(set)):
            log("params.yaml has other values now:\n" + "\n".join(lines))
        prepare(log)
        graph = chosen(targets)
        forced = forced_stages(graph, load_params(complete=True), force=force, refresh=refresh)
        earlier, stages = read_reports(), StageTasks(graph, forced)
        try:
            stages.run_all()
        finally:
            log("  ".join(f"{name}: {outcome.state}" for name, outcome in stages.outcomes.items()))
            publish(stages.outcomes, earlier)
        return stages.outcomes


def _without_traceback(record: logging.LogRecord) -> bool:
    """Log errors for people without a traceback."""
    if record.exc_info and isinstance(record.exc_info[1], AttuneError):
        record.exc_info = None
    return True


@program("interrupted; what was finished is kept, and the same command goes on")
def main(arguments: list[str] | None = None) -> None:
    """Run the flow from the command line."""
    options = read_options("pipeline", "The pipeline as a Prefect flow.", arguments)
    check_params(change(read_yaml(PARAMS_FILE), options["set"]))  # errors come before a server starts
    chosen(options["targets"])
    with api_server():
        pipeline(**options)


if __name__ == "__main__":
    sys.exit(main())
