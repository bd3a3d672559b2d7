"""The flow of a review: a commit is run again from nothing, and what it makes held against what its `dvc.lock` says."""

import os

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # before Prefect reads its settings

from contextlib import suppress
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.notify import tell_failure
from flows.pipeline import bring_up_to_date
from flows.scheduled.place import held, here, leave
from flows.scheduled.repository import git, object_at
from flows.scheduled.results import first_difference
from flows.told.deadline import within
from flows.told.markdown import code, table
from stages.common.errors import AttuneError
from stages.common.graph import read_graph, read_lock
from stages.common.stage import WORK

LEFT_OUT = ("register",)  # its verdict is on the champion of the day
LOCK = Path("dvc.lock")
ARTIFACT_SECONDS = 5.0


@flow(name="attune-review", log_prints=True, persist_result=False, on_failure=[tell_failure], on_crashed=[tell_failure])
def review(commit: str = "HEAD") -> dict[str, str]:
    """Run a commit again from nothing; nothing is taken from the cache, tracked, registered or kept.

    Args:
        commit: what to review: a commit, tag or branch.

    Returns:
        The word `same` for each stage.

    Raises:
        AttuneError: naming the first stage whose outs have other bytes; the worktree is left for a look.
    """
    place = here(flow_run.id)  # `commit` is what it was made at
    with held(place):
        if not object_at(place.folder, f"HEAD:{LOCK}"):
            raise AttuneError("the commit has no dvc.lock, so there is nothing to hold a run against", "commit one")
        git(place.folder, "checkout", "HEAD", "--", str(LOCK))
        committed = read_lock()
        LOCK.unlink()
        # Of a review, the project's own store is to know nothing, least of all a new champion.
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place.folder / WORK / 'review.db'}"
        stages = [name for name in read_graph() if name not in LEFT_OUT]
        outcomes = bring_up_to_date(stages, force=True, tell=False)
        stage, outs = first_difference(committed, read_lock(), stages)
        verdict = f"first other bytes: {stage}" if stage else "the same bytes again"
        rows = [(name, f"{one.seconds:.1f}", _word(name, stage, stages)) for name, one in outcomes.items()]
        text = f"**{code(commit)}: {verdict}.**\n\n" + table(("stage", "seconds", "outs"), "lrl", rows) + "\n"
        with suppress(TimeoutError):  # the state says it as well
            within(ARTIFACT_SECONDS, lambda: create_markdown_artifact(text, key="attune-review", description=verdict))
        if stage:
            raise AttuneError(
                f"{stage} is the first stage that made other bytes than its dvc.lock says: {', '.join(outs)}",
                f"compare {place.folder} with the commit; other CPUs and numbers of threads give other bytes (docs)",
            )
        leave(place)
    return Completed(message=f"the same bytes again: {', '.join(stages)}", data=dict.fromkeys(stages, "same"))


def _word(name: str, first: str, stages: list[str]) -> str:
    if not first or stages.index(name) < stages.index(first):
        return "same"
    return "other bytes" if name == first else "not compared"
