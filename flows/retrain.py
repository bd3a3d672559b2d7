"""The flow of scheduled runs: the pipeline in a worktree of the run's own, and its results kept beside all branches.

prefect.yaml has its deployments, flows/worktree.py makes the worktrees; docs/retraining.md says where the results are.
"""

import os
from collections.abc import Mapping
from contextlib import chdir
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.git import asked
from flows.pipeline import bring_up_to_date
from flows.running.outcome import Outcome
from flows.scheduled.place import Place, held, here, leave
from flows.scheduled.results import branch_of, keep, push_commit, push_data, reference
from flows.told.reports import REPORTS, SCORES, read_report
from stages.common.errors import AttuneError
from stages.common.tracking.nested import absolute_uri


@flow(name="attune-retrain", log_prints=True, persist_result=False)
def retrain(
    commit: str = "HEAD",
    targets: list[str] | None = None,
    force: bool = False,
    set: dict[str, Any] | None = None,
    refresh: bool = False,
    branch: bool | str = False,
    push: bool = False,
) -> dict[str, str]:
    """Run what has to run of the pipeline at a commit; return the state of each stage.

    Args:
        commit: what to run: a commit, tag or branch; of a remote's branch (`origin/main`) the newest.
        targets: stages to bring up to date, with those that they need; none: all.
        force: run them even if nothing changed.
        set: other values for params.yaml, by dotted key; the results are kept apart, under NAME-set.
        refresh: look at sources again whose content may have changed without a pin that knows.
        branch: a local branch that points at the results, too: `attune/…`, or true: attune/NAME. It is moved each time.
        push: send the results to origin, and the data to DVC's remote or fail.

    Raises:
        AttuneError: if a parameter is wrong, before anything runs; or the current folder was not made for this run.
        StageFailed: if a stage failed. The worktree is left for a look, and for a retry of this run.
    """
    place = here(flow_run.id)  # `commit` is what it was made at
    name = f"{place.name}-set" if set else place.name
    with held(place):
        offered = branch_of(place.folder, branch, name)
        if push and "origin" not in asked(place.folder, "remote").split("\n"):  # said before hours of work
            raise AttuneError(f"push: {place.home} has no remote origin", "git remote add origin …, or leave push out")
        share_tracking(place)
        outcomes = bring_up_to_date(targets or (), force=force, set=set, refresh=refresh)
        said = keep_results(place, name, outcomes, offered, push)
        leave(place)
    return Completed(message=said, data={name: outcome.state for name, outcome in outcomes.items()})


def share_tracking(place: Place) -> None:
    """Have this process and its stages track in the store of the home, not in one that goes with the run."""
    with chdir(place.home):
        os.environ["MLFLOW_TRACKING_URI"] = absolute_uri()


def keep_results(place: Place, name: str, outcomes: Mapping[str, Outcome], branch: str = "", push: bool = False) -> str:
    """Keep and push the results; return where they are, in a line.

    Raises:
        AttuneError: if the branch is checked out somewhere, or a `push` that was asked for did not work.
    """
    log = get_run_logger()
    made = keep(place.folder, name, _message(place, outcomes), branch)
    said = [f"results are in {reference(name)}" if made else "the results are those of the commit"]
    if made and branch:
        said.append(f"and in the branch {branch}")
    problem = push_data(place.folder)
    if problem and push:  # whoever fetched the lock would ask in vain for what it names
        raise AttuneError(problem, "see to the remote, and retry this run: nothing is trained again")
    if problem:
        log.warning("%s; `dvc push` in a worktree of %s catches up", problem, reference(name))
        said.append(f"but {problem}")
    if made and push:
        push_commit(place.folder, name, made, branch)
        said.append("and on origin")
    log.info(", ".join(said))
    return ", ".join(said)


def _message(place: Place, outcomes: Mapping[str, Outcome]) -> str:
    ran = [stage for stage, outcome in outcomes.items() if outcome.state == "success"]
    known = read_report(REPORTS / "metrics.json")
    scores = [f"{told} {known[key]:.4f}" for told, key in SCORES.items() if isinstance(known.get(key), float)]
    subject = ", ".join([f"{place.name}: {' '.join(ran) or 'nothing new'}", *scores])
    lines = [f"{stage}: {outcome.state}" for stage, outcome in outcomes.items()]
    return "\n".join([subject, "", *lines, "", f"Attune-Run: {place.run}", ""])
