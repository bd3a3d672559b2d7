"""Two models on the same rows: how much better is one, and could that be chance?"""

import numpy as np
from scipy.stats import binomtest

from stages.common.params.evaluate import Bootstrap
from stages.tasks.scores import confusion, f1_of, resampled, resampled_counts, scores_of, with_bounds


def compare(
    actual: np.ndarray, ours: np.ndarray, theirs: np.ndarray, classes: int, bootstrap: Bootstrap, seed: int
) -> dict[str, float]:
    """Return what our predictions gain over theirs, class numbers [n] each.

    Both are scored on the same draws of rows (paired bootstrap, Efron & Tibshirani 1993; Koehn 2004). McNemar's test
    is the exact one, on the rows that only one of the two gets right (McNemar 1947).

    Returns:
        `accuracy_gain`, `accuracy_gain_low`, `accuracy_gain_high` (bounds of the interval), the same for the other
        scores; `fixed` and `broken`, the rows that only ours or only theirs gets right; `mcnemar_p`.
    """
    drawn = [
        {f"{name}_gain": mine[name] - their[name] for name in mine}
        for mine, their in zip(
            resampled(actual, ours, classes, bootstrap.resamples, seed),
            resampled(actual, theirs, classes, bootstrap.resamples, seed),
            strict=True,
        )
    ]
    mine, their = (scores_of(confusion(actual, predicted, classes)) for predicted in (ours, theirs))
    result = with_bounds({f"{name}_gain": mine[name] - their[name] for name in mine}, drawn, bootstrap.confidence)
    fixed, broken = (
        int(((ours == actual) & (theirs != actual)).sum()),
        int(((ours != actual) & (theirs == actual)).sum()),
    )
    p_value = binomtest(fixed, fixed + broken).pvalue if fixed + broken else 1.0
    return {**result, "fixed": fixed, "broken": broken, "mcnemar_p": float(f"{p_value:.3g}")}


def class_gains(
    actual: np.ndarray, ours: np.ndarray, theirs: np.ndarray, classes: int, bootstrap: Bootstrap, seed: int
) -> list[dict[str, float]]:
    """Return what our predictions gain over theirs in the F1 of each class, on the draws that `compare` makes.

    Returns:
        For each class `f1_gain`, `f1_gain_low` and `f1_gain_high`.
    """
    drawn = [
        f1_of(mine) - f1_of(their)
        for mine, their in zip(
            resampled_counts(actual, ours, classes, bootstrap.resamples, seed),
            resampled_counts(actual, theirs, classes, bootstrap.resamples, seed),
            strict=True,
        )
    ]
    gains = f1_of(confusion(actual, ours, classes)) - f1_of(confusion(actual, theirs, classes))
    return [
        with_bounds({"f1_gain": gain}, [{"f1_gain": some[:, at]} for some in drawn], bootstrap.confidence)
        for at, gain in enumerate(gains)
    ]


def accuracy_gain(
    actual: np.ndarray, ours: np.ndarray, theirs: np.ndarray, bootstrap: Bootstrap, seed: int
) -> dict[str, float]:
    """Return the `accuracy_gain` of `compare` with its bounds; quick however many classes [n] there are."""
    rows = np.ones(len(actual), dtype=np.int64)
    found = compare(rows, (ours == actual).astype(np.int64), (theirs == actual).astype(np.int64), 2, bootstrap, seed)
    return {name: value for name, value in found.items() if name.startswith("accuracy_gain")}
