"""How far off predicted numbers are: intervals fitted on validation, what they hold on test, and tables of errors."""

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from stages.tasks.targets import in_deciles

if TYPE_CHECKING:
    from stages.common.params import EvaluateParams, Params

DIGITS = 6
MOST_BINS, LEAST_ROWS = 5, 100  # of answers with an interval of their own; validation rows of each
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # nominal coverages of the reliability diagram
CELLS = 64  # of the scatter, on either side
BARS = 41  # of the residuals: the middle one is around 0


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
