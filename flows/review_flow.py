"""`flows.review` as a Prefect flow; prefect.yaml has a deployment of it."""

from contextlib import suppress
from pathlib import Path

from prefect import flow

from flows.reporting.artifact import create_artifact
from flows.review import carry_out
from flows.reviewing.review import Request
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
    request = Request(base, head, rebuild, logs=LOGS / "review")
    written = carry_out(Path.cwd(), request, LOGS, print)  # into the run's log
    rebuilt, reproduced = written.review.rebuild, written.verdict.headline[0].text
    with suppress(TimeoutError):  # the state says it as well
        create_artifact(written.markdown.read_text(encoding="utf-8"), "attune-review", reproduced)
    if not rebuilt.holds:
        why = f"{rebuilt.verdict}, first of all {rebuilt.first}" if rebuilt.first else rebuilt.verdict
        raise AttuneError(
            f"{written.review.head.short} is not reproduced ({why}): {reproduced}", f"read {written.html}"
        )
    return {"commit": written.review.head.commit, "rebuild": rebuilt.verdict, "page": str(written.html.resolve())}
