"""What the reports of two revisions say of calibration, and their curves, side by side."""

from collections.abc import Iterator
from math import isfinite
from typing import Any, Literal, NamedTuple

import polars as pl

from flows.reviewing.compared.orphans import orphans
from flows.reviewing.findings import Curve, Figure
from flows.reviewing.revision import Revision

METRICS = "reports/metrics.json"
TRAINING = "reports/plots/training.csv"
VALIDATION = "reports/plots/validation.csv"
RELIABILITY = "reports/plots/reliability.csv"

DIGITS = 4  # of percentages

Points = tuple[tuple[float, float], ...]


class Drawn(NamedTuple):
    """A curve in the reports: its name, its file, and the columns of x and y."""

    name: str
    file: str
    x: str
    y: str


CURVES = (
    Drawn("training_loss", TRAINING, "step", "loss"),
    Drawn("learning_rate", TRAINING, "step", "learning_rate"),
    Drawn("validation_loss", VALIDATION, "epoch", "validation_loss"),
    Drawn("validation_accuracy", VALIDATION, "epoch", "validation_accuracy"),
    Drawn("validation_macro_f1", VALIDATION, "epoch", "validation_macro_f1"),
)
CALIBRATED = Drawn("reliability", RELIABILITY, "confidence", "accuracy")


class Noted(NamedTuple):
    """A figure in metrics.json: its name, where it stands, its unit and which way is better."""

    name: str
    keys: tuple[str, ...]
    unit: Literal["", "%"]
    better: Literal["lower", "higher"]


FIGURES = (
    Noted("calibration error", ("calibration", "ece"), "", "lower"),
    Noted("log loss", ("log_loss",), "", "lower"),
    Noted("Brier score", ("calibration", "brier"), "", "lower"),
    Noted("answered at the thresholds", ("thresholds", "coverage"), "%", "higher"),
    Noted("accuracy of what is answered", ("thresholds", "accuracy"), "%", "higher"),
)


def curves(base: Revision, head: Revision) -> tuple[tuple[Curve, ...], list[str]]:
    """Return the curves of both trainings; the learning rate's only where it differs."""
    found, missing = _curves(base, head, CURVES)
    return tuple(curve for curve in found if curve.name != "learning_rate" or curve.base != curve.head), missing


def reliability(base: Revision, head: Revision) -> tuple[tuple[Curve, ...], list[str]]:
    """Return how often each model is right by how sure it is, after the temperature."""
    return _curves(base, head, (CALIBRATED,))


def calibration(base: Revision, head: Revision) -> tuple[tuple[Figure, ...], list[str]]:
    """Return the figures that say whether probabilities mean what they say, each on the revision's own test rows."""
    was, now = (_believed(revision) for revision in (base, head))
    missing = [
        f"{METRICS} of {revision.name} is not there, not readable or made by no stage: its calibration is not known"
        for revision, report in ((base, was), (head, now))
        if not report
    ]
    figures = [Figure(one.name, _figure(was, one), _figure(now, one), one.unit, one.better) for one in FIGURES]
    return tuple(figure for figure in figures if (figure.base, figure.head) != (None, None)), missing


def _believed(revision: Revision) -> dict[str, Any]:
    return {} if METRICS in orphans(revision) else revision.report(METRICS)


def _figure(report: Any, noted: Noted) -> float | None:
    for key in noted.keys:
        report = report.get(key) if isinstance(report, dict) else None
    if isinstance(report, bool) or not isinstance(report, int | float) or not isfinite(report):
        return None
    return round(report * 100, DIGITS) if noted.unit == "%" else float(report)


def _curves(base: Revision, head: Revision, asked: tuple[Drawn, ...]) -> tuple[tuple[Curve, ...], list[str]]:
    found: list[Curve] = []
    missing: dict[str, None] = {}
    for curve in asked:
        sides: list[Points] = []
        for revision in (base, head):
            table = None if curve.file in orphans(revision) else revision.table(curve.file)
            points = tuple(_points(table, curve)) if table is not None else ()
            sides.append(points)
            if not points:
                missing[f"{curve.file} of {revision.name} has no {curve.name.replace('_', ' ')} to draw"] = None
            elif table is not None and len(points) < table.height and curve is not CALIBRATED:
                lost = table.height - len(points)
                missing[f"{curve.file} of {revision.name}: {lost} points of {curve.y} are no numbers"] = None
        if any(sides):
            found.append(Curve(curve.name, sides[0], sides[1], curve.x))
    return tuple(found), list(missing)


def _points(table: pl.DataFrame, curve: Drawn) -> Iterator[tuple[float, float]]:
    """Yield the points of a curve in order of x, without those that are no numbers."""
    if not {curve.x, curve.y} <= set(table.columns):
        return
    if curve is CALIBRATED and "label" in table.columns:
        table = table.filter(pl.col("label").cast(pl.String) == "calibrated")
    numbers = table.select(pl.col(curve.x, curve.y).cast(pl.Float64, strict=False))
    for x, y in sorted(numbers.drop_nulls().iter_rows()):
        if isfinite(x) and isfinite(y):
            yield x, y
