"""The flow of scheduled runs: the pipeline in a worktree of its own, and its results kept beside all branches.

prefect.yaml has its deployments, flows/repository/worktrees.py makes the worktrees, and docs/retraining.md says where
the results are.
"""

import logging
import os
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.execution.stage_process import Outcome
from flows.pipeline import bring_up_to_date
from flows.reporting.reports import REPORTS, read_report, spec_of
from flows.repository.results import keep, push_results, reference
from flows.repository.worktree_files import push_all
from flows.repository.worktrees import held, remove, worktree_of
from stages.common.errors import AttuneError
from stages.common.git import git
from stages.tracking.store import tracking_uri


@flow(name="attune-retrain", log_prints=True, persist_result=False)
def retrain(
    commit: str = "HEAD",
    targets: list[str] | None = None,
    force: bool = False,
    set: dict[str, Any] | None = None,
    refresh: bool = False,
    branch: bool = False,
    push: bool = False,
) -> dict[str, str]:
    """Run what has to run of the pipeline at a commit; return the state of each stage.

    Args:
        commit: what to run: a commit, tag or branch; of a remote's branch (`origin/main`) the newest.
        targets: stages to bring up to date, with those that they need; none: all.
        force: run them even if nothing changed.
        set: other values for params.yaml, by dotted key; the results are kept apart, under NAME-set.
        refresh: look at sources again whose content may have changed without a pin that knows.
        branch: have the branch attune/NAME point at the results, too; it is moved each time.
        push: send the results to origin, and the data to DVC's remote or fail.

    Raises:
        AttuneError: if a parameter is wrong, before anything runs; or the current folder was not made for this run.
        StageFailed: if a stage failed. The worktree is left for a look, and for a retry of this run.
    """
    folder = Path.cwd()
    home, name = worktree_of(flow_run.id)  # made at `commit`
    with held(folder):
        if push and "origin" not in git(folder, "remote").split("\n"):  # reported before hours of work
            raise AttuneError(f"push: {home} has no remote origin", "git remote add origin …, or leave push out")
        with chdir(home):  # MLflow's store is that of the home: the worktree is removed
            os.environ["MLFLOW_TRACKING_URI"] = tracking_uri()
        outcomes = bring_up_to_date(targets or (), force=force, set=set, refresh=refresh)
        message = keep_results(folder, f"{name}-set" if set else name, outcomes, branch=branch, push=push)
        os.chdir(home)
        remove(home, folder)
    return Completed(message=message, data={name: outcome.state for name, outcome in outcomes.items()})


def keep_results(
    folder: Path, name: str, outcomes: Mapping[str, Outcome], *, branch: bool = False, push: bool = False
) -> str:
    """Keep and push the results; return where they are, in a line.

    Raises:
        AttuneError: if the branch is checked out somewhere, or a `push` that was asked for did not work.
    """
    commit = keep(folder, name, _commit_message(name, outcomes), branch=branch)
    message = f"results are in {reference(name)}" if commit else "the results are those of the commit"
    if commit and branch:
        message += ", and in the branch of this name"
    if problem := push_all(folder):
        if push:  # not the lock alone: the data that it names would be missing elsewhere
            raise AttuneError(problem, "see to the remote, and retry this run: nothing is trained again")
        message += f", but {problem}"
    if commit and push:
        push_results(folder, name, branch=branch)
        message += ", and on origin"
    get_run_logger().log(logging.WARNING if problem else logging.INFO, message)
    return message


def _commit_message(name: str, outcomes: Mapping[str, Outcome]) -> str:
    ran = [stage for stage, outcome in outcomes.items() if outcome.state == "success"]
    metrics = read_report(REPORTS / "scores.json")
    headline = spec_of(metrics).headline
    scores = [f"{score.title} {metrics[score.name]:.4f}" for score in headline if score.name in metrics]
    subject = ", ".join([f"{name}: {' '.join(ran) or 'nothing new'}", *scores])
    lines = [f"{stage}: {outcome.state}" for stage, outcome in outcomes.items()]
    return "\n".join([subject, "", *lines, "", f"Attune-Run: {flow_run.id}", ""])
