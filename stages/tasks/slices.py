"""Parts of a set of rows that are scored on their own: by text length, and by the values of columns."""

import numpy as np
import polars as pl

from stages.common.params.evaluate import Slices

RECORD_COLUMNS = ("source", "group")  # any other name is one of `columns.extra`, whatever else the table may hold
MOST_VALUES = 50  # of one column, the largest


def slice_rows(rows: pl.DataFrame, params: Slices) -> list[tuple[str, np.ndarray]]:
    """Return the name and the row numbers [m] of each slice.

    Args:
        rows: records of a split.
        params: which slices, and how small one may be.

    Returns:
        The lengths from short to long, then the values of each column, the largest slice first.
    """
    found = [*_by_length(rows, params.length_bins)]
    for column in params.columns:
        found += _by_value(rows, column)
    return [(name, numbers) for name, numbers in found if len(numbers) >= params.min_rows]


def _by_length(rows: pl.DataFrame, bins: int) -> list[tuple[str, np.ndarray]]:
    length = rows["text"].str.len_chars()
    cuts = [length.quantile(at / bins, "lower") for at in range(1, bins)]
    edges = sorted({int(cut) for cut in cuts if cut is not None})
    found = []
    for number, (low, high) in enumerate(zip([0, *edges], [*edges, None], strict=True)):
        inside = (length > low) if high is None else (length > low) & (length <= high)
        bounds = f"over {low} characters" if high is None else f"{low + 1} to {high} characters"
        found.append((f"length {number + 1}: {bounds}", np.flatnonzero(inside)))
    return found


def _by_value(rows: pl.DataFrame, column: str) -> list[tuple[str, np.ndarray]]:
    value = pl.col(column) if column in RECORD_COLUMNS else _from_extra(column)
    numbered = rows.select(value=value, number=pl.int_range(pl.len())).filter(pl.col("value").is_not_null())
    parts = numbered.group_by("value").agg(pl.col("number").sort())
    named = [(f"{column}: {value}", numbers.to_numpy()) for value, numbers in zip(*parts, strict=True)]
    return sorted(named, key=lambda pair: (-len(pair[1]), pair[0]))[:MOST_VALUES]


def _from_extra(column: str) -> pl.Expr:
    return pl.col("extra").str.json_decode(pl.Struct({column: pl.String})).struct.field(column)
