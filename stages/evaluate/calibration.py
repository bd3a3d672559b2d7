"""Whether probabilities mean what they say, and one number that makes them (Guo et al. 2017)."""

import numpy as np
import polars as pl

from stages.serving.decision import Decision

DIGITS = 6
COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return what to divide the logits by for the least log loss.

    Rows that are all predicted rightly would have it at 0, and every probability at 0 or 1: then it is 1.

    Args:
        actual: class numbers [n] of rows that the model was not trained on.
        probabilities: as the model gives them, [n x k].
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = np.log(np.clip(probabilities, 1e-300, None))
    given = logits[np.arange(len(actual)), actual]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float(np.mean(logsumexp(logits * scale, axis=1) - given * scale))

    if (probabilities.argmax(axis=1) == actual).all():
        return 1.0
    bounds = (np.log(COLDEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return round(float(np.exp(found.x)), DIGITS)


def reliability(actual: np.ndarray, probabilities: np.ndarray, bins: int) -> pl.DataFrame:
    """Return how sure the model is and how often it is right, in bins of equally many rows.

    Args:
        actual: class numbers [n].
        probabilities: [n x k].
        bins: at most; there are no empty ones.

    Returns:
        A row a bin: bin, confidence (mean), accuracy, rows.
    """
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == actual).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return pl.DataFrame(
        {
            "bin": range(1, len(parts) + 1),
            "confidence": [round(float(confidence[part].mean()), DIGITS) for part in parts],
            "accuracy": [round(float(right[part].mean()), DIGITS) for part in parts],
            "rows": [len(part) for part in parts],
        }
    )


def expected_calibration_error(diagram: pl.DataFrame) -> float:
    """Return the mean distance between confidence and accuracy over the rows of a reliability diagram's bins."""
    gap = (pl.col("confidence") - pl.col("accuracy")).abs()
    return round(float(diagram.select((gap * pl.col("rows")).sum() / pl.col("rows").sum()).item()), DIGITS)


def brier(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the squared distance of probabilities [n x k] from the truth, mean over the rows: 0 to 2 (Brier 1950)."""
    truth = np.eye(probabilities.shape[1])[actual]
    return round(float(((probabilities - truth) ** 2).sum(axis=1).mean()), DIGITS)


def calibration(
    actual: np.ndarray, as_trained: np.ndarray, decision: Decision, bins: int
) -> tuple[dict[str, float], pl.DataFrame]:
    """Return what the temperature did to probabilities [n x k], as numbers and as a reliability diagram."""
    from stages.evaluate.scores import log_loss_of

    calibrated = decision.calibrated(as_trained)
    before, after = (reliability(actual, probabilities, bins) for probabilities in (as_trained, calibrated))
    numbers = {
        "temperature": decision.temperature,
        "ece": expected_calibration_error(after),
        "ece_before": expected_calibration_error(before),
        "brier": brier(actual, calibrated),
        "log_loss": log_loss_of(actual, calibrated),
        "log_loss_before": log_loss_of(actual, as_trained),
        "bins": after.height,
    }
    diagram = pl.concat(
        [
            before.select(pl.lit("as trained").alias("label"), "*"),
            after.select(pl.lit("calibrated").alias("label"), "*"),
        ]
    )
    return numbers, diagram
