"""What the reports of two revisions say of calibration and size, and their curves, side by side."""

from math import isfinite
from typing import Any

import polars as pl

from flows.reviewing.findings import Curve, Figure, Points
from flows.reviewing.revision import Revision

METRICS = "reports/metrics.json"
TRAINING, VALIDATION = "reports/plots/training.csv", "reports/plots/validation.csv"
CURVES = (  # name, file, columns of x and y
    ("training loss", TRAINING, "step", "loss"),
    ("learning rate", TRAINING, "step", "learning_rate"),
    ("validation loss", VALIDATION, "epoch", "validation_loss"),
    ("validation accuracy", VALIDATION, "epoch", "validation_accuracy"),
    ("validation macro-F1", VALIDATION, "epoch", "validation_macro_f1"),
    ("reliability", "reports/plots/reliability.csv", "confidence", "accuracy"),
)
FIGURES = (  # name, where it stands in metrics.json, what it is multiplied by, unit
    ("calibration error", ("calibration", "ece"), 1, ""),
    ("log loss", ("log_loss",), 1, ""),
    ("Brier score", ("calibration", "brier"), 1, ""),
    ("coverage at the thresholds", ("thresholds", "coverage"), 100, "%"),
    ("accuracy of what is answered", ("thresholds", "accuracy"), 100, "%"),
    ("weights", ("model", "parameters"), 1, ""),
    ("size of the model", ("model", "bytes"), 2**-20, "MiB"),
)


def curves(base: Revision, head: Revision) -> tuple[Curve, ...]:
    """Return the curves of both; the learning rate's only where it differs, reliability after the temperature."""
    both = (Curve(name, _points(base, file, x, y), _points(head, file, x, y), x) for name, file, x, y in CURVES)
    return tuple(
        one for one in both if (one.base or one.head) and (one.name != "learning rate" or one.base != one.head)
    )


def figures(base: Revision, head: Revision) -> tuple[Figure, ...]:
    """Return calibration, each on the revision's own test rows, and size."""
    old, new = (revision.report(METRICS) for revision in (base, head))
    both = (
        Figure(name, _number(old, keys, times), _number(new, keys, times), unit) for name, keys, times, unit in FIGURES
    )
    return tuple(one for one in both if (one.base, one.head) != (None, None))


def _number(report: Any, keys: tuple[str, ...], times: float) -> float | None:
    for key in keys:
        report = report.get(key) if isinstance(report, dict) else None
    return round(times * report, 6) if isinstance(report, int | float) and isfinite(report) else None


def _points(revision: Revision, file: str, x: str, y: str) -> Points:
    """Return the points of a curve in order of x, without those that are no numbers."""
    table = revision.table(file)
    if table is None or not {x, y} <= set(table.columns):
        return ()
    if "label" in table.columns:
        table = table.filter(pl.col("label").cast(pl.String) == "calibrated")
    numbers = table.select(pl.col(x, y).cast(pl.Float64, strict=False)).drop_nulls()
    return tuple(point for point in sorted(numbers.iter_rows()) if all(map(isfinite, point)))
