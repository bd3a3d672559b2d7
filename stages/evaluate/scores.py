"""Scores with bootstrap intervals, and by class."""

from typing import Any

import numpy as np
from sklearn.metrics import log_loss, precision_recall_fscore_support

from stages.common.params.evaluate import Bootstrap
from stages.tasks.comparison import compare
from stages.tasks.scores import confusion, resampled, scores_of, with_bounds

DIGITS = 6
COMPARED = ("accuracy", "macro_f1")  # what baselines are shown with


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
        label: {name: _plain(part[at]) for name, part in zip(names, parts, strict=True)}
        for at, label in enumerate(labels)
    }


def log_loss_of(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean negative log-likelihood (nats) of probabilities [n x k]."""
    return round(float(log_loss(actual, probabilities, labels=range(probabilities.shape[1]))), DIGITS)


def _plain(value: Any) -> float:
    return int(value) if np.issubdtype(type(value), np.integer) else round(float(value), DIGITS)
