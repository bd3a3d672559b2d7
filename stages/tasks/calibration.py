"""What validation decides once and for all: a temperature, and how confident the model must be of each label.

One temperature makes probabilities mean what they say (Guo et al. 2017); below a label's threshold the model abstains.
"""

from dataclasses import replace
from math import floor
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from stages.common.display import display
from stages.common.params import EvaluateParams
from stages.common.params.evaluate import Thresholds
from stages.tasks.base import DIGITS
from stages.tasks.curves import log_loss_of

COLDEST, HOTTEST = 0.05, 20.0
LEAST_ROWS = 20  # a precision of 1.0 on fewer rows is luck: even a model that is right 4 times in 5 has 3 rows in a row
NEVER = 2.0  # no probability reaches it: the label is not answered


class Threshold(NamedTuple):
    """How a label's threshold was chosen."""

    threshold: float  # least calibrated probability; 0: any will do; `NEVER`: none will
    reached: float | None  # the metric on validation with this threshold; None: nothing is left to measure it on
    rows: int  # validation rows it was measured on: answered with the label (precision), or of the label (recall)
    problem: str | None = None  # why the target is not reached, if it is not


def fit_decision(
    params: EvaluateParams, actual: np.ndarray, raw: np.ndarray, undecided: Any
) -> tuple[Any, dict[str, Threshold]]:
    """Return the decision, and how the threshold of each label was chosen (empty if none is asked for).

    The validation rows are class numbers [n], and probabilities [n x k] as the model gives them.
    """
    temperature = fit_temperature(actual, raw) if params.calibration.temperature else 1.0
    decision = replace(undecided, temperature=temperature)
    calibrated = decision.calibrated(raw)
    chosen = choose(params.thresholds, actual, calibrated, decision.labels) if params.thresholds else {}
    return replace(decision, thresholds={label: choice.threshold for label, choice in chosen.items()}), chosen


