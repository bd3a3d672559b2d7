"""Scores of parts of the test set: where is the model weaker than its average says?"""

import numpy as np
import polars as pl

from stages.common.params.evaluate import Slices
from stages.tasks.scores import confusion, scores_of
from stages.tasks.slices import slice_rows


def slice_scores(rows: pl.DataFrame, params: Slices, classes: int) -> pl.DataFrame:
    """Score the test rows by text length and by the columns named in params.

    Args:
        rows: test records with the class numbers `actual` and `predicted`.
        params: which slices, and how small one may be.
        classes: number of classes.

    Returns:
        A row a slice: slice, rows, accuracy, macro_f1; the longest list of values keeps its 50 largest slices.
    """
    actual, predicted = rows["actual"].to_numpy(), rows["predicted"].to_numpy()
    return pl.DataFrame(
        [_scored(name, actual[part], predicted[part], classes) for name, part in slice_rows(rows, params)],
        schema={"slice": pl.String, "rows": pl.Int64, "accuracy": pl.Float64, "macro_f1": pl.Float64},
        orient="row",
    )


def _scored(name: str, actual: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[str, int, float, float]:
    scores = scores_of(np.asarray(confusion(actual, predicted, classes)))
    return name, len(actual), round(float(scores["accuracy"]), 6), round(float(scores["macro_f1"]), 6)
