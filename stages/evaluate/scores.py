"""Scores with bootstrap intervals, by class and by slice, and the points of the ROC and precision-recall curves."""

import numpy as np
import polars as pl
from sklearn.metrics import log_loss, precision_recall_curve, precision_recall_fscore_support, roc_curve

from stages.common.params.evaluate import Bootstrap, Slices
from stages.tasks.comparison import compare
from stages.tasks.scores import confusion, resampled, scores_of, with_bounds
from stages.tasks.slices import slice_rows

DIGITS = 6
COMPARED = ("accuracy", "macro_f1")  # what baselines are shown with
POINTS = 200  # per curve; more cannot be told apart on a screen


def with_intervals(
    actual: np.ndarray, predicted: np.ndarray, classes: int, bootstrap: Bootstrap, seed: int
) -> dict[str, float]:
    """Return each score with the bounds of its percentile-bootstrap interval, as `accuracy`, `accuracy_low`, ….

    The rows are drawn with replacement (Efron & Tibshirani 1993, ch. 13); models scored with the same seed are scored
    on the same draws.
    """
    drawn = list(resampled(actual, predicted, classes, bootstrap.resamples, seed))
    return with_bounds(scores_of(confusion(actual, predicted, classes)), drawn, bootstrap.confidence)


def beside(
    actual: np.ndarray, ours: np.ndarray, theirs: np.ndarray, classes: int, bootstrap: Bootstrap, seed: int
) -> dict[str, float]:
    """Return a baseline's accuracy and macro-F1 with their intervals, and what our predictions gain over its own."""
    own = with_intervals(actual, theirs, classes, bootstrap, seed)
    gain = compare(actual, ours, theirs, classes, bootstrap, seed)
    kept = (*COMPARED, "fixed", "broken", "mcnemar_p")
    return {name: value for name, value in {**own, **gain}.items() if name.startswith(kept)}


def per_class(actual: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and support of each label."""
    parts = precision_recall_fscore_support(actual, predicted, labels=range(len(labels)), zero_division=0)
    names = ("precision", "recall", "f1", "support")
    return {
        label: {name: round(part[at].item(), DIGITS) for name, part in zip(names, parts, strict=True)}
        for at, label in enumerate(labels)
    }


def log_loss_of(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean negative log-likelihood (nats) of probabilities [n x k]."""
    return round(float(log_loss(actual, probabilities, labels=range(probabilities.shape[1]))), DIGITS)


def slice_scores(rows: pl.DataFrame, params: Slices, classes: int) -> pl.DataFrame:
    """Score the test rows by text length and by the columns named in params.

    Args:
        rows: test records with the class numbers `actual` and `predicted`.
        params: which slices, and how small one may be.
        classes: number of classes.

    Returns:
        A row a slice: slice, rows, accuracy, macro_f1; the longest list of values keeps its 50 largest slices.
    """
    actual, predicted = rows["actual"].to_numpy(), rows["predicted"].to_numpy()
    scored = []
    for name, part in slice_rows(rows, params):
        scores = scores_of(confusion(actual[part], predicted[part], classes))
        scored.append((name, len(part), *(round(float(scores[score]), DIGITS) for score in COMPARED)))
    schema = {"slice": pl.String, "rows": pl.Int64, "accuracy": pl.Float64, "macro_f1": pl.Float64}
    return pl.DataFrame(scored, schema=schema, orient="row")


def roc(actual: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> pl.DataFrame:
    """Return label, fpr and tpr along each label's ROC curve; of two labels, the second's."""
    return _curves(actual, probabilities, labels, ("fpr", "tpr"), lambda hits, scores: roc_curve(hits, scores)[:2])


def precision_recall(actual: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> pl.DataFrame:
    """Return label, recall and precision along each label's curve; of two labels, the second's."""
    return _curves(actual, probabilities, labels, ("recall", "precision"), _from_the_surest)


def _from_the_surest(hits: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision from the surest row on, until every row of the label is found.

    scikit-learn begins at the other end; after the last row that counts, precision only falls.
    """
    precision, recall, _ = precision_recall_curve(hits, scores)
    end = len(recall) - np.flatnonzero(recall == 1.0).max()
    return recall[::-1][:end], precision[::-1][:end]


def _curves(actual, probabilities, labels, names, curve) -> pl.DataFrame:  # type: ignore[no-untyped-def]
    tables = [pl.DataFrame(schema={"label": pl.String, names[0]: pl.Float64, names[1]: pl.Float64})]
    for number in [1] if len(labels) == 2 else range(len(labels)):
        hits = actual == number
        if hits.all() or not hits.any():  # a label against nothing has no curve
            continue
        x, y = curve(hits, probabilities[:, number])
        order = np.argsort(x, kind="stable")
        chosen = order[np.unique(np.linspace(0, len(order) - 1, POINTS).round().astype(int))]
        values = {names[0]: np.round(x[chosen], 6), names[1]: np.round(y[chosen], 6)}
        tables.append(pl.DataFrame({"label": [labels[number]] * len(chosen), **values}))
    return pl.concat(tables)
