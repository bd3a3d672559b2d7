"""Prefect flows that run when somebody asks the server for them: a review, a batch prediction (prefect.yaml)."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from flows.predict import LEVELS
from flows.predict import predict as predict_all
from flows.prediction.request import Request
from flows.reporting.artifact import create_artifact
from flows.review import HTML, MARKDOWN, carry_out
from stages.common.errors import AttuneError
from stages.common.params.sources import Escape, Quote
from stages.common.pipeline.stage import LOGS
from stages.serving.backends import Variant


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
        raise AttuneError(f"{result.head.commit[:10]} is not reproduced ({why}): {reproduced}", f"read {LOGS / HTML}")
    return {"commit": result.head.commit, "rebuild": rebuilt.verdict, "page": str((LOGS / HTML).resolve())}


@flow(name="attune-predict", log_prints=True, persist_result=False)
def predict(
    input: str,
    output: str,
    model: str | None = None,
    variant: Variant | None = None,
    text: str = Request.text,
    text_pair: str | None = None,
    id: str | None = None,
    keep: list[str] | None = None,
    keep_all: bool = False,
    separator: str = Request.separator,
    quote: Quote = Request.quote,
    escape: Escape = Request.escape,
    header: bool = True,
    skip: int = Request.skip,
    encoding: str = Request.encoding,
    query: str | None = None,
    threshold: float | None = None,
    batch_rows: int | None = Request.batch_rows,
    fail_on_drift: Literal["slight", "strong"] | None = None,
) -> dict[str, Any]:
    """Predict the rows of a file or database; what the parameters mean stands in docs/prediction.md.

    It returns how many rows there were, and the verdict on drift; the whole report is in its file.

    Raises:
        AttuneError: if input, output or model are not as they must be.
        RuntimeError: if there is more drift than `fail_on_drift` allows; everything is written all the same.
    """
    options = {name: value for name, value in locals().items() if name != "fail_on_drift"}
    request = Request.checked(**{**options, "output": Path(output), "keep": keep or ()})
    report = predict_all(request)
    verdict = report["drift"]["verdict"]
    if fail_on_drift and verdict in LEVELS[fail_on_drift]:
        raise RuntimeError(f"{verdict}: {request.report}")
    return {name: report[name] for name in ("rows", "rows_without_text", "rows_abstained")} | {"drift": verdict}
