"""What a change did to the model: both models on the test rows that both revisions have, and their reports."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl

from flows.reviewing.findings import ChangedRow, ChangedRows, Effect, Figure, Gain, Trend
from flows.reviewing.revision import Revision
from stages.common.display import Mask, display
from stages.common.pages.charts import Chart, Points, chart
from stages.common.params.evaluate import EvaluateParams
from stages.tasks.bootstrap import class_gains, class_numbers, compare, confusion, f1_of, scores_of
from stages.tasks.slices import slice_rows
from stages.tracking.provenance import SCORES as METRICS
from stages.tracking.runs import flatten

PREDICTIONS, TEST = "data/predictions.parquet", "data/clean/test.parquet"
COLUMNS = {"id": pl.String, "label": pl.String, "prediction": pl.String, "confidence": pl.Float64}
TEXTS = dict.fromkeys(("id", "text", "text_pair", "extra"), pl.String)
SEED = 13  # where the head's params cannot be read
DIGITS = 6
LEAST_MOVED = 6  # other predictions: of fewer, even the exact sign test tells nothing (2 / 2**5 = 0.06)
TEXT, NAME = 200, 60  # characters shown of a text, of a label

CURVES = {  # name, which file of reports/plots/, and its columns of x and y
    "training loss": ("training", "step", "loss"),
    "learning rate": ("training", "step", "learning_rate"),
    "validation loss": ("validation", "epoch", "validation_loss"),
    "validation accuracy": ("validation", "epoch", "validation_accuracy"),
    "validation macro-F1": ("validation", "epoch", "validation_macro_f1"),
    "reliability: accuracy": ("reliability", "confidence", "accuracy"),
}
FIGURES = {  # name, and where it stands in metrics.json
    "calibration error": "calibration.ece",
    "log loss": "log_loss",
    "Brier score": "calibration.brier",
    "coverage at the thresholds": "thresholds.coverage",
    "accuracy of what is answered": "thresholds.accuracy",
    "weights": "model.parameters",
    "bytes of the model": "model.bytes",
}


def effect_of(base: Revision, head: Revision, examples: int) -> Effect | None:
    """Compare the models of two revisions by what both predicted for their test rows.

    Labels, slices and settings are the head's. What cannot be compared is a line of `missing`; where no test row is in
    both, there are no scores (`rows` is 0). None if one of the two has no predictions at all.
    """
    if not all((revision.folder / PREDICTIONS).exists() for revision in (base, head)):
        return None
    missing: list[str] = []
    old, new = (_table(revision, PREDICTIONS, COLUMNS, missing) for revision in (base, head))
    test = _table(head, TEST, TEXTS, missing)
    before = old.select("id", label_before="label", before="prediction", before_confidence="confidence")
    after = new.select("id", "label", after="prediction", after_confidence="confidence")
    rows = after.join(before, on="id").sort("id")
    answers, mask = SharedAnswers(rows, head), head.mask
    if not rows.height and not missing:
        missing.append("no test row is in both revisions: the scores cannot be compared")
    texts = rows.join(test.select("id", "text", "text_pair").unique("id", keep="first"), on="id", how="left")
    right, right_before = pl.col("after") == pl.col("label"), pl.col("before") == pl.col("label")
    return Effect(
        rows=rows.height,
        only_base=old.height - rows.height,
        only_head=new.height - rows.height,
        relabelled=rows.filter(pl.col("label") != pl.col("label_before")).height,
        scores=tuple(answers.scores()) if rows.height else (),
        mcnemar_p=answers.bootstrap["mcnemar_p"],
        classes=tuple(answers.classes()),
        slices=tuple(answers.slices(test, rows["id"])),
        improved=_changed_rows(texts.filter(right & ~right_before), examples, mask),
        regressed=_changed_rows(texts.filter(right_before & ~right), examples, mask),
        moved=rows.filter(~right & ~right_before & (pl.col("after") != pl.col("before"))).height,
        labels=tuple(display(label, NAME, mask) for label in answers.labels),
        confusion_base=answers.counts[0],
        confusion_head=answers.counts[1],
        curves=tuple(_curves(base, head)),
        figures=tuple(_figures(base, head)),
        missing=tuple(missing),
    )


class SharedAnswers:
    """Class numbers of shared rows, [n] int64 each: the labels, and what both models predict."""

    def __init__(self, rows: pl.DataFrame, head: Revision) -> None:
        self.labels = sorted({*rows["label"], *rows["before"], *rows["after"]})
        columns = (rows[name] for name in ("label", "after", "before"))
        self.actual, self.head, self.base = (class_numbers(column, self.labels) for column in columns)
        self.moved = self.head != self.base
        self.counts = [confusion(self.actual, predicted, len(self.labels)) for predicted in (self.base, self.head)]
        evaluate = head.params.evaluate if head.params else EvaluateParams()
        self.mask, self.settings = head.mask, evaluate.slices
        self.drawing = evaluate.bootstrap, head.params.seed if head.params else SEED
        sides = (self.actual, self.head, self.base, len(self.labels), *self.drawing)
        self.bootstrap = compare(*sides) if len(rows) else {"mcnemar_p": 1.0}
        self.of_classes = class_gains(*sides) if len(rows) else []

    def scores(self) -> Iterator[Gain]:
        """Yield the gain in each score."""
        old, new = map(scores_of, self.counts)
        for name in new:
            yield _gain(name, len(self.moved), old[name], new[name], self.bootstrap, f"{name}_gain", self.moved)

    def classes(self) -> Iterator[Gain]:
        """Yield the gain in each label's F1; its rows are those that have the label."""
        old, new = map(f1_of, self.counts)
        for index, bootstrap in enumerate(self.of_classes):
            counted = (self.actual == index) | (self.head == index) | (self.base == index)  # rows that its F1 rests on
            name, rows = display(self.labels[index], NAME, self.mask), int((self.actual == index).sum())
            yield _gain(name, rows, old[index], new[index], bootstrap, "f1_gain", self.moved[counted])

    def slices(self, test: pl.DataFrame, ids: pl.Series) -> Iterator[Gain]:
        """Yield the gain in accuracy on each slice of the head's test split, as far as its rows are shared."""
        if test.is_empty():
            return
        positions = {name: position for position, name in enumerate(ids)}
        shared = np.array([positions.get(name, -1) for name in test["id"]])  # of each test row among the shared ones
        for name, part in slice_rows(test, self.settings.model_copy(update={"min_rows": 1})):
            rows = np.sort(shared[part][shared[part] >= 0])
            if len(rows) >= self.settings.min_rows:
                actual, head, base = self.actual[rows], self.head[rows], self.base[rows]
                old, new = base == actual, head == actual
                bootstrap = compare(np.ones_like(actual), new, old, 2, *self.drawing)  # quick, whatever the classes
                title = display(name, NAME, self.mask)
                yield _gain(title, len(rows), old.mean(), new.mean(), bootstrap, "accuracy_gain", head != base)


