"""`flows.predict` as a Prefect flow with the same parameters; prefect.yaml has a deployment of it."""

from pathlib import Path
from typing import Any, Literal

from prefect import flow

from flows.predict import LEVELS
from flows.predict import predict as predict_all
from flows.prediction.request import Request
from stages.serving.backends import Variant


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
    encoding: str = Request.encoding,
    query: str | None = None,
    threshold: float | None = None,
    batch_rows: int = Request.batch_rows,
    fail_on_drift: Literal["slight", "strong"] | None = None,
) -> dict[str, Any]:
    """Predict the rows of a file or database; what the parameters mean stands in docs/prediction.md.

    It returns how many rows there were, and the verdict on drift; the whole report is in its file.

    Raises:
        AttuneError: if input, output or model are not as they must be.
        RuntimeError: if there is more drift than `fail_on_drift` allows; everything is written all the same.
    """
    options = {name: value for name, value in locals().items() if name != "fail_on_drift"}
    request = Request(**{**options, "output": Path(output), "keep": keep or ()})
    report = predict_all(request)
    verdict = report["drift"]["verdict"]
    if fail_on_drift and verdict in LEVELS[fail_on_drift]:
        raise RuntimeError(f"{verdict}: {request.report}")
    return {name: report[name] for name in ("rows", "rows_without_text", "rows_abstained")} | {"drift": verdict}
