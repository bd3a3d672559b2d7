"""Parts of a set of rows that are scored on their own, by text length, by column, and as the task says."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from stages.common.params.evaluate import Slices
from stages.tasks.base import Task
from stages.tasks.bootstrap import scores_of
from stages.tasks.evidence import Evidence

RECORD_COLUMNS = ("source", "group")  # any other name is one of `columns.extra`, whatever else the table may hold
MOST_VALUES = 50  # of one column, or of the task, the largest


def slice_scores(
    rows: pl.DataFrame, params: Slices, task: Task, evidence: Evidence, names: Sequence[str]
) -> pl.DataFrame:
    """Return a row a slice of test records: slice, rows, and the scores of these names."""
    schema = {"slice": pl.String, "rows": pl.Int64, **dict.fromkeys(names, pl.Float64)}
    scored = []
    for slice_name, part in slice_rows(rows, params, task):
        scores = scores_of(evidence, part)
        scored.append((slice_name, len(part), *(scores[name] for name in names)))
    return pl.DataFrame(scored, schema=schema, orient="row")


def slice_rows(rows: pl.DataFrame, params: Slices, task: Task) -> list[tuple[str, np.ndarray]]:
    """Return the name and the row numbers [m] of each slice of some records that is large enough.

    The lengths come first, from short to long, then the values of each column, the largest slice first, then the
    task's.
    """
    slices = _by_length(rows["text"].str.len_chars(), params.length_bins)
    for column in params.columns:
        in_extra = pl.col("extra").str.json_decode(pl.Struct({column: pl.String})).struct.field(column)
        value = pl.col(column) if column in RECORD_COLUMNS else in_extra
        slices += _largest(rows.select(pl.concat_list(pl.lit(f"{column}: ") + value)).to_series())
    slices += _largest(pl.Series(task.slices(rows["label"]), dtype=pl.List(pl.String)))
    return [(name, numbers) for name, numbers in slices if len(numbers) >= params.min_rows]


def _largest(names: pl.Series) -> list[tuple[str, np.ndarray]]:
    """Return the name and the row numbers of each slice, of lists of the slices that each row is in."""
    numbered = pl.DataFrame({"name": names, "number": range(len(names))}).explode("name").drop_nulls()
    parts = numbered.group_by("name").agg(pl.col("number").sort())
    named = [(name, numbers.to_numpy()) for name, numbers in zip(*parts, strict=True)]
    return sorted(named, key=lambda part: (-len(part[1]), part[0]))[:MOST_VALUES]


def _by_length(length: pl.Series, bins: int) -> list[tuple[str, np.ndarray]]:
    cuts = [length.quantile(number / bins, "lower") for number in range(1, bins)]
    edges = sorted({int(cut) for cut in cuts if cut is not None})
    slices = []
    for number, (low, high) in enumerate(zip([0, *edges], [*edges, None], strict=True), start=1):
        inside = (length > low) if high is None else (length > low) & (length <= high)
        bounds = f"over {low} characters" if high is None else f"{low + 1} to {high} characters"
        slices.append((f"length {number}: {bounds}", np.flatnonzero(inside)))
    return slices
