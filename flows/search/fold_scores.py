"""Mean and spread of scores over folds, with an interval that allows for what the folds have in common."""

from math import inf, sqrt
from statistics import mean, stdev


def summarize(scores: list[float], ratio: float, confidence: float, most: float = inf) -> dict[str, float]:
    """Return `mean`, `sd`, `low` and `high` of the folds' scores, the interval by the corrected resampled t-test.

    The trainings of two folds have most of their rows in common, so their scores are not independent, and the plain
    standard error, sd / √k, is too small. Nadeau & Bengio (2003) put √(1/k + held out/train) · sd in its place.

    Args:
        scores: one per fold, at least two.
        ratio: held-out rows to training rows.
        confidence: of the interval, such as 0.95.
        most: the greatest value that a score can have; the least is 0. The interval ends there.
    """
    from scipy.stats import t

    middle, spread = mean(scores), stdev(scores)
    half = float(t.ppf((1 + confidence) / 2, len(scores) - 1)) * sqrt(1 / len(scores) + ratio) * spread
    values = {"mean": middle, "sd": spread, "low": max(0.0, middle - half), "high": min(most, middle + half)}
    return {name: round(value, 6) for name, value in values.items()}