def fit_temperature(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """Return what to divide the logits by for the least log loss of class numbers [n] under probabilities [n x k].

    Rows that are all predicted rightly would have it at 0, and every probability at 0 or 1: then it is 1.
    """
    if (probabilities.argmax(axis=1) == actual).all():
        return 1.0
    logits = np.log(np.clip(probabilities, 1e-300, None))
    of_label = logits[np.arange(len(actual)), actual]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float(np.mean(logsumexp(logits * scale, axis=1) - of_label * scale))

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    optimum = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return round(float(np.exp(optimum.x)), DIGITS)


def choose(
    params: Thresholds, actual: np.ndarray, probabilities: np.ndarray, labels: list[str]
) -> dict[str, Threshold]:
    """Choose the threshold of each label on validation rows: class numbers [n], calibrated probabilities [n x k].

    Precision: the least threshold whose answers are right as often as `target` says, over no fewer than `LEAST_ROWS`
    answers; where there is none, the label is never answered, since nothing shows that its answers would be good
    enough. Recall: the highest threshold at which that share of the label's rows is still found; where the share is
    not reached even without one, the label is always answered, since abstaining would only lose more.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rule = _for_recall if params.metric == "recall" else _for_precision
    return {
        label: rule(params.target, actual == number, predicted == number, confidence)
        for number, label in enumerate(labels)
    }


def _for_precision(target: float, of_label: np.ndarray, answered: np.ndarray, confidence: np.ndarray) -> Threshold:
    order = np.flatnonzero(answered)[np.argsort(-confidence[answered], kind="stable")]
    if len(order) < LEAST_ROWS:
        return Threshold(NEVER, None, 0, f"{len(order)} validation rows are predicted so, fewer than {LEAST_ROWS}")
    falling, answers = confidence[order], np.arange(1, len(order) + 1)
    precision = np.cumsum(of_label[order]) / answers
    last_of_equal = np.append(falling[1:] < falling[:-1], True)  # equal confidences are answered together or not at all
    possible = last_of_equal & (answers >= LEAST_ROWS)
    good = np.flatnonzero(possible & (precision >= target))
    if not len(good):
        best = precision[possible].max()
        return Threshold(NEVER, None, 0, f"the best precision of {LEAST_ROWS} or more answers is {best:.3f}")
    last = int(good[-1])
    threshold = 0.0 if last == len(order) - 1 else _below(falling[last])
    return Threshold(threshold, round(float(precision[last]), DIGITS), last + 1)


def _for_recall(target: float, of_label: np.ndarray, answered: np.ndarray, confidence: np.ndarray) -> Threshold:
    rows = int(of_label.sum())
    hits = np.sort(confidence[of_label & answered])[::-1]
    reached = round(len(hits) / rows, DIGITS) if rows else None
    if rows < LEAST_ROWS:
        return Threshold(0.0, reached, rows, f"{rows} validation rows have the label, fewer than {LEAST_ROWS}")
    needed = int(np.ceil(target * rows - 1e-9))
    if len(hits) < needed:
        return Threshold(0.0, reached, rows, f"the recall is {reached:.3f} without any threshold")
    threshold = _below(hits[needed - 1]) if needed else NEVER
    return Threshold(threshold, round(float((hits >= threshold).sum()) / rows, DIGITS), rows)


def _below(probability: float) -> float:
    """Return a number of few digits that the probability just reaches."""
    return floor(probability * 10**DIGITS) / 10**DIGITS


def threshold_report(
    chosen: dict[str, Threshold], decision: Any, actual: np.ndarray, probabilities: np.ndarray
) -> dict[str, Any] | None:
    """Return what the thresholds do to rows that they were not chosen on; None without thresholds.

    The rows are class numbers [n] and calibrated probabilities [n x k]; `decision` holds the thresholds `chosen`.
    """
    if not chosen:
        return None
    answered = ~decision.abstains(probabilities)
    predicted = probabilities.argmax(axis=1)
    right = answered & (predicted == actual)
    labels = {}
    for number, (label, choice) in enumerate(chosen.items()):
        of_prediction = predicted == number
        labels[label] = {
            "threshold": None if choice.threshold == NEVER else choice.threshold,
            "validation": choice.reached,
            "validation_rows": choice.rows,
            "precision": _share(right, answered & of_prediction),
            "recall": _share(right, actual == number),
            "coverage": _share(answered, of_prediction),
            "problem": choice.problem,
        }
    return {
        "coverage": _share(answered, np.ones_like(answered)),
        "right": _share(right, answered),
        "labels": labels,
    }


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    """Return how many of the rows of `whole` are in `part`; None if there are none."""
    rows = int(whole.sum())
    return round(int((part & whole).sum()) / rows, DIGITS) if rows else None


def threshold_messages(report: dict[str, Any] | None) -> list[str]:
    """Return what the terminal says of a threshold report: first of all, of labels whose target is out of reach."""
    if report is None:
        return []
    messages = [
        f"warning: threshold of {display(label, 60)!r}: {entry['problem']}; "
        + ("it is never answered" if entry["threshold"] is None else "it is always answered")
        for label, entry in report["labels"].items()
        if entry["problem"]
    ]
    right = "none" if report["right"] is None else f"{report['right']:.4f}"
    return [*messages, f"thresholds: {report['coverage']:.1%} of the test rows are answered, accuracy {right}"]


def calibration_report(
    actual: np.ndarray, as_trained: np.ndarray, calibrated: np.ndarray, bins: int
) -> tuple[dict[str, float], pl.DataFrame]:
    """Return what calibration did to probabilities [n x k], as numbers and as a reliability diagram."""
    before, after = (reliability(actual, probabilities, bins) for probabilities in (as_trained, calibrated))
    truth = np.eye(calibrated.shape[1])[actual]
    numbers = {
        "ece": expected_calibration_error(after),
        "ece_before": expected_calibration_error(before),
        "brier": round(float(((calibrated - truth) ** 2).sum(axis=1).mean()), DIGITS),  # 0 to 2 (Brier 1950)
        "log_loss": log_loss_of(actual, calibrated),
        "log_loss_before": log_loss_of(actual, as_trained),
        "bins": after.height,
    }
    parts = {"as trained": before, "calibrated": after}
    return numbers, pl.concat([part.select(pl.lit(name).alias("label"), "*") for name, part in parts.items()])


def reliability(actual: np.ndarray, probabilities: np.ndarray, bins: int) -> pl.DataFrame:
    """Return how confident the model is and how often it is right, in bins of equally many rows.

    Of class numbers [n] and probabilities [n x k] it makes a row a bin: bin, confidence (mean), share (that is right),
    rows. There are no empty bins, so there may be fewer.
    """
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == actual).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return pl.DataFrame(
        {
            "bin": range(1, len(parts) + 1),
            "confidence": [round(float(confidence[part].mean()), DIGITS) for part in parts],
            "share": [round(float(right[part].mean()), DIGITS) for part in parts],
            "rows": [len(part) for part in parts],
        }
    )


def expected_calibration_error(diagram: pl.DataFrame) -> float:
    """Return the mean distance between confidence and what is right over the rows of a reliability diagram's bins."""
    gap = (pl.col("confidence") - pl.col("share")).abs()
    return round(float(diagram.select((gap * pl.col("rows")).sum() / pl.col("rows").sum()).item()), DIGITS)
