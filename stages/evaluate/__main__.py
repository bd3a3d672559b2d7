"""evaluate: what the model is worth on the test split, how confident it must be to answer, and how it behaves."""

import json
import shutil
from typing import Any

import numpy as np
import polars as pl

from stages.common.digests import sha256_path
from stages.common.params import EvaluateParams
from stages.common.pipeline.stage import Run, stage, write_json
from stages.common.schemas import SPLITS, BehaviourCases, CleanRecords, Predictions
from stages.common.text.cleaning import FILE as TEXT_CLEANING
from stages.serving.decision import Decision
from stages.tasks import load_task

BATCH = 64


@stage("evaluate")
def main(run: Run[EvaluateParams]) -> None:
    """Decide on validation how the model answers; measure on test what comes of it; put it all on one page."""
    import transformers

    from stages.common.drift import profile_of
    from stages.evaluate import calibration, scores
    from stages.evaluate.page import render
    from stages.tasks.attribution import explain
    from stages.tasks.bootstrap import class_numbers, scores_with_intervals
    from stages.tasks.inference import labels_of, size_of
    from stages.tasks.slices import slice_scores
    from stages.tracking.publish import publish_live

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    train, validation, test = (CleanRecords.read(run.input(f"data/clean/{name}.parquet")) for name in SPLITS)
    folder, task = run.input("models/finetuned"), load_task(run.all_params.task)
    labels = labels_of(folder)
    run.params.behaviour.check_labels(labels)
    validation_actual, actual = (class_numbers(rows["label"], labels) for rows in (validation, test))
    raw = task.probabilities(folder, pl.concat([validation, test]), BATCH)
    raw_validation, raw = raw[: validation.height], raw[validation.height :]

    decision, thresholds = calibration.fit_decision(run.params, validation_actual, raw_validation, labels)
    serving = run.output("models/serving")
    decision.write(serving)
    shutil.copyfile(run.input(f"data/clean/{TEXT_CLEANING}"), serving / TEXT_CLEANING)
    calibrated = decision.calibrated(raw_validation)
    profile = profile_of(train, decision.labels, calibrated, decision.abstains(calibrated))
    write_json(profile, serving / "profile.json")

    probabilities = decision.calibrated(raw)
    predicted = probabilities.argmax(axis=1)
    predictions = scores.prediction_rows(test, actual, probabilities, decision)
    predictions = Predictions.write(predictions, run.output("data/predictions.parquet"))
    answered = test.with_columns(predictions["prediction"], predictions["confidence"])

    errors, diagram = calibration.calibration_report(actual, raw, decision, run.params.calibration.bins)
    metrics: dict[str, Any] = {
        "rows": test.height,
        **scores_with_intervals(actual, predicted, len(labels), run.params.bootstrap, run.seed),
        "log_loss": scores.log_loss_of(actual, probabilities),
        "per_class": scores.per_class(actual, predicted, labels),
        "calibration": errors,
        "thresholds": calibration.threshold_report(thresholds, decision, actual, probabilities),
    }
    print(f"  {test.height:,} test rows: accuracy {metrics['accuracy']:.4f}, macro-F1 {metrics['macro_f1']:.4f}")
    print(f"  calibration error {errors['ece_before']:.4f}, {errors['ece']:.4f} at temperature {errors['temperature']}")
    for message in calibration.threshold_messages(metrics["thresholds"]):
        print(f"  {message}", flush=True)
    metrics["baselines"] = _baselines(run, train, test, labels, actual, predicted)
    cases, metrics["behaviour"] = _behaviour(run, answered, decision)
    metrics["model"] = {**size_of(folder), "digest": sha256_path(folder), "serving": sha256_path(serving)}
    write_json(metrics, run.output("reports/metrics.json"))

    attributions, message = explain(folder, answered, labels, run.params.attributions, run.seed)
    print(f"  {message}", flush=True)
    numbered = test.with_columns(actual=actual, predicted=predicted)
    tables = {
        "roc": scores.roc(actual, probabilities, labels),
        "precision_recall": scores.precision_recall(actual, probabilities, labels),
        "reliability": diagram,
        "slices": slice_scores(numbered, run.params.slices, len(labels)),
    }
    for name, table in {**tables, "confusion": predictions.select(actual="label", predicted="prediction")}.items():
        table.write_csv(run.output(f"reports/plots/{name}.csv"))
    export = json.loads(run.input("reports/export.json").read_text(encoding="utf-8"))
    page = render(run.all_params, metrics, export, test, predictions, cases, attributions, tables)
    run.output("reports/evaluation.html").write_text(page, encoding="utf-8")
    publish_live(run, folder)


def _baselines(
    run: Run[EvaluateParams],
    train: pl.DataFrame,
    test: pl.DataFrame,
    labels: list[str],
    actual: np.ndarray,
    predicted: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Return each baseline's scores, and what the model gains over it."""
    from stages.evaluate import baselines

    scores: dict[str, dict[str, float]] = {}
    base, finetuned = run.input("models/base"), run.input("models/finetuned")
    for name in run.params.baselines:
        theirs = baselines.predict(name, train, test, labels, base, finetuned)
        scores[name] = baselines.beside(actual, predicted, theirs, len(labels), run.params.bootstrap, run.seed)
        gain, low, high = (scores[name][f"accuracy_gain{end}"] for end in ("", "_low", "_high"))
        message = f"the model gains {gain:+.4f} ({low:+.4f} to {high:+.4f})"
        print(f"  {name}: accuracy {scores[name]['accuracy']:.4f}; {message}", flush=True)
    return scores


def _behaviour(
    run: Run[EvaluateParams], answered: pl.DataFrame, decision: Decision
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """Run the behavioural tests on rows with their `prediction`; return the cases and a summary of each test."""
    from stages.evaluate import behaviour

    params, task = run.params.behaviour, load_task(run.all_params.task)

    def ask(rows: pl.DataFrame) -> np.ndarray:
        return decision.calibrated(task.probabilities(run.input("models/finetuned"), rows, BATCH))

    cases = behaviour.judge(params, behaviour.plan(params, answered, run.seed), decision.labels, ask)
    cases = BehaviourCases.write(cases, run.output("data/behaviour.parquet"))
    summary = behaviour.summary(params, cases)
    for name, counts in summary.items():
        result = f"{counts['passed']:,} of {counts['cases']:,} passed" if counts["cases"] else "no case"
        print(f"  {name}: {result}", flush=True)
    return cases, summary


if __name__ == "__main__":
    main()
