"""`flows.review` as a Prefect flow; prefect.yaml has a deployment of it."""

from contextlib import suppress

from prefect import flow

from flows.reporting.artifact import create_artifact
from flows.review import HTML, MARKDOWN, carry_out
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import LOGS


@flow(name="attune-review", log_prints=True, persist_result=False)
def review(base: str | None = None, head: str = "HEAD", rebuild: bool = True) -> dict[str, str]:
    """Review a commit of the current folder's checkout, in which nothing changes; the comment is an artifact, too.

    Args:
        base: what to compare it with; none: `origin/main`, or what comes nearest to it.
        head: the commit, tag or branch that is reviewed.
        rebuild: run its pipeline again from nothing.

    Returns:
        The commit, the rebuild's verdict, and where the page is.

    Raises:
        AttuneError: if it is not reproduced, naming the first stage; if a commit is none.
    """
    result, verdict = carry_out(base, head, rebuild, LOGS, print)  # into the run's log
    rebuilt, reproduced = result.rebuild, verdict.headline[0].text
    with suppress(TimeoutError):  # the state says it as well
        create_artifact((LOGS / MARKDOWN).read_text(encoding="utf-8"), "attune-review", reproduced)
    if not rebuilt.holds:
        why = f"{rebuilt.verdict}, first of all {rebuilt.first}" if rebuilt.first else rebuilt.verdict
        raise AttuneError(f"{result.head.short} is not reproduced ({why}): {reproduced}", f"read {LOGS / HTML}")
    return {"commit": result.head.commit, "rebuild": rebuilt.verdict, "page": str((LOGS / HTML).resolve())}
