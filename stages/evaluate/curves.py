"""Points of the ROC and precision-recall curves, one label against the others."""

import numpy as np
import polars as pl
from sklearn.metrics import precision_recall_curve, roc_curve

POINTS = 200  # per curve; more cannot be told apart on a screen


def roc(actual: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> pl.DataFrame:
    """Return label, fpr and tpr along each label's ROC curve; of two labels, the second's."""
    return _curves(actual, probabilities, labels, ("fpr", "tpr"), lambda hits, scores: roc_curve(hits, scores)[:2])


def precision_recall(actual: np.ndarray, probabilities: np.ndarray, labels: list[str]) -> pl.DataFrame:
    """Return label, recall and precision along each label's curve; of two labels, the second's."""
    return _curves(
        actual,
        probabilities,
        labels,
        ("recall", "precision"),
        _from_the_surest,
    )


def _from_the_surest(hits: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision from the surest row on, until every row of the label is found.

    scikit-learn begins at the other end; after the last row that counts, precision only falls.
    """
    precision, recall, _ = precision_recall_curve(hits, scores)
    end = len(recall) - np.flatnonzero(recall == 1.0).max()
    return recall[::-1][:end], precision[::-1][:end]


def _curves(actual, probabilities, labels, names, curve) -> pl.DataFrame:  # type: ignore[no-untyped-def]
    tables = [pl.DataFrame(schema={"label": pl.String, names[0]: pl.Float64, names[1]: pl.Float64})]
    for number in [1] if len(labels) == 2 else range(len(labels)):
        hits = actual == number
        if hits.all() or not hits.any():  # a label against nothing has no curve
            continue
        x, y = curve(hits, probabilities[:, number])
        order = np.argsort(x, kind="stable")
        chosen = order[np.unique(np.linspace(0, len(order) - 1, POINTS).round().astype(int))]
        values = {names[0]: np.round(x[chosen], 6), names[1]: np.round(y[chosen], 6)}
        tables.append(pl.DataFrame({"label": [labels[number]] * len(chosen), **values}))
    return pl.concat(tables)
