"""Scores of predicted numbers: out of sums that add up over rows, and Spearman's correlation, which does not."""

from collections.abc import Callable

import numpy as np

from stages.tasks.base import Evidence, Scores, ratio

ROUNDING = 1e-10  # of a sum of squares: a spread below it is none


def evidence(actual: np.ndarray, values: np.ndarray) -> Evidence:
    """Return what all scores of predictions are computed from, of numbers and predictions [n]."""
    return Evidence(statistics(actual, values), scores, spearman(actual, values))


def scores_of(actual: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Return all scores of predictions [n]."""
    found = {**scores(statistics(actual, values).sum(axis=0)), **spearman(actual, values)(np.arange(len(actual))[None])}
    return {name: float(np.squeeze(value)) for name, value in found.items()}


def statistics(actual: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return n, Σy, Σy², Σŷ, Σŷ², Σyŷ, Σ|ŷ-y| and Σ(ŷ-y)² of each row, [n x 8], of numbers y and predictions ŷ [n].

    Both are taken from their means on, so that they lose no digits; no score is changed by that.
    """
    y, z, error = actual - actual.mean(), values - values.mean(), values - actual
    return np.stack([np.ones_like(y), y, y * y, z, z * z, y * z, np.abs(error), error * error], axis=1)


def scores(sums: np.ndarray) -> Scores:
    """Return the scores of sums of statistics [... x 8]; R² and Pearson's r are 0 where they are undefined."""
    n, y, yy, z, zz, yz, absolute, squared = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    of_y, of_z = _spread(n, y, yy), _spread(n, z, zz)
    pearson = ratio(yz - ratio(y * z, n), np.sqrt(of_y * of_z))
    return {
        "mae": ratio(absolute, n),
        "rmse": np.sqrt(ratio(squared, n)),
        "r2": np.where(of_y > 0, 1 - ratio(squared, of_y), 0.0),
        "pearson": np.clip(pearson, -1, 1),
    }


def spearman(actual: np.ndarray, values: np.ndarray) -> Callable[[np.ndarray], Scores]:
    """Return the function from drawn row numbers [b x n] to Spearman's correlation [b], 0 where it is undefined.

    Equal numbers share their average rank. All are put in their order once: the ranks of a draw follow from how often
    each number is in it.
    """
    orders = [np.unique(part, return_inverse=True)[1] for part in (actual, values)]

    def centred_ranks(order: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        places, width = order[drawn], int(order.max()) + 1  # [b x n]
        cells = places + np.arange(len(drawn))[:, None] * width
        times = np.bincount(cells.ravel(), minlength=len(drawn) * width).reshape(len(drawn), width)
        ranks = times.cumsum(axis=1) - (times - 1) / 2
        return np.take_along_axis(ranks, places, axis=1) - (drawn.shape[1] + 1) / 2

    def of_draws(drawn: np.ndarray) -> Scores:
        first, second = (centred_ranks(order, drawn) for order in orders)
        spreads = (first * first).sum(axis=1) * (second * second).sum(axis=1)
        return {"spearman": np.clip(ratio((first * second).sum(axis=1), np.sqrt(spreads)), -1, 1)}

    return of_draws


def _spread(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return Σ(y-ȳ)² of sums [...], 0 where only rounding is left of it."""
    spread = squares - ratio(total * total, n)
    return np.where(spread > ROUNDING * squares, spread, 0.0)
