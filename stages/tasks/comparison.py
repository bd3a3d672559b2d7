"""Two models on the same rows: how much better is one, and could that be chance?"""

import numpy as np
from scipy.stats import binomtest

from stages.common.params.evaluate import Bootstrap
from stages.tasks.scores import confusion, resampled, scores_of, with_bounds


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
