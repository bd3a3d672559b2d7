"""Scores of predicted labels, from one confusion matrix or from thousands at once."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

DIGITS = 6
CHUNK = 1_000_000  # numbers held in memory at once: rows drawn, or cells of their confusion matrices


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
    f1 = f1_of(counts)
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


def f1_of(counts: np.ndarray) -> np.ndarray:
    """Return the F1 of each class from one or many confusion matrices [... x k x k], as an array [... x k]."""
    counts = counts.astype(np.float64)
    return _ratio(2 * np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1) + counts.sum(-2))


def resampled(
    actual: np.ndarray, predicted: np.ndarray, classes: int, resamples: int, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the scores of rows drawn with replacement, by name, some draws [m] at a time."""
    return map(scores_of, resampled_counts(actual, predicted, classes, resamples, seed))


def resampled_counts(
    actual: np.ndarray, predicted: np.ndarray, classes: int, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Yield the confusion matrices [m x k x k] of rows drawn with replacement, some draws at a time.

    The same seed, number of rows and of classes give the same draws: two models can be held against each other.
    """
    rows = len(actual)
    generator = np.random.default_rng(seed)
    pair = actual * classes + predicted
    step = max(1, CHUNK // max(rows, classes * classes))
    for start in range(0, resamples, step):
        number = min(step, resamples - start)
        drawn = pair[generator.integers(0, rows, size=(number, rows))]
        offset = np.arange(number)[:, None] * classes * classes
        counts = np.bincount((drawn + offset).ravel(), minlength=number * classes * classes)
        yield counts.reshape(number, classes, classes)


def with_bounds(point: Mapping[str, Any], drawn: list[dict[str, np.ndarray]], confidence: float) -> dict[str, float]:
    """Return each value with the bounds of its percentile-bootstrap interval, as `accuracy`, `accuracy_low`, ….

    Args:
        point: the values on the rows themselves, by name.
        drawn: the same for rows drawn again, some draws [m] at a time.
        confidence: share of the draws inside of the interval.
    """
    tail = 50 * (1 - confidence)
    result: dict[str, float] = {}
    for name, value in point.items():
        low, high = np.percentile(np.concatenate([sample[name] for sample in drawn]), [tail, 100 - tail])
        for key, number in ((name, value), (f"{name}_low", low), (f"{name}_high", high)):
            result[key] = round(float(number), DIGITS)
    return result


def class_numbers(names: Iterable[str], labels: list[str]) -> np.ndarray:
    """Return the class number of each label by its name, [n] int64."""
    number = {label: at for at, label in enumerate(labels)}
    return np.array([number[name] for name in names], dtype=np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
