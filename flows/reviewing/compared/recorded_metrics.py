"""Recorded scores held against the recorded predictions that they are said to be of, and against the rebuilt ones."""

from typing import Any

import numpy as np
import polars as pl

from flows.reviewing.changed.param_changes import typed_params
from flows.reviewing.revision import Revision
from stages.common.params.evaluate import Bootstrap
from stages.tasks.scores import class_numbers, confusion, resampled, scores_of, with_bounds

METRICS, PREDICTIONS, TEST = "reports/metrics.json", "data/predictions.parquet", "data/clean/test.parquet"
COLUMNS = ("id", "label", "prediction")
SCORES = ("accuracy", "macro_f1")
ROUNDING = 2e-6
BOUNDS = 0.01  # by which a bound may differ: another release of NumPy may draw other rows
SEED = 13  # where the params cannot be read


def metrics_against(recorded: Revision, rebuilt: Revision) -> tuple[list[str], dict[str, str]]:
    """Score the recorded predictions again.

    Args:
        recorded: the revision as its commit has it.
        rebuilt: the same, made again: its test rows and their labels are true.

    Returns:
        Where each rebuilt score lies, in words; and why an out may not pass, by path.
    """
    table, test = recorded.table(PREDICTIONS), rebuilt.table(TEST)
    if (
        table is None
        or test is None
        or any(
            one.schema.get(name) != pl.String
            for one, name in (*((table, name) for name in COLUMNS), *((test, name) for name in COLUMNS[:2]))
        )
    ):
        return [], {PREDICTIONS: "rows, labels and predictions cannot be read"}
    sides = (one.select("id", "label").sort("id", "label") for one in (table, test))
    if not next(sides).equals(next(sides)):
        return [], {PREDICTIONS: f"its rows and labels are not those of {TEST}"}
    if not table.height or table["prediction"].null_count():
        return [], {PREDICTIONS: "there is no prediction, or not for every row"}
    again = _scores(table, rebuilt)
    told, against = [], []
    before, now = recorded.report(METRICS), rebuilt.report(METRICS)
    for name in SCORES:
        keys = (name, f"{name}_low", f"{name}_high")
        if not all(_is_score(report.get(key)) for report in (before, now) for key in keys):
            against.append(f"there is no {name} with an interval to compare")
            continue
        for key, allowed in zip(keys, (ROUNDING, BOUNDS, BOUNDS), strict=True):
            if not abs(before[key] - again[key]) <= allowed:
                against.append(f"{key} is {before[key]:.4f}, but that of the recorded predictions is {again[key]:.4f}")
        for value, low, high, what in (
            (now[name], again[keys[1]], again[keys[2]], name),
            (again[name], now[keys[1]], now[keys[2]], f"the recorded {name}"),
        ):
            inside = low <= value <= high
            line = f"{what} {value:.4f} is {'in' if inside else 'outside of'} [{low:.4f}, {high:.4f}]"
            told += [line] if what == name else []
            against += [] if inside else [line]
    return told, {METRICS: "; ".join(against)} if against else {}


def _scores(table: pl.DataFrame, revision: Revision) -> dict[str, float]:
    """Return the scores of predictions with their intervals, as the stage evaluate counts them."""
    params = typed_params(revision)
    bootstrap, seed = (params.evaluate.bootstrap, params.seed) if params else (Bootstrap(), SEED)
    names = sorted({*table["label"], *table["prediction"]})
    actual, said = (class_numbers(table[name], names) for name in ("label", "prediction"))
    drawn = list(resampled(actual, said, len(names), bootstrap.resamples, seed))
    point: dict[str, np.ndarray] = scores_of(confusion(actual, said, len(names)))
    return with_bounds(point, drawn, bootstrap.confidence)


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2
