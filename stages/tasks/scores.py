"""Scores of predicted labels, from one confusion matrix or from thousands at once."""

import numpy as np


def confusion(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the counts [actual x predicted] of class numbers [n]."""
    return np.bincount(actual * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def scores_of(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of one or many confusion matrices [... x k x k], each as an array [...].

    A class without rows, or never predicted, counts with 0, as in scikit-learn's `zero_division=0`.
    """
    counts = counts.astype(np.float64)
    hits, actual, predicted = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)
    rows = actual.sum(-1)
    precision, recall = _ratio(hits, predicted), _ratio(hits, actual)
    f1 = _ratio(2 * hits, actual + predicted)
    seen = (actual + predicted) > 0  # scikit-learn averages over the labels that occur

    def macro(values: np.ndarray) -> np.ndarray:
        return (values * seen).sum(-1) / seen.sum(-1)

    return {
        "accuracy": hits.sum(-1) / rows,
        "macro_f1": macro(f1),
        "weighted_f1": (f1 * actual).sum(-1) / rows,
        "macro_precision": macro(precision),
        "macro_recall": macro(recall),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
