"""evaluate: score the model on the test split, beside the baselines on the same rows."""

from pathlib import Path

import numpy as np
import polars as pl

from stages.common.params import EvaluateParams
from stages.common.schemas import CleanRecords, Predictions
from stages.common.stage import Run, stage, write_json
from stages.tasks import load_task

BATCH = 64
COMPARED = ("accuracy", "macro_f1")  # what baselines are shown with


@stage("evaluate")
def main(run: Run[EvaluateParams]) -> None:
    """Predict, score with intervals, by class and by slice, and draw the curves."""
    import transformers

    from stages.common.tracking.publish import publish_live
    from stages.evaluate import curves, scores, slices

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    train = CleanRecords.read(run.input("data/clean/train.parquet"))
    test = CleanRecords.read(run.input("data/clean/test.parquet"))
    folder = run.input("models/finetuned")
    task = load_task(run.all_params.task)
    labels = task.labels_of(folder)
    number = {label: at for at, label in enumerate(labels)}
    actual = np.array([number[label] for label in test["label"]])

    probabilities = task.probabilities(folder, test, BATCH)
    predicted = probabilities.argmax(axis=1)
    Predictions.write(_predictions(test, labels, predicted, probabilities), run.output("data/predictions.parquet"))

    def scored(chosen: np.ndarray) -> dict[str, float]:
        return scores.with_intervals(actual, chosen, len(labels), run.params.bootstrap, run.seed)

    metrics: dict[str, object] = {"rows": test.height, **scored(predicted)}
    metrics["log_loss"] = scores.log_loss_of(actual, probabilities)
    metrics["per_class"] = scores.per_class(actual, predicted, labels)
    print(
        f"  {test.height:,} test rows: accuracy {metrics['accuracy']:.4f}, macro-F1 {metrics['macro_f1']:.4f}",
        flush=True,
    )
    metrics["baselines"] = {
        name: {key: value for key, value in scored(chosen).items() if key.startswith(COMPARED)}
        for name, chosen in _baselines(run, train, test, number)
    }
    write_json(metrics, run.output("reports/metrics.json"))

    rows = test.with_columns(actual=actual, predicted=predicted)
    slices.slice_scores(rows, run.params.slices, len(labels)).write_csv(run.output("reports/plots/slices.csv"))
    pairs = pl.DataFrame({"actual": test["label"], "predicted": [labels[at] for at in predicted]})
    pairs.write_csv(run.output("reports/plots/confusion.csv"))
    curves.roc(actual, probabilities, labels).write_csv(run.output("reports/plots/roc.csv"))
    curves.precision_recall(actual, probabilities, labels).write_csv(run.output("reports/plots/precision_recall.csv"))
    publish_live(run, folder)


def _predictions(
    test: pl.DataFrame, labels: list[str], predicted: np.ndarray, probabilities: np.ndarray
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": test["id"],
            "label": test["label"],
            "prediction": [labels[at] for at in predicted],
            "confidence": probabilities.max(axis=1),
            "probabilities": probabilities.tolist(),
        }
    )


def _baselines(run: Run[EvaluateParams], train: pl.DataFrame, test: pl.DataFrame, number: dict[str, int]):  # type: ignore[no-untyped-def]
    """Yield the name and the predictions [n] of each baseline asked for."""
    from stages.evaluate import baselines

    actual = np.array([number[label] for label in train["label"]])
    for name in run.params.baselines:
        if name == "majority":
            chosen = baselines.majority(actual, test.height)
        elif name == "tfidf":
            chosen = baselines.tfidf(train, actual, test)
        else:
            chosen = baselines.base_model(run.input("models/base"), train, actual, test, _max_length(run))
        yield name, chosen


def _max_length(run: Run[EvaluateParams]) -> int:
    """Return the length that the fine-tuned model cuts texts to; the base model is measured on the same tokens."""
    from transformers import AutoTokenizer

    return int(AutoTokenizer.from_pretrained(Path(run.input("models/finetuned"))).model_max_length)


if __name__ == "__main__":
    main()
