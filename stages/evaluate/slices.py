"""Scores of parts of the test set: where is the model weaker than its average says?"""

import numpy as np
import polars as pl

from stages.common.params.evaluate import Slices
from stages.tasks.scores import confusion, scores_of

RECORD_COLUMNS = ("source", "group")  # any other name is one of `columns.extra`, whatever else the table may hold


def slice_scores(rows: pl.DataFrame, params: Slices, classes: int) -> pl.DataFrame:
    """Score the test rows by text length and by the columns named in params.

    Args:
        rows: test records with the class numbers `actual` and `predicted`.
        params: which slices, and how small one may be.
        classes: number of classes.

    Returns:
        A row a slice: slice, rows, accuracy, macro_f1; the longest list of values keeps its 50 largest slices.
    """
    length = pl.col("text").str.len_chars()
    shares = [at / params.length_bins for at in range(1, params.length_bins)]
    cuts = [rows.select(length.quantile(share, "lower")).item() for share in shares]
    bins = sorted({int(cut) for cut in cuts})
    found = []
    for number, (low, high) in enumerate(zip([0, *bins], [*bins, None], strict=True)):
        inside = (length > low) if high is None else (length > low) & (length <= high)
        name = (
            f"length {number + 1}: over {low} characters"
            if high is None
            else f"length {number + 1}: {low + 1} to {high} characters"
        )
        found.append((name, rows.filter(inside)))
    for column in params.columns:
        value = pl.col(column) if column in RECORD_COLUMNS else _from_extra(column)
        parts = rows.with_columns(_value=value).filter(pl.col("_value").is_not_null()).partition_by("_value")
        named = sorted(
            ((f"{column}: {part['_value'][0]}", part) for part in parts), key=lambda pair: (-pair[1].height, pair[0])
        )
        found += named[:50]
    return pl.DataFrame(
        [_scored(name, part, classes) for name, part in found if part.height >= params.min_rows],
        schema={"slice": pl.String, "rows": pl.Int64, "accuracy": pl.Float64, "macro_f1": pl.Float64},
        orient="row",
    )


def _from_extra(column: str) -> pl.Expr:
    return pl.col("extra").str.json_decode(pl.Struct({column: pl.String})).struct.field(column)


def _scored(name: str, part: pl.DataFrame, classes: int) -> tuple[str, int, float, float]:
    counts = confusion(part["actual"].to_numpy(), part["predicted"].to_numpy(), classes)
    scores = scores_of(np.asarray(counts))
    return name, part.height, round(float(scores["accuracy"]), 6), round(float(scores["macro_f1"]), 6)
