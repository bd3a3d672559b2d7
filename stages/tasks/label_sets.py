"""What the scores of sets of labels add up from."""

from typing import Any

import numpy as np
from scipy.sparse import csr_array, hstack

from stages.tasks.base import ratio

DIGITS = 6


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
