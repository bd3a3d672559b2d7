"""Scores by class, ROC and precision-recall curves."""

from collections.abc import Callable

import numpy as np
import polars as pl
from sklearn.metrics import log_loss, precision_recall_curve, precision_recall_fscore_support, roc_curve

from stages.tasks.base import DIGITS

POINTS = 200  # per curve; more cannot be told apart on a screen

Curve = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  # hits and scores [n] to x and y


def per_class(actual: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and support of each label."""
    parts = precision_recall_fscore_support(actual, predicted, labels=range(len(labels)), zero_division=0)
    names = ("precision", "recall", "f1", "support")
    return {
        label: {name: round(part[index].item(), DIGITS) for name, part in zip(names, parts, strict=True)}
        for index, label in enumerate(labels)
    }


def log_loss_of(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean negative log-likelihood (nats) of probabilities [n x k]."""
    return round(float(log_loss(actual, probabilities, labels=range(probabilities.shape[1]))), DIGITS)


def roc(actual: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> pl.DataFrame:
    """Return label, fpr and tpr along each label's ROC curve; of two labels, the second's."""
    return _curves(actual, probabilities, labels, ("fpr", "tpr"), lambda hits, scores: roc_curve(hits, scores)[:2])


def precision_recall(actual: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> pl.DataFrame:
    """Return label, recall and precision along each label's curve; of two labels, the second's.

    A curve begins with the most confident row, and ends where every row of the label is found: from there on,
    precision only falls. scikit-learn begins at the other end.
    """

    def curve(hits: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        precision, recall, _ = precision_recall_curve(hits, scores)
        end = len(recall) - np.flatnonzero(recall == 1.0).max()
        return recall[::-1][:end], precision[::-1][:end]

    return _curves(actual, probabilities, labels, ("recall", "precision"), curve)


def _curves(
    actual: np.ndarray, probabilities: np.ndarray, labels: list[str], names: tuple[str, str], curve: Curve
) -> pl.DataFrame:
    tables = [pl.DataFrame(schema={"label": pl.String, **dict.fromkeys(names, pl.Float64)})]
    for number in [1] if len(labels) == 2 else range(len(labels)):
        hits = actual == number
        if hits.all() or not hits.any():  # a label against nothing has no curve
            continue
        x, y = curve(hits, probabilities[:, number])
        order = np.argsort(x, kind="stable")
        chosen = order[np.unique(np.linspace(0, len(order) - 1, POINTS).round().astype(int))]
        values = {names[0]: np.round(x[chosen], DIGITS), names[1]: np.round(y[chosen], DIGITS)}
        tables.append(pl.DataFrame({"label": [labels[number]] * len(chosen), **values}))
    return pl.concat(tables)
