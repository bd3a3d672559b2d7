"""Scores of predicted labels, and how sure they are: from one confusion matrix, or from thousands of resampled ones.

The bootstrap draws the test rows again with replacement (Efron & Tibshirani 1993, ch. 13). The same seed, number of
rows and number of classes give the same draws, so that two models are compared on the same rows (paired bootstrap,
Koehn 2004).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from stages.common.params.evaluate import Bootstrap

DIGITS = 6
CHUNK = 1_000_000  # numbers held in memory at once: rows drawn, or cells of their confusion matrices

Scores = dict[str, np.ndarray]  # by name, one value for each confusion matrix [...]
Score = Callable[..., Scores]  # of one or many confusion matrices [... x k x k] for each model


def class_numbers(names: Iterable[str], labels: list[str]) -> np.ndarray:
    """Return the class number of each label by its name, [n] int64."""
    number = {label: index for index, label in enumerate(labels)}
    return np.array([number[name] for name in names], dtype=np.int64)


def confusion(actual: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the counts [actual x predicted] of class numbers [n]."""
    return np.bincount(actual * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def scores_of(counts: np.ndarray) -> Scores:
    """Return the scores of one or many confusion matrices [... x k x k], each as an array [...].

    A class without rows, or never predicted, counts with 0, as in scikit-learn's `zero_division=0`.
    """
    counts = counts.astype(np.float64)
    hits, actual, predicted = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)
    rows = actual.sum(-1)
    f1 = f1_of(counts)
    occurs = (actual + predicted) > 0  # scikit-learn averages over the labels that occur

    def macro(values: np.ndarray) -> np.ndarray:
        return (values * occurs).sum(-1) / occurs.sum(-1)

    return {
        "accuracy": hits.sum(-1) / rows,
        "macro_f1": macro(f1),
        "weighted_f1": (f1 * actual).sum(-1) / rows,
        "macro_precision": macro(_ratio(hits, predicted)),
        "macro_recall": macro(_ratio(hits, actual)),
    }


def f1_of(counts: np.ndarray) -> np.ndarray:
    """Return the F1 of each class from one or many confusion matrices [... x k x k], as an array [... x k]."""
    counts = counts.astype(np.float64)
    return _ratio(2 * np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1) + counts.sum(-2))


def scores_with_intervals(
    actual: np.ndarray, predicted: np.ndarray, classes: int, bootstrap: Bootstrap, seed: int
) -> dict[str, float]:
    """Return each score of class numbers [n] with its bootstrap interval: `accuracy`, `accuracy_low`, …."""
    return _with_intervals(scores_of, actual, (predicted,), classes, bootstrap, seed)


def compare(
    actual: np.ndarray, ours: np.ndarray, theirs: np.ndarray, classes: int, bootstrap: Bootstrap, seed: int
) -> dict[str, float]:
    """Return what our predictions gain over theirs, class numbers [n] each.

    McNemar's test is the exact one, on the rows that only one of the two gets right (McNemar 1947).

    Returns:
        `accuracy_gain`, `accuracy_gain_low`, `accuracy_gain_high` (bounds of the interval), the same for the other
        scores; `fixed` and `broken`, the rows that only ours or only theirs gets right; `mcnemar_p`.
    """
    from scipy.stats import binomtest

    gains = _with_intervals(_gain_in(scores_of), actual, (ours, theirs), classes, bootstrap, seed)
    fixed = int(((ours == actual) & (theirs != actual)).sum())
    broken = int(((ours != actual) & (theirs == actual)).sum())
    p_value = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    return {**gains, "fixed": fixed, "broken": broken, "mcnemar_p": float(f"{p_value:.3g}")}


def class_gains(
    actual: np.ndarray, ours: np.ndarray, theirs: np.ndarray, classes: int, bootstrap: Bootstrap, seed: int
) -> list[dict[str, float]]:
    """Return for each class what our predictions gain in its F1: `f1_gain`, `f1_gain_low`, `f1_gain_high`."""

    def f1_by_class(counts: np.ndarray) -> Scores:
        f1 = f1_of(counts)
        return {str(index): f1[..., index] for index in range(classes)}

    gains = _with_intervals(_gain_in(f1_by_class), actual, (ours, theirs), classes, bootstrap, seed)
    ends = ("gain", "gain_low", "gain_high")
    return [{f"f1_{end}": gains[f"{index}_{end}"] for end in ends} for index in range(classes)]


def _gain_in(score: Score) -> Score:
    """Return the function from our and their counts to by how much our scores are above theirs: `NAME_gain`."""

    def gain(*counts: np.ndarray) -> Scores:
        ours, theirs = map(score, counts)
        return {f"{name}_gain": ours[name] - theirs[name] for name in ours}

    return gain


def _with_intervals(
    score: Score, actual: np.ndarray, models: Sequence[np.ndarray], classes: int, bootstrap: Bootstrap, seed: int
) -> dict[str, float]:
    """Return each score of the models' predictions [n] with its percentile interval: `NAME`, `NAME_low`, …."""
    drawn = (_resampled(actual, predicted, classes, bootstrap, seed) for predicted in models)
    draws = [score(*counts) for counts in zip(*drawn, strict=True)]
    tail = 50 * (1 - bootstrap.confidence)
    result: dict[str, float] = {}
    for name, value in score(*(confusion(actual, predicted, classes) for predicted in models)).items():
        low, high = np.percentile(np.concatenate([draw[name] for draw in draws]), [tail, 100 - tail])
        for key, number in ((name, value), (f"{name}_low", low), (f"{name}_high", high)):
            result[key] = round(float(number), DIGITS)
    return result


def _resampled(
    actual: np.ndarray, predicted: np.ndarray, classes: int, bootstrap: Bootstrap, seed: int
) -> Iterator[np.ndarray]:
    """Yield the confusion matrices [m x k x k] of rows drawn with replacement, as many draws as fit into memory."""
    rows, cells = len(actual), classes * classes
    generator = np.random.default_rng(seed)
    cell = actual * classes + predicted
    step = max(1, CHUNK // max(rows, cells))
    for start in range(0, bootstrap.resamples, step):
        number = min(step, bootstrap.resamples - start)
        drawn = cell[generator.integers(0, rows, size=(number, rows))]
        offset = np.arange(number)[:, None] * cells
        counts = np.bincount((drawn + offset).ravel(), minlength=number * cells)
        yield counts.reshape(number, classes, classes)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
