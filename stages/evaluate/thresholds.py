"""What validation decides once and for all: the temperature, and how sure the model must be of each label to answer."""

from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np

from stages.common.params import EvaluateParams
from stages.common.params.evaluate import Thresholds
from stages.evaluate.calibration import fit_temperature
from stages.serving.decision import Decision

DIGITS = 6
LEAST_ROWS = 20  # a precision of 1.0 on fewer rows is luck: even a model that is right 4 times in 5 has 3 rows in a row
NEVER = 2.0  # no probability reaches it: the label is not answered


@dataclass(frozen=True)
class Chosen:
    """A label's threshold.

    Args:
        threshold: least calibrated probability; 0: any will do; `NEVER`: none will.
        reached: the metric on validation with this threshold; None where nothing is left to measure it on.
        rows: validation rows that it was measured on: answered with the label (precision), or of the label (recall).
        problem: why the target is not reached, if it is not.
    """

    threshold: float
    reached: float | None
    rows: int
    problem: str | None = None


def decide(
    params: EvaluateParams, actual: np.ndarray, raw: np.ndarray, labels: list[str]
) -> tuple[Decision, dict[str, Chosen]]:
    """Return the decision, and how the threshold of each label was chosen (empty if none is asked for).

    Args:
        params: whether to calibrate, and what the labels have to reach.
        actual: class numbers [n] of the validation rows.
        raw: their probabilities as the model gives them, [n x k].
        labels: in the order of the probabilities.
    """
    temperature = fit_temperature(actual, raw) if params.calibration.temperature else 1.0
    decision = Decision(labels, temperature)
    if params.thresholds is None:
        return decision, {}
    chosen = choose(params.thresholds, actual, decision.calibrated(raw), labels)
    return Decision(labels, temperature, {label: one.threshold for label, one in chosen.items()}), chosen


def choose(params: Thresholds, actual: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> dict[str, Chosen]:
    """Choose the threshold of each label on validation rows.

    Precision: the least threshold whose answers are right as often as `target` says, over no fewer than `LEAST_ROWS`
    answers; where there is none, the label is never answered, since nothing shows that its answers would be good
    enough. Recall: the highest threshold at which that share of the label's rows is still found; where the share is
    not reached even without one, the label is always answered, since abstaining would only lose more.

    Args:
        params: metric and target.
        actual: class numbers [n].
        probabilities: calibrated, [n x k].
        labels: in the order of the probabilities.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rule = _for_precision if params.metric == "precision" else _for_recall
    return {label: rule(params.target, actual == at, predicted == at, confidence) for at, label in enumerate(labels)}


def _for_precision(target: float, of_label: np.ndarray, answered: np.ndarray, confidence: np.ndarray) -> Chosen:
    order = np.flatnonzero(answered)[np.argsort(-confidence[answered], kind="stable")]
    if len(order) < LEAST_ROWS:
        return Chosen(NEVER, None, 0, f"{len(order)} validation rows are predicted so, fewer than {LEAST_ROWS}")
    sure, right = confidence[order], np.cumsum(of_label[order])
    precision = right / np.arange(1, len(order) + 1)
    last_of_its_kind = np.append(sure[1:] < sure[:-1], True)  # equal confidences are answered together or not at all
    possible = last_of_its_kind & (np.arange(1, len(order) + 1) >= LEAST_ROWS)
    good = np.flatnonzero(possible & (precision >= target))
    if not len(good):
        best = precision[possible].max()
        return Chosen(NEVER, None, 0, f"the best precision of {LEAST_ROWS} or more answers is {best:.3f}")
    at = good[-1]
    threshold = 0.0 if at == len(order) - 1 else _below(sure[at])
    return Chosen(threshold, round(float(precision[at]), DIGITS), int(at) + 1)


def _for_recall(target: float, of_label: np.ndarray, answered: np.ndarray, confidence: np.ndarray) -> Chosen:
    rows = int(of_label.sum())
    found = np.sort(confidence[of_label & answered])[::-1]
    reached = round(len(found) / rows, DIGITS) if rows else None
    if rows < LEAST_ROWS:
        return Chosen(0.0, reached, rows, f"{rows} validation rows have the label, fewer than {LEAST_ROWS}")
    needed = int(np.ceil(target * rows - 1e-9))
    if len(found) < needed:
        return Chosen(0.0, reached, rows, f"the recall is {reached:.3f} without any threshold")
    threshold = _below(found[needed - 1]) if needed else NEVER
    return Chosen(threshold, round(float((found >= threshold).sum()) / rows, DIGITS), rows)


def _below(probability: float) -> float:
    """Return a number of few digits that the probability just reaches."""
    return floor(probability * 10**DIGITS) / 10**DIGITS


def on_test(
    chosen: dict[str, Chosen], decision: Decision, actual: np.ndarray, probabilities: np.ndarray
) -> dict[str, Any]:
    """Return what the thresholds do to rows that they were not chosen on, as the report has it.

    Args:
        chosen: the thresholds, by label.
        decision: that holds them.
        actual: class numbers [n].
        probabilities: calibrated, [n x k].
    """
    answered = ~decision.abstains(probabilities)
    predicted = probabilities.argmax(axis=1)
    right = answered & (predicted == actual)
    labels = {}
    for at, (label, one) in enumerate(chosen.items()):
        mine, of_label = predicted == at, actual == at
        labels[label] = {
            "threshold": None if one.threshold == NEVER else one.threshold,
            "validation": one.reached,
            "validation_rows": one.rows,
            "precision": _share(right & mine, answered & mine),
            "recall": _share(right & mine, of_label),
            "coverage": _share(answered & mine, mine),
            "problem": one.problem,
        }
    everything = np.ones_like(answered)
    return {"coverage": _share(answered, everything), "accuracy": _share(right, answered), "labels": labels}


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    """Return how many of the rows of `whole` are in `part`; None if there are none."""
    rows = int(whole.sum())
    return round(int((part & whole).sum()) / rows, DIGITS) if rows else None


def told(report: dict[str, Any] | None) -> list[str]:
    """Return what to say of the thresholds on the terminal: above all, of labels whose target is out of reach."""
    if report is None:
        return []
    lines = [
        f"warning: threshold of {label!r}: {one['problem']}; "
        + ("it is never answered" if one["threshold"] is None else "it is always answered")
        for label, one in report["labels"].items()
        if one["problem"]
    ]
    right = "none" if report["accuracy"] is None else f"{report['accuracy']:.4f}"
    return [*lines, f"thresholds: {report['coverage']:.1%} of the test rows are answered, accuracy {right}"]
