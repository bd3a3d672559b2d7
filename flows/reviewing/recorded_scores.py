"""What the reports of two revisions say of calibration, and their curves, side by side."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

import polars as pl

from flows.reviewing.findings import Curve, Figure, Points
from flows.reviewing.revision import Revision

METRICS = "reports/metrics.json"
TRAINING, VALIDATION = "reports/plots/training.csv", "reports/plots/validation.csv"
RELIABILITY = "reports/plots/reliability.csv"
CURVES = (  # name, file, columns of x and y
    ("training loss", TRAINING, "step", "loss"),
    ("learning rate", TRAINING, "step", "learning_rate"),
    ("validation loss", VALIDATION, "epoch", "validation_loss"),
    ("validation accuracy", VALIDATION, "epoch", "validation_accuracy"),
    ("validation macro-F1", VALIDATION, "epoch", "validation_macro_f1"),
)
FIGURES = (  # name, where it stands in metrics.json, percent, which way is better
    ("calibration error", ("calibration", "ece"), False, "lower"),
    ("log loss", ("log_loss",), False, "lower"),
    ("Brier score", ("calibration", "brier"), False, "lower"),
    ("coverage at the thresholds", ("thresholds", "coverage"), True, "higher"),
    ("accuracy of what is answered", ("thresholds", "accuracy"), True, "higher"),
)


def curves(base: Revision, head: Revision) -> tuple[Curve, ...]:
    """Return the curves of both trainings; the learning rate's only where it differs."""
    found = (Curve(name, _points(base, file, x, y), _points(head, file, x, y), x) for name, file, x, y in CURVES)
    return tuple(
        one for one in found if (one.base or one.head) and (one.name != "learning rate" or one.base != one.head)
    )


def reliability(base: Revision, head: Revision) -> tuple[Curve, ...]:
    """Return how often each model is right by its confidence, after the temperature."""
    old, new = (_points(revision, RELIABILITY, "confidence", "accuracy") for revision in (base, head))
    return (Curve("reliability", old, new, "confidence"),) if old or new else ()


def calibration(base: Revision, head: Revision) -> tuple[Figure, ...]:
    """Return the figures that say whether probabilities mean what they say, each on the revision's own test rows."""
    reports = [revision.report(METRICS) for revision in (base, head)]
    found = []
    for name, keys, percent, better in FIGURES:
        old, new = (_number(report, keys, 100 if percent else 1) for report in reports)
        if (old, new) != (None, None):
            found.append(Figure(name, old, new, "%" if percent else "", better))  # type: ignore[arg-type]
    return tuple(found)


def _number(report: Any, keys: tuple[str, ...], times: int) -> float | None:
    for key in keys:
        report = report.get(key) if isinstance(report, dict) else None
    sound = isinstance(report, int | float) and not isinstance(report, bool) and isfinite(report)
    return round(times * float(report), 6) if sound else None


def _points(revision: Revision, file: str, x: str, y: str) -> Points:
    """Return the points of a curve in order of x, without those that are no numbers."""
    table = revision.table(file)
    if table is None or not {x, y} <= set(table.columns):
        return ()
    if file == RELIABILITY and "label" in table.columns:
        table = table.filter(pl.col("label").cast(pl.String) == "calibrated")
    numbers = table.select(pl.col(x, y).cast(pl.Float64, strict=False)).drop_nulls()
    return tuple(_finite(numbers))


def _finite(numbers: pl.DataFrame) -> Iterator[tuple[float, float]]:
    for x, y in sorted(numbers.iter_rows()):
        if isfinite(x) and isfinite(y):
            yield x, y
