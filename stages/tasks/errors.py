"""How far off predicted numbers are: scores, intervals fitted on validation, what they hold on test, tables of errors.

Most scores are made of sums that add up over rows; Spearman's correlation is not.
"""

from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stages.tasks.base import DIGITS
from stages.tasks.evidence import Evidence, Scores, ratio
from stages.tasks.targets import in_deciles

if TYPE_CHECKING:
    from stages.common.params import EvaluateParams, Params

ROUNDING = 1e-10  # of a sum of squares: a spread below it is none
MOST_BINS, LEAST_ROWS = 5, 100  # of answers with an interval of their own; validation rows of each
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # nominal coverages of the reliability diagram
CELLS = 64  # of the scatter, on either side
BARS = 41  # of the residuals: the middle one is around 0


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


def conformal(actual: np.ndarray, values: np.ndarray, coverage: float) -> tuple[list[float], list[float]]:
    """Return edges and margins of intervals that hold the actual numbers [n] of so large a share of rows.

    A margin is the ⌈(n+1)·coverage⌉-th smallest error of its bin: a new row is inside with that probability, whatever
    the model (Vovk et al. 2005; Lei et al. 2018). Bins of answers make intervals wide where errors are large (Mondrian
    conformal regressors, Boström & Johansson 2020). Both are empty where there are fewer rows than such a margin needs.
    """
    errors, rising = np.abs(values - actual), np.sort(values)
    needed = ceil(coverage / (1 - coverage) - 1e-9)
    bins = min(MOST_BINS, len(rising) // max(LEAST_ROWS, needed))
    edges = sorted({float(rising[len(rising) * place // bins]) for place in range(1, bins)} - {*rising[:1].tolist()})
    if len(errors) < needed:
        return [], []
    places, margins = np.searchsorted(edges, values, side="right"), []
    for place in range(len(edges) + 1):
        of_bin = errors[places == place]
        part = np.sort(of_bin if len(of_bin) >= max(LEAST_ROWS, needed) else errors)  # equal answers make bins uneven
        margins.append(float(f"{part[ceil((len(part) + 1) * coverage - 1e-9) - 1]:.9g}"))
    return edges, margins


def report(
    params: "Params",
    labels: pl.Series,
    values: np.ndarray,
    margins: np.ndarray,
    fitted: tuple[np.ndarray, np.ndarray],
) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    """Return entries of `reports/scores.json` and tables, of test rows with these labels, answers and margins [n].

    `fitted` are the numbers and answers of the validation rows [m].
    """
    limit = params.evaluate.max_width
    actual = labels.cast(pl.Float64).to_numpy()
    entries = {
        "calibration": coverage(actual, values, margins, params.evaluate, len(fitted[0])),
        "thresholds": answered(actual, values, 2 * margins > limit) if limit else None,
    }
    return entries, {
        "reliability": reliability(actual, values, *fitted),
        "scatter": scatter(actual, values),
        "residuals": residuals(actual, values),
        "error_by_decile": by_decile(actual, values, in_deciles(labels, params.clean.split.deciles)),
    }


def inside(actual: np.ndarray, values: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Return whether numbers are within these margins [n] of the values [n], [n] bool; the last digit is rounded."""
    return np.abs(values - actual) <= margins * (1 + 1e-6)


def coverage(
    actual: np.ndarray, values: np.ndarray, margins: np.ndarray, params: "EvaluateParams", fitted_on: int
) -> dict[str, Any]:
    """Return the coverage that was asked for and the one found, with its interval (Wilson 1927), and the width.

    Of numbers, answers and margins [n] of the test rows; a margin, half the width of an interval, is infinite where
    validation was too small for one, `fitted_on` so many rows.
    """
    from scipy.stats import binomtest

    report = {"nominal": params.conformal, "validation_rows": fitted_on, "problem": None}
    numbers = dict.fromkeys(("coverage", "coverage_low", "coverage_high", "width"))
    if not np.isfinite(margins).all():
        return report | numbers | {"problem": f"{fitted_on} validation rows are too few"}
    held = inside(actual, values, margins)
    test = binomtest(int(held.sum()), len(held))
    bounds = test.proportion_ci(params.bootstrap.confidence, method="wilson")
    found = (test.statistic, bounds.low, bounds.high, 2 * margins.mean())
    return report | {name: round(float(value), DIGITS) for name, value in zip(numbers, found, strict=True)}


def answered(actual: np.ndarray, values: np.ndarray, abstained: np.ndarray) -> dict[str, float | None]:
    """Return the share of the rows that are answered (`coverage`), and the mean absolute error of these."""
    errors = np.abs(values - actual)[~abstained]
    mae = round(float(errors.mean()), DIGITS) if len(errors) else None
    return {"coverage": round(len(errors) / len(values), DIGITS), "mae": mae}


def reliability(
    actual: np.ndarray, values: np.ndarray, validation: np.ndarray, validation_values: np.ndarray
) -> pl.DataFrame:
    """Return the share of test rows [n] inside of intervals of several coverages, fitted on validation rows [m].

    Its columns are those of any task's: label, bin, confidence (nominal), share (found), rows.
    """
    rows: list[tuple[str, int, float, float, int]] = []
    for level in LEVELS:
        edges, margins = conformal(validation, validation_values, level)
        if margins:
            of_rows = np.array(margins)[np.searchsorted(edges, values, side="right")]
            found = float(inside(actual, values, of_rows).mean())
            rows.append(("interval", len(rows) + 1, level, round(found, DIGITS), len(actual)))
    schema = {"label": pl.String, "bin": pl.Int64, "confidence": pl.Float64, "share": pl.Float64, "rows": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def scatter(actual: np.ndarray, values: np.ndarray) -> pl.DataFrame:
    """Return how many rows are in each cell of actual by predicted numbers: the middle of the cell, and rows."""
    low, high = min(actual.min(), values.min()), max(actual.max(), values.max())
    size = (high - low) / CELLS or 1.0
    cells = {"actual": actual, "predicted": values}
    middles = {name: low + (np.minimum((part - low) // size, CELLS - 1) + 0.5) * size for name, part in cells.items()}
    return (
        pl.DataFrame(middles).with_columns(pl.all().round(DIGITS)).group_by(list(cells)).len("rows").sort(list(cells))
    )


def residuals(actual: np.ndarray, values: np.ndarray) -> pl.DataFrame:
    """Return how many rows are off by how much: residual (predicted - actual, the middle of a bar), rows."""
    error = values - actual
    widest = float(np.abs(error).max()) or 1.0
    counts, edges = np.histogram(error, BARS, (-widest, widest))
    return pl.DataFrame({"residual": ((edges[1:] + edges[:-1]) / 2).round(DIGITS), "rows": counts})


def by_decile(actual: np.ndarray, values: np.ndarray, deciles: pl.Series) -> pl.DataFrame:
    """Return mae and bias (mean of predicted - actual) of the rows of each decile: decile, rows, mae, bias."""
    error = pl.col("error")
    parts = pl.DataFrame({"decile": deciles, "error": values - actual}).group_by("decile")
    scored = parts.agg(rows=pl.len(), mae=error.abs().mean().round(DIGITS), bias=error.mean().round(DIGITS))
    return scored.sort("decile")
