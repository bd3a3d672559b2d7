"""evaluate: what the model is worth on the test split, how sure it must be, and how it behaves."""

import json
import shutil
from typing import Any

import numpy as np
import polars as pl

from stages.common.digests import sha256_path
from stages.common.params import EvaluateParams
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.schemas import BehaviourCases, CleanRecords, Predictions
from stages.common.text.cleaning import FILE as TEXT_CLEANING
from stages.tasks import load_task

BATCH = 64
SPLITS = ("train", "validation", "test")


@stage("evaluate")
def main(run: Run[EvaluateParams]) -> None:
    """Decide on validation how the model answers; measure on test what comes of it; put it all on one page."""
    import transformers

    from stages.common.drift import profile_of
    from stages.evaluate import behaviour, thresholds
    from stages.evaluate.calibration import calibration
    from stages.evaluate.page import PageData, render
    from stages.evaluate.predicted import explained, predicted_rows
    from stages.tasks.scores import class_numbers, confusion
    from stages.tasks.size import size_of
    from stages.tracking.publish import publish_live

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    train, validation, test = (CleanRecords.read(run.input(f"data/clean/{name}.parquet")) for name in SPLITS)
    folder, task = run.input("models/finetuned"), load_task(run.all_params.task)
    labels = task.labels_of(folder)
    run.params.behaviour.check_labels(labels)
    known, actual = (class_numbers(rows["label"], labels) for rows in (validation, test))
    raw = task.probabilities(folder, pl.concat([validation, test]), BATCH)
    raw_known, raw = raw[: len(known)], raw[len(known) :]

    decision, chosen = thresholds.decide(run.params, known, raw_known, labels)
    serving = run.output("models/serving")
    decision.write(serving)
    shutil.copyfile(run.input(f"data/clean/{TEXT_CLEANING}"), serving / TEXT_CLEANING)
    known = decision.calibrated(raw_known)
    profile = profile_of(train, decision.labels, known, decision.abstains(known))
    write_json(profile, serving / "profile.json")

    probabilities = decision.calibrated(raw)
    predicted = probabilities.argmax(axis=1)
    rows = predicted_rows(test, actual, probabilities, decision)
    predictions = Predictions.write(rows, run.output("data/predictions.parquet"))
    answered = test.with_columns(predictions["prediction"], predictions["confidence"])

    metrics = _scores(run, actual, probabilities, labels)
    metrics["calibration"], diagram = calibration(actual, raw, decision, run.params.calibration.bins)
    _tell("calibration error {ece_before:.4f}, {ece:.4f} at temperature {temperature}", **metrics["calibration"])
    metrics["thresholds"] = thresholds.on_test(chosen, decision, actual, probabilities) if chosen else None
    for line in thresholds.told(metrics["thresholds"]):
        _tell(line)
    metrics["baselines"] = _baselines(run, train, test, labels, actual, predicted)

    planned = behaviour.plan(run.params.behaviour, answered, run.seed)
    cases = behaviour.judge(
        run.params.behaviour, planned, labels, lambda rows: decision.calibrated(task.probabilities(folder, rows, BATCH))
    )
    cases = BehaviourCases.write(cases, run.output("data/behaviour.parquet"))
    metrics["behaviour"] = behaviour.summary(run.params.behaviour, cases)
    for name, found in metrics["behaviour"].items():
        _tell(f"{name}: {found['passed']:,} of {found['cases']:,} passed" if found["cases"] else f"{name}: no case")
    metrics["model"] = {**size_of(folder), "digest": sha256_path(folder), "serving": sha256_path(serving)}
    write_json(metrics, run.output("reports/metrics.json"))

    explanations, told = explained(folder, answered, labels, run.params.attributions, run.seed)
    _tell(told)
    plots = _plots(run, test, actual, probabilities, labels, diagram)
    page = PageData(
        params=run.all_params,
        metrics=metrics,
        export=json.loads(run.input("reports/export.json").read_text(encoding="utf-8")),
        records=test,
        predictions=predictions,
        confusion=confusion(actual, predicted, len(labels)),
        behaviour=cases,
        attributions=explanations,
        **plots,
    )
    run.output("reports/evaluation.html").write_text(render(page), encoding="utf-8")
    publish_live(run, folder)


def _scores(
    run: Run[EvaluateParams], actual: np.ndarray, probabilities: np.ndarray, labels: list[str]
) -> dict[str, Any]:
    from stages.evaluate import scores

    predicted = probabilities.argmax(axis=1)
    found: dict[str, Any] = {
        "rows": len(actual),
        **scores.with_intervals(actual, predicted, len(labels), run.params.bootstrap, run.seed),
        "log_loss": scores.log_loss_of(actual, probabilities),
        "per_class": scores.per_class(actual, predicted, labels),
    }
    _tell("{rows:,} test rows: accuracy {accuracy:.4f}, macro-F1 {macro_f1:.4f}", **found)
    return found


def _baselines(
    run: Run[EvaluateParams],
    train: pl.DataFrame,
    test: pl.DataFrame,
    labels: list[str],
    actual: np.ndarray,
    predicted: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Return each baseline's scores, and what the model gains over it."""
    from transformers import AutoTokenizer

    from stages.evaluate import baselines
    from stages.evaluate.scores import beside
    from stages.tasks.scores import class_numbers

    given = class_numbers(train["label"], labels)
    found: dict[str, dict[str, float]] = {}
    for name in run.params.baselines:
        if name == "majority":
            theirs = baselines.majority(given, test.height)
        elif name == "tfidf":
            theirs = baselines.tfidf(train, given, test)
        else:
            # measured on the tokens that the fine-tuned model sees
            length = AutoTokenizer.from_pretrained(run.input("models/finetuned")).model_max_length
            theirs = baselines.base_model(run.input("models/base"), train, given, test, int(length))
        found[name] = beside(actual, predicted, theirs, len(labels), run.params.bootstrap, run.seed)
        bounds = "({accuracy_gain_low:+.4f} to {accuracy_gain_high:+.4f})"
        _tell(f"{name}: accuracy {{accuracy:.4f}}; the model gains {{accuracy_gain:+.4f}} {bounds}", **found[name])
    return found


def _plots(
    run: Run[EvaluateParams],
    test: pl.DataFrame,
    actual: np.ndarray,
    probabilities: np.ndarray,
    labels: list[str],
    reliability: pl.DataFrame,
) -> dict[str, pl.DataFrame]:
    """Write the tables that DVC and the page draw; return those that the page does not have otherwise."""
    from stages.evaluate import scores

    predicted = probabilities.argmax(axis=1)
    rows = test.with_columns(actual=actual, predicted=predicted)
    tables = {
        "roc": scores.roc(actual, probabilities, labels),
        "precision_recall": scores.precision_recall(actual, probabilities, labels),
        "reliability": reliability,
        "slices": scores.slice_scores(rows, run.params.slices, len(labels)),
    }
    pairs = pl.DataFrame({"actual": test["label"], "predicted": [labels[at] for at in predicted]})
    for name, table in {**tables, "confusion": pairs}.items():
        table.write_csv(run.output(f"reports/plots/{name}.csv"))
    return tables


def _tell(line: str, **values: Any) -> None:
    print(f"  {line.format(**values) if values else line}", flush=True)


if __name__ == "__main__":
    main()