def _table(revision: Revision, path: str, columns: Mapping[str, Any], missing: list[str]) -> pl.DataFrame:
    """Return a table of rows by id; none, and a line in `missing`, if it is not what the pipeline writes."""
    table = revision.table(path)
    if table is not None and all(table.schema.get(name) == kind for name, kind in columns.items()):
        return table
    missing.append(f"{path} of {revision.name} is not there, or not what the code here reads")
    return pl.DataFrame(schema=columns)


def _curves(base: Revision, head: Revision) -> Iterator[Chart]:
    for name, (file, x, y) in CURVES.items():
        lines = {side: _points(of, file, x, y) for side, of in (("base", base), ("head", head))}
        if any(lines.values()):
            yield chart(x, name, lines)


def _points(revision: Revision, file: str, x: str, y: str) -> Points:
    """Return the points of a curve in order of x, without those that are no numbers; reliability as calibrated."""
    table = revision.table(f"reports/plots/{file}.csv")
    if table is None or not {x, y} <= {*table.columns}:
        return ()
    if "label" in table.columns:
        table = table.filter(label="calibrated")
    numbers = table.select(pl.col(x, y).cast(pl.Float64, strict=False))
    return sorted(numbers.filter(pl.all_horizontal(pl.all().is_finite())).iter_rows())


def _figures(base: Revision, head: Revision) -> Iterator[Figure]:
    """Yield numbers of `reports/metrics.json`, each on the revision's own test rows, that one of both has."""
    flat = (flatten(revision.report(METRICS)) for revision in (base, head))
    old, new = ({key: value for key, value in report if isinstance(value, int | float)} for report in flat)
    yield from ((name, old.get(key), new.get(key)) for name, key in FIGURES.items() if key in old or key in new)


def _changed_rows(rows: pl.DataFrame, examples: int, mask: Mask | None) -> ChangedRows:
    """Return the rows of which the head's model is most confident, rightly or wrongly; cut and masked."""
    first = rows.sort("after_confidence", "id", descending=[True, False]).head(examples).select(*ChangedRow._fields)
    widths = {"text": TEXT, "text_pair": TEXT, "label": NAME, "before": NAME, "after": NAME}
    cut = (row | {name: display(row[name], most, mask) for name, most in widths.items()} for row in first.to_dicts())
    return ChangedRows(rows.height, tuple(ChangedRow(**row) for row in cut))


def _gain(
    name: str, rows: int, base: Any, head: Any, bootstrap: Mapping[str, float], key: str, moved: np.ndarray
) -> Gain:
    low, high = bootstrap[f"{key}_low"], bootstrap[f"{key}_high"]
    trend: Trend = "unclear" if moved.any() else "same"
    if np.count_nonzero(moved) >= LEAST_MOVED:
        trend = "better" if low > 0 else "worse" if high < 0 else "unclear"
    return Gain(name, rows, round(float(base), DIGITS), round(float(head), DIGITS), bootstrap[key], low, high, trend)
