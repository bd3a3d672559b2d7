"""Sets of labels: what their scores add up from, what is decided of them on validation, and measured on test."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations, compress, product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array, hstack
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier

from stages.common.params import EvaluateParams
from stages.tasks import curves
from stages.tasks.base import DIGITS
from stages.tasks.calibration import calibration_report, fit_temperature
from stages.tasks.evidence import ratio
from stages.tasks.targets import canonical_set, set_of

NONE = "(none)"  # where a set has no label
LEAST_ROWS = 20  # with the label: what is fitted on fewer fits chance
THRESHOLDS = np.arange(1, 100) / 100  # that are tried
COMMONEST = 8  # labels with a curve
LISTED = 10  # pairs of labels never seen
HALVES = slice(0, None, 2), slice(1, None, 2)


def statistics(truth: np.ndarray, chosen: np.ndarray) -> Any:
    """Return hits and errors of each label, whether the sets are equal, their F1, and 1: sparse [n x 2k+3].

    Both are [n x k] bool. Two empty sets have the F1 1, as with scikit-learn's `zero_division=1`.
    """
    hits, errors = truth & chosen, truth != chosen
    right = ~errors.any(axis=1)
    shares = f1_of(truth, chosen, 1) + (right & ~hits.any(axis=1))
    parts = (hits, errors, np.column_stack([right, shares, np.ones(len(truth))]))
    return hstack([csr_array(part.astype(np.float64)) for part in parts], "csr")


def hits_and_errors(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return hits, and misses with false alarms, of each label [... x k] of sums of statistics [... x 2k+3]."""
    hits, errors = np.split(np.asarray(sums, np.float64)[..., :-3], 2, axis=-1)
    return hits, errors


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of sums of statistics [... x 2k+3], 0 where there is nothing to divide by.

    Macro-F1 is the mean over the labels that occur in the rows or in the predictions, as in scikit-learn.
    """
    hits, errors = hits_and_errors(sums)
    right, shares, rows = np.moveaxis(np.asarray(sums, np.float64)[..., -3:], -1, 0)
    return {
        "micro_f1": f1(hits.sum(-1), errors.sum(-1)),
        "macro_f1": ratio(f1(hits, errors).sum(-1), (hits + errors > 0).sum(-1)),
        "sample_f1": ratio(shares, rows),
        "exact_match": ratio(right, rows),
        "hamming_loss": ratio(errors.sum(-1), rows * hits.shape[-1]),
    }


def scores_of(truth: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
    """Return the scores of sets [n x k] bool."""
    return {name: round(float(score), DIGITS) for name, score in scores(statistics(truth, chosen).sum(axis=0)).items()}


def f1(hits: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return F1 of hits and errors [...], 0 where there is neither."""
    return ratio(2 * hits, 2 * hits + errors)


def f1_of(truth: np.ndarray, chosen: np.ndarray, axis: int | None) -> np.ndarray:
    """Return the F1 of each label (axis 0), each row (1), or all together (None) of sets [n x k] bool."""
    return f1((truth & chosen).sum(axis), (truth != chosen).sum(axis))


def fit_decision(params: EvaluateParams, truth: np.ndarray, outputs: np.ndarray, undecided: Any) -> Any:
    """Return what `MultiLabel.fit_decision` does, of sets [n x k] bool and probabilities [n x k]."""
    fitted = {
        undecided.labels[number]: fit_temperature(truth[:, number].astype(np.int64), both_sides(outputs[:, number]))
        for number in np.flatnonzero(_enough(truth) & params.calibration.temperature).tolist()
    }
    decision = replace(undecided, temperatures=fitted)
    if params.thresholds is None:
        return decision
    probabilities = decision.calibrated(outputs)
    shared = float(best_thresholds(truth, probabilities, None))
    own = _own_thresholds(truth, probabilities, undecided.labels, shared) if params.thresholds.per == "label" else {}
    return replace(decision, threshold=shared, thresholds=own)


