"""`flows.review` as a Prefect flow; prefect.yaml has a deployment of it."""

from contextlib import suppress
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.reporting.timeouts import within
from flows.review import carry_out
from flows.reviewing.review import Request
from stages.common.errors import AttuneError
from stages.common.pipeline.stage import LOGS

KEY = "attune-review"
SECONDS = 5.0  # for the server to take the page


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
    found, page = written.review.rebuild, written.markdown.read_text(encoding="utf-8")
    reproduced = written.verdict.headline[0].text
    with suppress(TimeoutError):  # the state says it as well
        within(SECONDS, lambda: create_markdown_artifact(page, key=KEY, description=reproduced))
    if not found.holds:
        why = f"{found.verdict}, first of all {found.first}" if found.first else found.verdict
        raise AttuneError(
            f"{written.review.head.short} is not reproduced ({why}): {reproduced}", f"read {written.html}"
        )
    return {"commit": written.review.head.commit, "rebuild": found.verdict, "page": str(written.html.resolve())}
