"""The flow of scheduled runs: the pipeline in a worktree of the run's own, and its results kept beside all branches.

prefect.yaml has its deployments, flows/repository/worktrees.py makes the worktrees; docs/retraining.md says where the
results are.
"""

import os
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.execution.outcome import Outcome
from flows.pipeline import bring_up_to_date
from flows.reporting.reports import REPORTS, SCORES, read_report
from flows.repository.git import asked
from flows.repository.results import keep, push_results, reference
from flows.repository.worktree_files import push_all
from flows.repository.worktrees import held, here, remove
from stages.common.errors import AttuneError
from stages.tracking.store import absolute_uri


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
    home, name = here(flow_run.id)  # `commit` is what the worktree was made at
    with held(folder):
        if push and "origin" not in asked(folder, "remote").split("\n"):  # said before hours of work
            raise AttuneError(f"push: {home} has no remote origin", "git remote add origin …, or leave push out")
        with chdir(home):  # the run tracks in the store of the home, not in one that goes with the worktree
            os.environ["MLFLOW_TRACKING_URI"] = absolute_uri()
        outcomes = bring_up_to_date(targets or (), force=force, set=set, refresh=refresh)
        said = keep_results(folder, f"{name}-set" if set else name, outcomes, branch=branch, push=push)
        os.chdir(home)
        remove(home, folder)
    return Completed(message=said, data={name: outcome.state for name, outcome in outcomes.items()})


def keep_results(
    folder: Path, name: str, outcomes: Mapping[str, Outcome], *, branch: bool = False, push: bool = False
) -> str:
    """Keep and push the results; return where they are, in a line.

    Raises:
        AttuneError: if the branch is checked out somewhere, or a `push` that was asked for did not work.
    """
    made = keep(folder, name, _message(name, outcomes), branch=branch)
    said = f"results are in {reference(name)}" if made else "the results are those of the commit"
    if made and branch:
        said += ", and in the branch of this name"
    if problem := push_all(folder):
        if push:  # whoever fetched the lock would ask in vain for what it names
            raise AttuneError(problem, "see to the remote, and retry this run: nothing is trained again")
        said += f", but {problem}"
    if made and push:
        push_results(folder, name, branch=branch)
        said += ", and on origin"
    get_run_logger().log(30 if problem else 20, said)  # a warning, or for information
    return said


def _message(name: str, outcomes: Mapping[str, Outcome]) -> str:
    ran = [stage for stage, outcome in outcomes.items() if outcome.state == "success"]
    metrics = read_report(REPORTS / "metrics.json")
    scores = [f"{label} {metrics[key]:.4f}" for label, key in SCORES.items() if key in metrics]
    subject = ", ".join([f"{name}: {' '.join(ran) or 'nothing new'}", *scores])
    lines = [f"{stage}: {outcome.state}" for stage, outcome in outcomes.items()]
    return "\n".join([subject, "", *lines, "", f"Attune-Run: {flow_run.id}", ""])