def best_thresholds(truth: np.ndarray, probabilities: np.ndarray, axis: int | None) -> np.ndarray:
    """Return the threshold with the best F1 of each label (axis 0) [k], or of all together (None) [].

    Of `THRESHOLDS` that are equally good it is the middle one: the farthest from where they get worse.
    """
    values = np.stack([f1_of(truth, probabilities >= threshold, axis) for threshold in THRESHOLDS])
    best = values == values.max(axis=0)
    return THRESHOLDS[(best.cumsum(axis=0) > best.sum(axis=0) // 2).argmax(axis=0)]


def _own_thresholds(
    truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], shared: float
) -> dict[str, float]:
    """Return the best threshold of each label that has the rows for one of its own, and gains from it.

    It gains if thresholds that are chosen on one half of the rows have a better F1 on the other, both ways together,
    than the shared one.
    """
    chosen = np.empty_like(truth)
    for here, there in (HALVES, HALVES[::-1]):
        chosen[there] = probabilities[there] >= best_thresholds(truth[here], probabilities[here], 0)
    gains = f1_of(truth, chosen, 0) > f1_of(truth, probabilities >= shared, 0)
    best = best_thresholds(truth, probabilities, 0).tolist()
    return {labels[number]: best[number] for number in np.flatnonzero(gains & _enough(truth)).tolist()}


def both_sides(probabilities: np.ndarray) -> np.ndarray:
    """Return the probabilities [n x 2] of no and of yes, by those of yes [n]."""
    return np.stack([1 - probabilities, probabilities], axis=1)


def baseline(
    name: str,
    labels: Sequence[str],
    sets: Sequence[np.ndarray],
    parts: Sequence[pl.DataFrame],
    base: Path,
    max_length: int,
) -> list[str]:
    """Return the commonest set, or what a classifier of each label alone says of the test rows.

    The parts are train, validation and test; the sets [n x k] bool are those of the first two.
    """
    from stages.tasks import baselines

    if name == "majority_set":
        rows = Counter(sorted(parts[0]["label"]))
        return [max(rows, key=rows.__getitem__)] * parts[2].height
    known, *others = baselines.features(name, base, max_length, *parts)
    model = OneVsRestClassifier(baselines.classifier(name)).fit(known, sets[0])
    validation, test = (model.predict_proba(part)[:, -len(labels) :] for part in others)  # of one label: no and yes
    chosen = test >= best_thresholds(sets[1], validation, None)
    return [canonical_set(names) for names in _names(chosen, labels)]


def report(
    params: EvaluateParams, known: Iterable[str], truth: np.ndarray, raw: np.ndarray, decision: Any
) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    """Return what `MultiLabel.report` does, of training labels, sets [n x k] bool and probabilities [n x k]."""
    labels, probabilities = decision.labels, decision.calibrated(raw)
    chosen = decision.chosen(probabilities)
    per_label = curves.per_class(truth, chosen, labels)
    for number, (label, entry) in enumerate(per_label.items()):
        if truth[:, number].any():
            precision = average_precision_score(truth[:, number], probabilities[:, number])
            entry["average_precision"] = round(float(precision), DIGITS)
        entry["threshold"] = decision.thresholds.get(label, decision.threshold)
        entry["temperature"] = decision.temperatures.get(label, 1.0)
    pairs = confusion(_names(truth, labels), _names(chosen, labels)).select(missed="actual", invented="predicted")
    mistaken = pairs.filter(pl.col("missed") != pl.col("invented")).group_by("missed", "invented").agg(rows=pl.len())
    before, after = (both_sides(part.ravel()) for part in (raw, probabilities))
    errors, diagram = calibration_report(truth.ravel().astype(np.int64), before, after, params.calibration.bins)
    ways = {"half": probabilities >= 0.5, "shared": probabilities >= decision.threshold, "chosen": chosen}
    precisions = [entry["average_precision"] for entry in per_label.values() if "average_precision" in entry]
    entries = {
        "log_loss": errors["log_loss"],
        "mean_average_precision": round(float(np.mean(precisions)), DIGITS) if precisions else None,
        "per_class": per_label,
        "calibration": errors,
        "thresholds": {name: scores_of(truth, way) for name, way in ways.items()} if params.thresholds else None,
        "unseen_pairs": _unseen_pairs(map(set_of, known), _names(chosen, labels)),
    }
    tables = {
        "per_label": pl.DataFrame(
            [{"label": key, **entry} for key, entry in per_label.items()], infer_schema_length=None
        ),
        "precision_recall": _recall_curves(truth, probabilities, labels),
        "reliability": diagram,
        "co_occurrence": mistaken.sort("rows", "missed", "invented", descending=[True, False, False]),
    }
    return entries, tables


def moved(probabilities: np.ndarray, labels: Sequence[str], expected: Iterable[str | None]) -> np.ndarray:
    """Return the probability of each expected label, or that each expected set is right, by those of labels [n x k]."""
    result = np.ones(len(probabilities))
    for row, (name, of_labels) in enumerate(zip(expected, probabilities, strict=True)):
        names = {name} if name in labels else {*set_of(str(name))}
        for label, probability in zip(labels, of_labels, strict=True):
            if label in names or name not in labels:
                result[row] *= probability if label in names else 1 - probability
    return result


def confusion(labels: Iterable[list[str]], predictions: Iterable[list[str]]) -> pl.DataFrame:
    """Return a row actual, predicted for each label found, and for each one missed with each one invented."""
    found: list[tuple[str, str]] = []
    for sets in zip(labels, predictions, strict=True):
        actual, predicted = map(set, sets)
        found += [(name, name) for name in sorted(actual & predicted)]
        if actual != predicted:
            found += product(sorted(actual - predicted) or [NONE], sorted(predicted - actual) or [NONE])
    return pl.DataFrame(found, {"actual": pl.String, "predicted": pl.String}, orient="row")


def _unseen_pairs(known: Iterable[list[str]], answered: Iterable[list[str]]) -> dict[str, Any]:
    """Return how many pairs of labels are answered together that no known set has, and the commonest with their rows.

    All sets have their labels in the same order.
    """
    seen = {pair for names in known for pair in combinations(names, 2)}
    rows = Counter(pair for names in answered for pair in combinations(names, 2) if pair not in seen)
    first = sorted(rows, key=lambda pair: (-rows[pair], pair))[:LISTED]
    return {"pairs": len(rows), "commonest": [[*pair, rows[pair]] for pair in first]}


def _recall_curves(truth: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> pl.DataFrame:
    """Return label, recall and precision along the curves of the commonest labels."""
    commonest = np.argsort(-truth.sum(axis=0), kind="stable")[:COMMONEST]
    return pl.concat(
        curves.precision_recall(truth[:, number], both_sides(probabilities[:, number]), ["", labels[number]])
        for number in commonest
    )


def _names(chosen: np.ndarray, labels: Sequence[str]) -> list[list[str]]:
    return [list(compress(labels, row)) for row in chosen.tolist()]


def _enough(truth: np.ndarray) -> np.ndarray:
    return np.asarray(truth.sum(axis=0) >= LEAST_ROWS)
